//! The programs as the kernel runs them on a frame that is on no wire: `BPF_PROG_TEST_RUN`.
//!
//! `convert___skb_to_skb` (Linux 6.18) takes from a test the interface, the one of arrival, `skb->cb` and the
//! size of segments, which is what the programs look at besides the frame. A test cannot set:
//! - a tag beside the frame (`vlan_present`, `vlan_tci`): EINVAL. Tags stand in the frame here, and the pure
//!   decision is tested with both;
//! - a frame that is not linear (`data_end`): EINVAL. All bytes are within reach here without
//!   `bpf_skb_pull_data`;
//! - a frame that is too short for itself ([`is_too_short`]): EINVAL;
//! - a packet without an Ethernet header, or one that came out of IPsec: the pure decision is tested with both;
//! - the packet's route. Nor is a redirect carried out: the answer is that there would be one, not where to.

mod answer;
mod trial;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    TestRunOptions,
    maps::MapInfo,
    programs::{ProgramError, TestRun as _},
};
use mhebpf::{
    control::recording,
    datapath::{Datapath, Reports, load, load_reporting},
    explain::explanation::Question,
};
use mhebpf_ebpf::{Sample, Verdict};
use mhebpf_tests::{
    NetNs,
    features::{self, Feature},
};

pub(crate) use answer::{answer, offset_of_content};
pub(crate) use trial::Trial;

use crate::{
    oracle::{Crossing, Direction},
    random::hosts::INDICES,
    subject::Tables,
};

/// `TC_ACT_UNSPEC`: the packet goes on to the next program.
pub(crate) const PASS: i32 = -1;
/// `TC_ACT_SHOT`
pub(crate) const DROP: i32 = 2;
/// `TC_ACT_REDIRECT`
pub(crate) const REDIRECT: i32 = 7;

/// Counters by interface, direction, family, reason, and whether the packet was only observed.
pub(crate) type Counts = BTreeMap<(u32, Direction, &'static str, &'static str, bool), u64>;

/// The loaded programs, in a network namespace where all the interfaces of random hosts exist.
pub(crate) struct Kernel {
    datapath: Datapath,
    /// Whether a test can say by which interface a packet has arrived.
    pub(crate) knows_arrival: bool,
}

/// `skb->cb`, as far as programs see it.
pub(crate) type Cb = [u8; 20];

/// What a program made of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) frame: Vec<u8>,
    pub(crate) cb: Cb,
}

/// Fields of `struct __sk_buff` (linux/bpf.h).
const INGRESS_IFINDEX: usize = 36;
const IFINDEX: usize = 40;
const CB: usize = 48;
const GSO_SIZE: usize = 176;
const SIZE: usize = 192;

/// Runs a test with the programs loaded.
pub(crate) fn with_kernel(test: impl FnOnce(&mut Kernel) -> Result<()> + Send) -> Result<()> {
    with_kernel_in(&namespace()?, test)
}

/// The same with programs that say for the log what no packet should meet with.
pub(crate) fn with_reporting_kernel(test: impl FnOnce(&mut Kernel) -> Result<()> + Send) -> Result<()> {
    run(&namespace()?, load_reporting, test)
}

/// A namespace with all interfaces of random hosts.
fn namespace() -> Result<NetNs> {
    let namespace = NetNs::new("programs")?;
    let mut links = String::new();
    for pair in INDICES.chunks(2) {
        if let [one, other] = pair {
            writeln!(links, "link add eth{one} index {one} type veth peer name eth{other} index {other}")?;
        }
    }
    namespace.ip_batch(&links)?;
    Ok(namespace)
}

/// The same in a namespace that is there already.
pub(crate) fn with_kernel_in(
    namespace: &NetNs,
    test: impl FnOnce(&mut Kernel) -> Result<()> + Send,
) -> Result<()> {
    run(namespace, load, test)
}

fn run(
    namespace: &NetNs,
    load: fn() -> Result<Datapath>,
    test: impl FnOnce(&mut Kernel) -> Result<()> + Send,
) -> Result<()> {
    // The programs are only ever run from this thread: interfaces are looked up in its namespace.
    let knows_arrival = features::has(Feature::TestRunIngressIfindex)?;
    namespace.run(|| test(&mut Kernel { datapath: load()?, knows_arrival }))
}

/// Whether `bpf_prog_test_run_skb` refuses such a frame: one without a whole Ethernet header, or with less
/// than the fixed header of the IP version that its EtherType says. Truncated IPv4 is judged behind a tag,
/// which the kernel does not look through.
pub(crate) fn is_too_short(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        None => true,
        Some([0x08, 0x00]) => frame.len() < 14 + 20,
        Some([0x86, 0xdd]) => frame.len() < 14 + 40,
        Some(_) => false,
    }
}

impl Kernel {
    /// Brings the maps to these tables, and sees to it that the filter has all local addresses and none that were local before.
    pub(crate) fn write(&mut self, tables: &Tables) -> Result<()> {
        self.datapath.maps.write(tables)?;
        self.datapath.maps.settle()?;
        ensure!(*tables.filter() == self.datapath.maps.read_filter()?, "the filter is not of these tables");
        Ok(())
    }

