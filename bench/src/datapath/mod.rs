//! What the programs cost: test runs (`BPF_PROG_TEST_RUN`) of packets that fare in one way or another.
//!
//! Each round runs, for each case, a batch through an empty program, one through mhebpf's, and one through the empty program
//! again, all with the same [`prelude`]. The cost is the middle one less the mean of the other two: a drift of the
//! machine cancels out, and the two empty ones tell what the run cannot resolve. Before them one of each kind is run and
//! not timed, so that all three find the same caches. A batch is timed from outside; what the system call costs is in
//! all three.
//!
//! What a test run includes: the program, entered by a tail call, with its maps and helpers. What it does not: the hook
//! (TCX or clsact), and what a redirect does after the program. The packet is in the first-level cache. With random keys
//! the addresses' entries come from whatever level of cache holds them, but a processor that executes out of order
//! can overlap that with the next repetition, which traffic would not let it. So the *cold* rows run one packet at a
//! time, after reading through more memory than the second-level cache holds, and take the kernel's own measurement of that
//! single run: code, maps and packet then come from the third level or from memory.

mod cases;
mod frame;
mod host;
mod prelude;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs,
    hint::black_box,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use mhebpf::datapath::{Datapath, load};
use mhebpf_ebpf::Direction;
use mhebpf_tests::NetNs;

use self::{
    cases::{Case, Key, Setting},
    host::{ETH0, ETH1},
};
use crate::{
    bpf,
    options::Options,
    processor,
    report::{Cell, Report},
    stats::Summary,
};

/// The offsets of `ingress_ifindex` and `ifindex` in `struct __sk_buff`, and how much of the structure is given.
const SKB_INGRESS_IFINDEX: usize = 36;
const SKB_IFINDEX: usize = 40;
const CONTEXT: usize = 44;

/// How long others may use the CPU between two cases.
const PAUSE: Duration = Duration::from_micros(200);

/// How long all that takes.
struct Effort {
    rounds: usize,
    repeat: u32,
    cold_rounds: usize,
}

/// Measures all cases.
///
/// # Errors
///
/// Without root, and when a packet does not fare as it should.
pub(crate) fn measure(options: &Options, report: &mut Report) -> Result<()> {
    let effort = if options.quick {
        Effort { rounds: 20, repeat: 2_000, cold_rounds: 40 }
    } else {
        Effort { rounds: 60, repeat: 10_000, cold_rounds: 300 }
    };
    let namespace = NetNs::new("datapath")?;
    namespace.ip(&format!("link add eth0 index {ETH0} type veth peer name eth1 index {ETH1}"))?;
    namespace.run(|| {
        processor::stay_here(report)?;
        measure_here(&effort, report)
    })
}

fn measure_here(effort: &Effort, report: &mut Report) -> Result<()> {
    let cases = cases::all();
    let mut hosts = BTreeMap::new();
    for Case { host, .. } in &cases {
        if let Entry::Vacant(entry) = hosts.entry(host.key()) {
            entry.insert(Host::new(*host)?);
        }
    }
    let benches = cases
        .into_iter()
        .map(|case| {
            let host = &hosts[&case.host.key()];
            Bench::new(case, host)
        })
        .collect::<Result<Vec<_>>>()?;
    let (cold, warm): (Vec<_>, Vec<_>) = benches.into_iter().partition(|bench| bench.case.key == Key::Cold);

    let mut rounds: Vec<Vec<Round>> = warm.iter().map(|_| Vec::new()).collect();
    // The first round only warms up.
    for number in 0..=effort.rounds {
        for (bench, rounds) in warm.iter().zip(&mut rounds) {
            thread::sleep(PAUSE);
            let round = bench.round(|program| bench.batch(program, effort.repeat))?;
            if number > 0 {
                rounds.push(round);
            }
        }
    }
    let mut cache = Cache::new();
    let mut cold_rounds: Vec<Vec<Round>> = cold.iter().map(|_| Vec::new()).collect();
    for _ in 0..effort.cold_rounds {
        for (bench, rounds) in cold.iter().zip(&mut cold_rounds) {
            thread::sleep(PAUSE);
            rounds.push(bench.round(|program| {
                cache.evict();
                bench.single(program)
            })?);
        }
    }
    let table = "ns per packet more than an empty program: address, how many the host has, which of them";
    add_cells(report, &warm, &rounds, table);
    let table = "the same of a single packet with cold caches and a random address";
    add_cells(report, &cold, &cold_rounds, table);
    Ok(())
}

/// The programs with the tables of one host, and an empty program, in an array to jump into.
struct Host {
    _datapath: Datapath,
    programs: OwnedFd,
}

const EGRESS: usize = 0;
const INGRESS: usize = 1;
const EMPTY: usize = 2;

impl Host {
    fn new(setting: Setting) -> Result<Self> {
        let mut datapath = load()?;
        datapath.maps.write(&host::tables(setting))?;
        datapath.maps.settle()?;
        let egress = datapath.programs.egress()?.fd()?.try_clone()?;
        let ingress = datapath.programs.ingress()?.fd()?.try_clone()?;
        let empty = prelude::empty().context("loading an empty program")?;
        let programs = bpf::program_array(&[egress.as_fd(), ingress.as_fd(), empty.as_fd()])
            .context("making an array of programs")?;
        Ok(Self { _datapath: datapath, programs })
    }
}

