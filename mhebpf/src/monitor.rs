//! `mhebpf monitor`: packets that do not simply pass, as it happens.

mod filter;
mod packet;
mod process;
mod report;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};

use self::{filter::Filter, packet::Packet, process::Processes, report::Tally};
pub(crate) use self::{packet::tracked, report::flow};
use crate::{
    cli::{Format, MonitorOptions},
    console,
    console::Colours,
    control::{Answer, Request, client::Answers},
    stream,
};

/// Prints one line for each packet until it is interrupted or the daemon ends, and then a summary on standard error.
///
/// # Errors
///
/// When there is no daemon, or it does not answer.
pub async fn run(options: &MonitorOptions) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("handling SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("handling SIGTERM")?;
    let mut answers = Answers::to(Request::Monitor).await?;
    let filter = Filter::new(options);
    let colours = Colours::of_stdout();
    let mut tally = Tally::default();
    let mut processes = Processes::default();
    loop {
        let answer = tokio::select! {
            biased;
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            answer = answers.next() => answer?,
        };
        let line = match answer {
            Some(Answer::Seen(seen)) => {
                if !filter.admits(&seen) {
                    continue;
                }
                tally.count(&seen);
                let packet = Packet::of(&seen);
                let process = processes.of(seen.socket, &packet);
                match options.output {
                    Format::Text => {
                        colours.printable(&report::text(&seen, &packet, process.as_ref(), colours))
                    }
                    Format::Json => report::json(&seen, packet, process)?,
                }
            }
            Some(Answer::Suppressed { packets }) => {
                tally.suppressed = packets;
                match options.output {
                    Format::Text => report::suppressed_text(packets),
                    Format::Json => report::suppressed_json(packets)?,
                }
            }
            Some(Answer::Watching) => {
                console::say(&format!("watching mhebpf{}: Ctrl-C ends it\n", answers.process()));
                continue;
            }
            // Of a later version.
            Some(_) => continue,
            None => {
                console::say(&format!("mhebpf{} has ended\n", answers.process()));
                break;
            }
        };
        if !stream::print(&line).context("printing packets")? {
            break;
        }
    }
    console::say(&tally.text());
    Ok(())
}