    /// Has the kernel refuse to write the filter.
    pub(crate) fn freeze_filter(&mut self) -> Result<()> {
        /// `BPF_MAP_FREEZE` of linux/bpf.h.
        const FREEZE: libc::c_long = 22;
        let info = self.datapath.programs.egress()?.info()?;
        for id in info.map_ids()?.context("this kernel does not tell a program's maps")? {
            let map = MapInfo::from_id(id)?;
            if map.name_as_str() == Some(".bss.filter") {
                let fd = map.fd()?;
                // The beginning of `union bpf_attr` for the command; the rest counts as zero.
                let attributes = [fd.as_fd().as_raw_fd()];
                // SAFETY: the attributes have the size that is given.
                let result = unsafe {
                    libc::syscall(libc::SYS_bpf, FREEZE, attributes.as_ptr(), size_of_val(&attributes))
                };
                ensure!(result == 0, "freezing: {}", io::Error::last_os_error());
                return Ok(());
            }
        }
        bail!("the program has no filter")
    }

    /// Runs the program of the packet's direction. The inner error is the kernel's refusal to run it on such
    /// a packet.
    pub(crate) fn run(&mut self, crossing: &Crossing, cb: Cb) -> Result<io::Result<Ran>> {
        self.run_segmented(crossing, cb, 0)
    }

    /// The same for a packet that will be cut into segments of this many bytes of payload, where that is not
    /// 0.
    pub(crate) fn run_segmented(
        &mut self,
        crossing: &Crossing,
        cb: Cb,
        gso_size: u32,
    ) -> Result<io::Result<Ran>> {
        let mut context = [0; SIZE];
        // A packet that arrives has come in by the interface that it crosses, which the ingress program need not look at.
        let arrives = self.knows_arrival && crossing.direction == Direction::Ingress;
        let came_in_by = if crossing.arrived || arrives { crossing.interface } else { 0 };
        context[INGRESS_IFINDEX..][..4].copy_from_slice(&came_in_by.to_ne_bytes());
        context[IFINDEX..][..4].copy_from_slice(&crossing.interface.to_ne_bytes());
        context[CB..][..cb.len()].copy_from_slice(&cb);
        context[GSO_SIZE..][..4].copy_from_slice(&gso_size.to_ne_bytes());
        let mut context_after = [0; SIZE];
        // An ICMP message in its place can be longer.
        let mut frame = vec![0; crossing.frame.len().max(256)];
        let options = TestRunOptions {
            data_in: Some(&crossing.frame),
            data_out: Some(&mut frame),
            ctx_in: Some(&context),
            ctx_out: Some(&mut context_after),
            ..TestRunOptions::default()
        };
        let program = match crossing.direction {
            Direction::Egress => self.datapath.programs.egress()?,
            Direction::Ingress => self.datapath.programs.ingress()?,
        };
        let result = match program.test_run(options) {
            Ok(result) => result,
            Err(ProgramError::SyscallError(refusal)) => return Ok(Err(refusal.io_error)),
            Err(error) => return Err(error.into()),
        };
        frame.truncate(result.data_size_out as usize);
        let mut cb = [0; 20];
        cb.copy_from_slice(&context_after[CB..][..20]);
        Ok(Ok(Ran { code: result.return_value.cast_signed(), frame, cb }))
    }

    /// What the programs say for the log; `None` where they say nothing.
    pub(crate) fn reports(&mut self) -> Option<&mut Reports> {
        self.datapath.reports.as_mut()
    }

    /// Decides on a packet by what is in the maps, as the daemon does for `mhebpf explain`.
    pub(crate) fn judge(&self, question: &Question) -> Result<Verdict> {
        let live = self.datapath.maps.live();
        let Question { direction, ifindex, packet, forwarded, .. } = question;
        let asked = mhebpf::control::protocol::Crossing::new(*direction, *ifindex, packet, *forwarded);
        let (verdict, _) = recording::judge(&live, &asked).context("such a packet exists")?;
        live.finish()?;
        Ok(verdict)
    }

    /// Has the programs sample what they count, at a rate in samples per second.
    pub(crate) fn sample(&mut self, per_second: u32) -> Result<()> {
        self.datapath.samples.set_rate(per_second)
    }

    /// The samples since, and how many were left out.
    pub(crate) fn samples(&mut self) -> Result<(Vec<Sample>, u64)> {
        let samples = &mut self.datapath.samples;
        let taken = samples.by_ref().collect();
        Ok((taken, samples.suppressed()?))
    }

    /// All counters.
    pub(crate) fn counts(&self) -> Result<Counts> {
        let counts = self.datapath.counters.read()?.into_iter().map(|count| {
            let direction = match count.direction {
                mhebpf_ebpf::Direction::Egress => Direction::Egress,
                mhebpf_ebpf::Direction::Ingress => Direction::Ingress,
            };
            let key = (count.ifindex, direction, count.family.name(), count.reason.name(), count.observed);
            (key, count.packets)
        });
        Ok(counts.collect())
    }
}