/// A case that is ready to run.
struct Bench {
    case: Case,
    frame: Vec<u8>,
    context: [u8; CONTEXT],
    /// The preludes of the program and of the empty one.
    program: OwnedFd,
    empty: OwnedFd,
}

/// Nanoseconds per packet.
struct Round {
    empty: [f64; 2],
    program: f64,
}

impl Bench {
    fn new(case: Case, host: &Host) -> Result<Self> {
        let index = if case.direction == Direction::Egress { EGRESS } else { INGRESS };
        let prelude = |index| {
            case.prelude
                .load(host.programs.as_fd(), index)
                .with_context(|| format!("the prelude of {case:?}"))
        };
        let (program, empty) = (prelude(index)?, prelude(EMPTY)?);
        let mut context = [0; CONTEXT];
        context[SKB_IFINDEX..].copy_from_slice(&case.interface.to_ne_bytes());
        if case.forwarded {
            // The other interface.
            let arrived_by = ETH0 + ETH1 - case.interface;
            context[SKB_INGRESS_IFINDEX..SKB_IFINDEX].copy_from_slice(&arrived_by.to_ne_bytes());
        }
        Ok(Self { frame: frame::frame(case.content), case, context, program, empty })
    }

    fn round(&self, mut time: impl FnMut(&OwnedFd) -> Result<f64>) -> Result<Round> {
        time(&self.empty)?;
        time(&self.program)?;
        let before = time(&self.empty)?;
        let program = time(&self.program)?;
        Ok(Round { program, empty: [before, time(&self.empty)?] })
    }

    fn batch(&self, program: &OwnedFd, repeat: u32) -> Result<f64> {
        let start = Instant::now();
        self.run(program, repeat)?;
        Ok(start.elapsed().as_nanos() as f64 / f64::from(repeat))
    }

    fn single(&self, program: &OwnedFd) -> Result<f64> {
        Ok(f64::from(self.run(program, 1)?.duration))
    }

    fn run(&self, program: &OwnedFd, repeat: u32) -> Result<bpf::Ran> {
        let ran = bpf::test_run(program, &self.frame, &self.context, repeat)
            .with_context(|| format!("running {:?}", self.case))?;
        let answer = if program.as_raw_fd() == self.empty.as_raw_fd() { -1 } else { self.case.answer };
        ensure!(ran.answer == answer, "the answer is {} and not {answer} for {:?}", ran.answer, self.case);
        Ok(ran)
    }
}

fn add_cells(report: &mut Report, benches: &[Bench], rounds: &[Vec<Round>], table: &str) {
    let control = Summary::of(rounds.iter().flatten().map(|round| round.empty[1] - round.empty[0]));
    // Each case has fewer rounds than the control, and so has a wider interval itself.
    let resolution = control.reach(0.0);
    for (bench, rounds) in benches.iter().zip(rounds) {
        let case = &bench.case;
        let empty = |round: &Round| (round.empty[0] + round.empty[1]) / 2.0;
        let summary = Summary::of(rounds.iter().map(|round| round.program - empty(round)));
        let direction = if case.direction == Direction::Egress { "egress" } else { "ingress" };
        let is_datagram = case.protocol.starts_with("IP");
        report.add(Cell {
            part: "datapath",
            table: if is_datagram { table.to_owned() } else { format!("{table}: ARP and NDP") },
            series: format!("{} {}, {}", case.protocol, case.what, case.key.name()),
            row: match case.key {
                _ if !is_datagram => format!("{} {}", case.protocol, case.what),
                Key::Cold => format!("{}, {}", case.what, case.host.count),
                Key::Hot | Key::Random => format!("{}, {}, {}", case.what, case.host.count, case.key.name()),
            },
            column: if is_datagram { format!("{} {direction}", case.protocol) } else { direction.to_owned() },
            unit: "ns",
            addresses: Some(case.host.count),
            summary,
            resolved: summary.differs_from(0.0, resolution),
            bar: None,
        });
    }
    let which =
        if benches.iter().any(|bench| bench.case.key == Key::Cold) { " with cold caches" } else { "" };
    report.note(format!(
        "datapath{which}: empty against empty {:.3} ns; less than {resolution:.3} ns is not resolved.",
        control.median,
    ));
}

/// Memory to read through, so that nothing else is left in the caches of this CPU.
struct Cache {
    lines: Vec<[u8; 64]>,
}

impl Cache {
    fn new() -> Self {
        let size = fs::read_to_string("/sys/devices/system/cpu/cpu0/cache/index2/size").unwrap_or_default();
        let kibibytes = size.trim().trim_end_matches('K').parse().unwrap_or(2048);
        Self { lines: vec![[1; 64]; 4 * kibibytes * 1024 / 64] }
    }

    fn evict(&mut self) {
        let sum: u64 = self.lines.iter().map(|line| u64::from(line[0])).sum();
        black_box(sum);
    }
}
