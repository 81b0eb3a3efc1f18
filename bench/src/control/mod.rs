//! What the daemon takes: to be ready, to follow a change of addresses, and of memory and CPU; and the same on hosts with
//! many routes (`routes`).
//!
//! A change has come through when it is in the map itself: the daemon's own map is opened by its id and asked again and
//! again, which keeps a CPU busy. Each lag counts from the moment at which the kernel has acknowledged the change, so it
//! is the time in which the programs do not know it yet.

mod addresses;
mod map;
mod routes;
mod uplinks;
mod usage;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use mhebpf_tests::{Daemon, NetNs, daemon::READY};

use self::{
    addresses::{Socket, numbered},
    map::Owners,
    usage::Usage,
};
use crate::{
    options::Options,
    report::{Cell, Report},
    stats::Summary,
};

/// How many interfaces a daemon starts on.
const INTERFACES: [u32; 4] = [1, 4, 16, 256];
/// What the start on 4 interfaces may take.
const START_BAR: f64 = 100.0;
/// What may pass until one address is in the map.
const ADDRESS_BAR: f64 = 0.3;
/// How many addresses come in one batch.
const BATCH: u32 = 10_000;
/// The head of the column of starts.
const READY_COLUMN: &str = "start to ready";
/// How long a map is believed to be the daemon's, where something has not come through yet.
const STALE: Duration = Duration::from_millis(20);

/// How long a change may take to come through, and the daemon to start or to stop.
const LIMIT: Duration = Duration::from_secs(120);

/// How long all that takes.
struct Effort {
    /// For each of [`INTERFACES`].
    starts: [usize; INTERFACES.len()],
    changes: usize,
    batches: usize,
    idle: Duration,
}

/// Measures the daemon.
///
/// # Errors
///
/// Without root, and when a change does not come through.
pub(crate) fn measure(options: &Options, report: &mut Report) -> Result<()> {
    let effort = if options.quick {
        Effort { starts: [3, 3, 2, 0], changes: 100, batches: 1, idle: Duration::from_secs(1) }
    } else {
        Effort { starts: [15, 15, 10, 3], changes: 2_000, batches: 5, idle: Duration::from_secs(10) }
    };
    if options.routes.is_empty() {
        start(&effort, report)?;
        follow(&effort, report)?;
    }
    routes::measure(options, report);
    Ok(())
}

/// From the start of the process to the line that says that it is ready, and from SIGTERM to its end.
fn start(effort: &Effort, report: &mut Report) -> Result<()> {
    let mut hosts = Vec::new();
    for (count, starts) in INTERFACES.into_iter().zip(effort.starts) {
        if starts == 0 {
            report.leave_out(format!("the start on {count} interfaces: --quick has no time for it"));
        } else {
            hosts.push((count, starts, host(count)?, Vec::new(), Vec::new()));
        }
    }
    for number in 0..effort.starts.into_iter().max().unwrap_or(0) {
        for (_, starts, (host, _peer), ready, stopped) in &mut hosts {
            if number >= *starts {
                continue;
            }
            let begin = Instant::now();
            let daemon = Daemon::spawn(host, &["run", "--interface", "eth*"])?;
            daemon.wait_for_line(READY, LIMIT)?;
            ready.push(milliseconds(begin.elapsed()));
            let end = Instant::now();
            stop(daemon)?;
            stopped.push(milliseconds(end.elapsed()));
        }
    }
    for (count, _, _, ready, stopped) in hosts {
        let row = format!("{count} interfaces");
        for (column, values) in [(READY_COLUMN, ready), ("SIGTERM to end", stopped)] {
            let bar = (count == 4 && column == READY_COLUMN).then_some(START_BAR);
            report.add(cell("start and stop, ms", &row, column, "ms", Summary::of(values)).held_to(bar));
        }
    }
    Ok(())
}

/// Tells a daemon to end, and waits for longer than a service manager would: it may have much to do.
fn stop(mut daemon: Daemon) -> Result<()> {
    daemon.signal(libc::SIGTERM)?;
    let ended = daemon.wait_end(LIMIT)?;
    ensure!(ended.status.success(), "mhebpf ended with {}; it said:\n{}", ended.status, ended.stderr);
    Ok(())
}

