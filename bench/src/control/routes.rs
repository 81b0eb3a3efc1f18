//! What the daemon takes on a host with many routes.
//!
//! Whether a change is in force is seen on the wire, which no layout of maps matters for: a frame with another interface's address is
//! sent every 200 microseconds, and the first one counts that takes its new way. The time is that from the request to the
//! kernel.

use std::{
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Result;
use mhebpf_tests::{
    Daemon,
    daemon::READY,
    way::{Stream, Way},
};

use super::{
    addresses::Socket,
    cell, milliseconds, stop,
    uplinks::{Shape, Uplinks},
    usage::{Usage, map_memory},
};
use crate::{
    options::Options,
    report::{Cell, Report},
    stats::Summary,
};

/// How many routes the hosts have.
const COUNTS: [u32; 3] = [1_000, 100_000, 1_000_000];
/// How many with `--quick`.
const QUICK_COUNTS: [u32; 1] = [1_000];
/// How long a change may take to come through before it is given up.
const GIVEN_UP: Duration = Duration::from_secs(30);
/// How long a start may take before it is.
const START_GIVEN_UP: Duration = Duration::from_secs(300);
/// How long the daemon may be busy after a change before that is its rest.
const SETTLED: Duration = Duration::from_secs(20);
/// What a megabyte is.
const MEGABYTE: f64 = 1e6;

/// What is to be reached on a host with at most so many routes.
struct Bars {
    routes: u32,
    ready: f64,
    change: f64,
    change_cpu: Option<f64>,
    address: Option<f64>,
    resident: f64,
}

/// In milliseconds and megabytes.
const BARS: [Bars; 2] = [
    Bars {
        routes: 100_000,
        ready: 2_000.0,
        change: 20.0,
        change_cpu: Some(5.0),
        address: Some(50.0),
        resident: 60.0,
    },
    Bars {
        routes: 1_000_000,
        ready: 15_000.0,
        change: 50.0,
        change_cpu: None,
        address: None,
        resident: 400.0,
    },
];

/// How long all that takes.
struct Effort {
    starts: usize,
    changes: usize,
    idle: Duration,
}

/// Measures the daemon on a host of each shape with each number of routes. What goes wrong on one is told in the report, and the
/// others are measured all the same.
pub(super) fn measure(options: &Options, report: &mut Report) {
    let counts = match (&options.routes[..], options.quick) {
        ([], true) => &QUICK_COUNTS[..],
        ([], false) => &COUNTS,
        (chosen, _) => chosen,
    };
    for count in counts {
        for shape in Shape::ALL {
            let effort = match (options.quick, *count > BARS[0].routes) {
                (true, _) => Effort { starts: 1, changes: 20, idle: Duration::from_secs(1) },
                (false, true) => Effort { starts: 1, changes: 20, idle: Duration::from_secs(10) },
                (false, false) => Effort { starts: 3, changes: 30, idle: Duration::from_secs(10) },
            };
            eprintln!("bench: {count} routes, {}", shape.name());
            if let Err(error) = (Measuring { count: *count, shape, effort, report }).all() {
                report.fail(format!("control, {count} routes, {}: {error:#}", shape.name()));
            }
        }
    }
}

/// One host.
struct Measuring<'a> {
    count: u32,
    shape: Shape,
    effort: Effort,
    report: &'a mut Report,
}

