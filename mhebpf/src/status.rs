//! `mhebpf status`: how the daemon of this network namespace is.

mod rates;
mod report;

use std::io::{IsTerminal as _, stdout};

use anyhow::{Context as _, Result};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    cli::{Format, StatusOptions},
    console::{self, Colours},
    control::{client, protocol::Status},
    stream,
};

/// Goes to the top left corner of a terminal and clears all that is there.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// Asks the daemon and prints its answer, once or until it is stopped.
///
/// # Errors
///
/// When there is no daemon, or it does not answer.
pub async fn run(options: &StatusOptions) -> Result<()> {
    let Some(period) = options.watch else {
        let status = client::status().await?;
        let text = match options.output {
            Format::Text => report::text(&status, Colours::of_stdout()),
            Format::Json => serde_json::to_string_pretty(&status)? + "\n",
        };
        return console::print(&text).context("printing the status");
    };
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: Option<(Instant, Box<Status>)> = None;
    loop {
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => return interrupted.context("handling SIGINT"),
            _ = ticks.tick() => {}
        }
        let mut status = client::status().await?;
        let now = Instant::now();
        let seen = status.clone();
        if let Some((then, before)) = before.replace((now, seen)) {
            rates::add(&mut status, &before, now - then);
        }
        let text = match options.output {
            Format::Text if stdout().is_terminal() => {
                CLEAR.to_owned() + &report::text(&status, Colours::of_stdout())
            }
            Format::Text => report::text(&status, Colours::Off) + "\n",
            Format::Json => serde_json::to_string(&status)? + "\n",
        };
        if !stream::print(&text).context("printing the status")? {
            return Ok(());
        }
    }
}