/// Single changes and batches of them, on a host with one interface.
fn follow(effort: &Effort, report: &mut Report) -> Result<()> {
    let (host, _peer) = host(1)?;
    let daemon = Daemon::spawn(&host, &["run", "--interface", "eth*", "--no-announce"])?;
    daemon.wait_ready()?;
    let mut owners = Owners::of(daemon.pid())?;
    let mut socket = Socket::open(&host, "eth0")?;

    lags(effort, &mut owners, &mut socket, report)?;

    let before = Usage::of(daemon.pid())?;
    thread::sleep(effort.idle);
    let idle = Usage::of(daemon.pid())?;
    let share = (idle.cpu - before.cpu).as_secs_f64() / effort.idle.as_secs_f64();
    let table = "memory and CPU time of the daemon";
    report.add(cell(table, "idle: CPU", "figure", "%", Summary::of([100.0 * share])));
    report.add(cell(table, "idle: resident", "figure", "KiB", Summary::of([idle.resident as f64])));

    let (mut lags, mut cpu) = (Vec::new(), Vec::new());
    let mut full = idle;
    for _ in 0..effort.batches {
        let before = Usage::of(daemon.pid())?;
        socket.add_all(1..=BATCH)?;
        let begin = Instant::now();
        wait_for(&mut owners, 1..=BATCH, true)?;
        lags.push(milliseconds(begin.elapsed()));
        full = Usage::of(daemon.pid())?;
        cpu.push(milliseconds(full.cpu - before.cpu));
        // The first last: with it, the only primary one, the kernel would remove all others.
        socket.remove_all((1..=BATCH).rev())?;
        wait_for(&mut owners, 1..=BATCH, false)?;
    }
    let row = format!("{BATCH} at once: from the last until all are in the map");
    report.add(cell("lag, ms", &row, "median", "ms", Summary::of(lags)));
    let row = |what| format!("{BATCH} at once: {what}");
    report.add(cell(table, &row("CPU, ms"), "figure", "ms", Summary::of(cpu)));
    report.add(cell(table, &row("resident"), "figure", "KiB", Summary::of([full.resident as f64])));
    report.add(cell(
        table,
        &row("resident at most"),
        "figure",
        "KiB",
        Summary::of([full.most_resident as f64]),
    ));
    report.note(format!(
        "control: none of {BATCH} addresses that came at once was lost, {} times.",
        effort.batches
    ));
    daemon.stop()?;
    Ok(())
}

/// An address comes and goes.
fn lags(effort: &Effort, owners: &mut Owners, socket: &mut Socket, report: &mut Report) -> Result<()> {
    let mut lags = Vec::new();
    for number in 0..effort.changes {
        let present = number % 2 == 0;
        if present {
            socket.add_all(1..=1)?;
        } else {
            socket.remove_all(1..=1)?;
        }
        let begin = Instant::now();
        wait_for(owners, 1..=1, present)?;
        lags.push(milliseconds(begin.elapsed()));
        // The daemon rests for as long as it was busy; changes are to find it idle, at no fixed beat.
        thread::sleep(Duration::from_micros(3_000 + (number as u64 * 7_919) % 4_000));
    }
    lags.sort_by(f64::total_cmp);
    let quantile = |part| crate::stats::quantile(&lags, part);
    let (p99, most) = (quantile(0.99), quantile(1.0));
    let row = "one address: from the change until it is in the map";
    let median = cell("lag, ms", row, "median", "ms", Summary::of(lags.iter().copied()));
    report.add(median.held_to(Some(ADDRESS_BAR)));
    report.add(cell("lag, ms", row, "p99", "ms", Summary::of([p99])));
    report.add(cell("lag, ms", row, "max", "ms", Summary::of([most])));
    Ok(())
}

/// Waits until all of these addresses are in the map, or none is.
fn wait_for(owners: &mut Owners, numbers: impl Iterator<Item = u32>, present: bool) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    let mut found = Instant::now();
    for number in numbers {
        let address = numbered(number);
        while owners.contains(address)? != present {
            ensure!(Instant::now() < deadline, "{address} has not come through within {LIMIT:?}");
            if found.elapsed() > STALE {
                // In the moment of the exchange there may be two, or none.
                let _ = owners.find_again();
                found = Instant::now();
            }
        }
    }
    Ok(())
}

/// A host with so many interfaces, each with an address, and the other ends of its links.
fn host(interfaces: u32) -> Result<(NetNs, NetNs)> {
    let (host, peer) = (NetNs::new("host")?, NetNs::new("peer")?);
    let mut script = String::new();
    for number in 0..interfaces {
        script += &format!("link add eth{number} type veth peer name p{number} netns {}\n", peer.path());
        script += &format!("link set eth{number} up\n");
        script += &format!("address add 172.16.{number}.1/24 dev eth{number}\n");
    }
    host.ip_batch(&script).context("making interfaces")?;
    let up = (0..interfaces).map(|number| format!("link set p{number} up\n"));
    peer.ip_batch(&up.collect::<String>())?;
    Ok((host, peer))
}

fn cell(table: &str, row: &str, column: &str, unit: &'static str, summary: Summary) -> Cell {
    Cell {
        part: "control",
        table: table.to_owned(),
        series: "mhebpf".to_owned(),
        row: row.to_owned(),
        column: column.to_owned(),
        unit,
        addresses: None,
        summary,
        resolved: true,
        bar: None,
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
