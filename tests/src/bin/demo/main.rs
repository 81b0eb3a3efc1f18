//! The article's lab, without and with mhebpf, step by step and as a table. Every claim rests on captured frames.
//!
//! The namespaces of the lab have no names and end with this process, however it ends.

mod claims;
mod interrupt;
mod look;
mod show;
mod table;

use std::{process::ExitCode, time::Instant};

use anyhow::{Context as _, Result};
use mhebpf_tests::{
    Lab, PEER, binary,
    lab::INTERFACES,
    traffic::{ARTICLE_PORT, tcp},
};

use claims::Row;
use look::Observations;

fn main() -> ExitCode {
    interrupt::take_signals();
    let start = Instant::now();
    match run() {
        Ok(true) => {
            println!("\nEvery claim holds ({:.1} s).", start.elapsed().as_secs_f32());
            ExitCode::SUCCESS
        }
        Ok(false) => {
            eprintln!("\nNot every claim holds: see the lines marked above.");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("\ndemo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Shows everything; `false` when a claim does not hold.
fn run() -> Result<bool> {
    binary::mhebpf()?;
    let lab = Lab::article().context("building the lab")?;
    let server = tcp::EchoServer::start(&lab.switch, PEER, ARTICLE_PORT)?;
    show::lab(&lab);

    show::half("WITHOUT mhebpf: Linux is a weak end system");
    let without = Observations::make(&lab, server.address(), || Ok(()))?;

    // The routes are as at the start again when every other interface has gone behind eth0_int.
    for port in lab.ports().skip(1) {
        lab.reorder_routes(port)?;
    }

    show::half(&format!("WITH `mhebpf run --interface '{INTERFACES}'`: a strong end system"));
    let recording = lab.record();
    let daemon = lab.mhebpf(&[])?;
    show::announcements(&recording)?;
    // An address of an interface that mhebpf has not yet seen coming up again has no way out.
    let with = Observations::make(&lab, server.address(), || lab.wait_in_step(0, 1))?;
    let ended = daemon.stop()?;
    show::summary(&ended.stderr);
    drop(server);
    lab.finish().context("the capture of the whole demo")?;

    let rows = claims::rows(&without, &with);
    table::print(&rows);
    Ok(rows.iter().all(Row::holds))
}
