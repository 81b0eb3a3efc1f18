//! `mhebpf status`: how the daemon of this network namespace is, or what outlives it.

mod pinned;
mod rates;
mod report;

use std::io::{IsTerminal as _, stdout};

use anyhow::{Context as _, Result, anyhow};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    cli::{Format, StatusOptions},
    console::{self, Colours},
    control::{
        client::{self, NoDaemon},
        protocol::Status,
    },
    datapath,
    netlink::Dumper,
    stream,
};

/// What there is to show.
enum Seen {
    /// A daemon runs.
    Daemon(Box<Status>),
    /// None does, but what it has pinned is in force.
    Pinned(Box<pinned::Lasting>),
}

/// Asks the daemon, or reads what outlives it, and prints the answer, once or until it is stopped.
///
/// # Errors
///
/// When there is neither a daemon nor anything that outlives one, or it does not answer.
pub async fn run(options: &StatusOptions) -> Result<()> {
    let Some(period) = options.watch else {
        let colours = Colours::of_stdout();
        let text = match (look(options).await?, options.output) {
            (Seen::Daemon(status), Format::Text) => colours.printable(&report::text(&status, colours)),
            (Seen::Pinned(pinned), Format::Text) => colours.printable(&pinned::text(&pinned, colours)),
            (Seen::Daemon(status), Format::Json) => serde_json::to_string_pretty(&status)? + "\n",
            (Seen::Pinned(pinned), Format::Json) => serde_json::to_string_pretty(&pinned)? + "\n",
        };
        return console::print(&text).context("printing the status");
    };
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: Option<(Instant, Box<Status>)> = None;
    let is_terminal = stdout().is_terminal();
    let colours = if is_terminal { Colours::of_stdout() } else { Colours::Off };
    loop {
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => return interrupted.context("handling SIGINT"),
            _ = ticks.tick() => {}
        }
        let mut seen = look(options).await?;
        if let Seen::Daemon(status) = &mut seen {
            let now = Instant::now();
            let first = status.clone();
            if let Some((then, before)) = before.replace((now, first)) {
                rates::add(status, &before, now - then);
            }
        }
        let text = match (&seen, options.output) {
            (Seen::Daemon(status), Format::Text) => colours.printable(&report::text(status, colours)),
            (Seen::Pinned(pinned), Format::Text) => colours.printable(&pinned::text(pinned, colours)),
            (Seen::Daemon(status), Format::Json) => serde_json::to_string(status)?,
            (Seen::Pinned(pinned), Format::Json) => serde_json::to_string(pinned)?,
        };
        let printed = match options.output {
            Format::Text if is_terminal => stream::repaint(&text),
            _ => stream::print(&(text + "\n")),
        };
        if !printed.context("printing the status")? {
            return Ok(());
        }
    }
}

/// Without a daemon: filters of clsact outlive one that is killed.
fn with_leftovers(error: anyhow::Error) -> anyhow::Error {
    let Ok(snapshot) = Dumper::connect().and_then(|mut dumper| dumper.snapshot()) else { return error };
    let left = datapath::with_leftovers(&snapshot.host);
    if left.is_empty() {
        return error;
    }
    anyhow!(
        "no mhebpf is running in this network namespace, but filters that a killed one has left on {} judge by tables that \
         nobody keeps in step: `mhebpf run` takes their place, `mhebpf unload` takes them off",
        left.join(", ")
    )
}

async fn look(options: &StatusOptions) -> Result<Seen> {
    match client::status().await {
        Ok(status) => Ok(Seen::Daemon(status)),
        Err(error) if error.is::<NoDaemon>() => match pinned::read(options.pin.as_deref()) {
            Ok(Some(pinned)) => Ok(Seen::Pinned(Box::new(pinned))),
            Ok(None) => Err(with_leftovers(error)),
            Err(unread) => Err(unread.context(
                "no mhebpf is running in this network namespace, and what it may have pinned can't be read",
            )),
        },
        Err(error) => Err(error),
    }
}