impl Measuring<'_> {
    fn all(&mut self) -> Result<()> {
        let mut host = Uplinks::new(self.shape, self.count)?;
        let bars = BARS.iter().find(|bars| self.count <= bars.routes);
        let daemon = self.start(&host, bars)?;

        let settled = settle(&daemon)?;
        let resident = settled.resident as f64 * 1024.0 / MEGABYTE;
        self.add("resident", "MB", [resident], bars.map(|bars| bars.resident));
        self.add("maps", "MB", [map_memory(daemon.pid())? as f64 / MEGABYTE], None);
        thread::sleep(self.effort.idle);
        let idle = (Usage::of(daemon.pid())?.cpu - settled.cpu).as_secs_f64();
        self.add("idle: CPU", "%", [100.0 * idle / self.effort.idle.as_secs_f64()], None);

        self.route(&mut host, &daemon, bars)?;
        let mut socket = Socket::open(&host.host, &host.addressed_interface())?;
        let stream = host.addressed()?;
        let lags = self.addresses(&host, &mut socket, &stream, "an address changes")?;
        self.add("an address: in force", "ms", lags, None);
        let flapping = host.flap()?;
        let lags = self.addresses(&host, &mut socket, &stream, "an address changes while routes flap")?;
        flapping.stop()?;
        let most = lags.iter().copied().fold(0.0, f64::max);
        let bar = bars.and_then(|bars| bars.address);
        self.add("50 routes flap: an address", "ms", lags, bar);
        self.add("50 routes flap: at most", "ms", [most], bar);
        drop(stream);
        let end = settle(&daemon)?;
        let resident = end.resident as f64 * 1024.0 / MEGABYTE;
        self.add("resident after all that", "MB", [resident], bars.map(|bars| bars.resident));
        self.add("resident at most", "MB", [end.most_resident as f64 * 1024.0 / MEGABYTE], None);
        stop(daemon)
    }

    /// From the start of the process to the line that says that it is ready. The last one runs on.
    fn start(&mut self, host: &Uplinks, bars: Option<&Bars>) -> Result<Daemon> {
        let (mut ready, mut cpu) = (Vec::new(), Vec::new());
        let daemon = loop {
            let begin = Instant::now();
            let daemon = Daemon::spawn(&host.host, &["run", "--interface", "eth*", "--no-announce"])?;
            daemon.wait_for_line(READY, START_GIVEN_UP)?;
            ready.push(milliseconds(begin.elapsed()));
            cpu.push(milliseconds(Usage::of(daemon.pid())?.cpu));
            if ready.len() >= self.effort.starts {
                break daemon;
            }
            stop(daemon)?;
        };
        self.add("start to ready", "ms", ready, bars.map(|bars| bars.ready));
        self.add("start to ready: CPU", "ms", cpu, None);
        Ok(daemon)
    }

    /// A route's gateway changes, and nothing else: first with frames that show when that is in force, then without them,
    /// which the daemon may have a look at.
    fn route(&mut self, host: &mut Uplinks, daemon: &Daemon, bars: Option<&Bars>) -> Result<()> {
        let mut lags = Vec::new();
        let stream = host.routed()?;
        self.reach(&stream, SystemTime::UNIX_EPOCH, host.routed_by(2)?, "the first frame")?;
        for number in 0..self.effort.changes {
            let gateway = if number % 2 == 0 { 3 } else { 2 };
            let begin = SystemTime::now();
            host.change_route(gateway)?;
            lags.push(self.reach(&stream, begin, host.routed_by(gateway)?, "a route changes")?);
            if lags.last() >= Some(&milliseconds(GIVEN_UP)) {
                break;
            }
            pause(number);
        }
        drop(stream);
        // A daemon that rests between its works may not have begun when it looks idle.
        let longest = lags.iter().copied().fold(0.0, f64::max);
        self.add("a route: in force", "ms", lags, bars.map(|bars| bars.change));
        if longest >= milliseconds(GIVEN_UP) {
            let (count, shape) = (self.count, self.shape.name());
            self.report.leave_out(format!("{count} routes, {shape}: CPU of a change that is not in force"));
            return Ok(());
        }
        let mut cpu = Vec::new();
        for number in 0..self.effort.changes.min(10) {
            let before = settle(daemon)?;
            host.change_route(if number % 2 == 0 { 3 } else { 2 })?;
            thread::sleep(Duration::from_secs_f64(longest / 1e3));
            cpu.push(milliseconds(settle(daemon)?.cpu - before.cpu));
        }
        self.add("a route: CPU", "ms", cpu, bars.and_then(|bars| bars.change_cpu));
        Ok(())
    }

    /// An address comes and goes.
    fn addresses(
        &mut self,
        host: &Uplinks,
        socket: &mut Socket,
        stream: &Stream,
        what: &str,
    ) -> Result<Vec<f64>> {
        let mut lags = Vec::new();
        self.reach(stream, SystemTime::UNIX_EPOCH, host.addressed_by(false)?, "the first frame")?;
        for number in 0..self.effort.changes {
            let present = number % 2 == 0;
            let begin = SystemTime::now();
            if present {
                socket.add_all(1..=1)?;
            } else {
                socket.remove_all(1..=1)?;
            }
            lags.push(self.reach(stream, begin, host.addressed_by(present)?, what)?);
            if lags.last() >= Some(&milliseconds(GIVEN_UP)) {
                if present {
                    socket.remove_all(1..=1)?;
                }
                break;
            }
            pause(number);
        }
        Ok(lags)
    }

    /// Waits until frames take a way, and says how long after `begin`; [`GIVEN_UP`], and a note, where that is too long.
    fn reach(&mut self, stream: &Stream, begin: SystemTime, way: Way, what: &str) -> Result<f64> {
        match stream.wait(begin, way, GIVEN_UP) {
            Ok(at) => Ok(milliseconds(at.duration_since(begin).unwrap_or_default())),
            Err(error) => {
                let (count, shape) = (self.count, self.shape.name());
                let why = format!("control, {count} routes, {shape}: {what}, {error:#}");
                self.report.note(why);
                Ok(milliseconds(GIVEN_UP))
            }
        }
    }

    fn add(
        &mut self,
        row: &str,
        unit: &'static str,
        values: impl IntoIterator<Item = f64>,
        bar: Option<f64>,
    ) {
        let table = format!("control: {} routes, four uplinks", self.count);
        let row = format!("{row}, {unit}");
        let figure: Cell = cell(&table, &row, self.shape.name(), unit, Summary::of(values));
        // A run that is cut short has said this much.
        eprintln!("bench: {row}: {:.1}", figure.summary.median);
        self.report.add(figure.held_to(bar));
    }
}

/// Waits until the daemon has nothing more to do, and says what it has taken until then. What it does at rest now and then
/// is no more than a millisecond in the time that is looked at.
fn settle(daemon: &Daemon) -> Result<Usage> {
    let begin = Instant::now();
    let mut before = Usage::of(daemon.pid())?;
    loop {
        thread::sleep(Duration::from_millis(150));
        let now = Usage::of(daemon.pid())?;
        if now.cpu.saturating_sub(before.cpu) < Duration::from_millis(1) || begin.elapsed() > SETTLED {
            return Ok(now);
        }
        before = now;
    }
}

/// Changes are to find the daemon idle, at no fixed beat.
fn pause(number: usize) {
    thread::sleep(Duration::from_micros(50_000 + (number as u64 * 7_919) % 50_000));
}
