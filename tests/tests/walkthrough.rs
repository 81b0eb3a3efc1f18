//! The session that README.md shows, replayed in the lab: each command in its order, with the output that is promised.

use std::{
    net::{IpAddr, SocketAddr},
    process::Output,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use mhebpf_tests::{
    Daemon, Ended, Lab, Monitor, PATIENCE, PEER, binary,
    features::{self, Feature},
    scaled,
    traffic::{ARTICLE_PORT, tcp},
    wait_until,
};

const README: &str = include_str!("../../README.md");
const SECTION: &str = "## A session in the lab\n";

/// How soon a monitor shows a packet.
const SOON: Duration = scaled(Duration::from_millis(100));

/// A command of the session and the lines that are shown of its output, `...` for some that are left out.
#[derive(Debug, PartialEq)]
struct Shown {
    words: Vec<&'static str>,
    lines: Vec<&'static str>,
}

/// The commands of the section, from its code blocks.
fn session() -> Vec<Shown> {
    let section = README.split_once(SECTION).map(|(_, rest)| rest).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut session: Vec<Shown> = Vec::new();
    for line in section.split("```").skip(1).step_by(2).flat_map(str::lines) {
        let command = line.strip_prefix("# mhebpf ").or_else(|| line.strip_prefix("$ mhebpf "));
        if let Some(command) = command {
            // Its place in the background is the reader's affair.
            let words = command.trim_end_matches(" &").split(' ').collect();
            session.push(Shown { words, lines: Vec::new() });
        } else if let Some(shown) = session.last_mut() {
            shown.lines.push(line);
        }
    }
    session
}

impl Shown {
    /// Holds the output of the command against what is shown of it: all lines, in their order, up to what differs each time.
    fn compare(&self, output: &str) -> Result<()> {
        let real: Vec<String> = output.lines().map(mask).collect();
        let mut rest = real.iter();
        for line in self.lines.iter().filter(|line| !line.is_empty() && **line != "...") {
            let wanted = mask(line);
            let is_there = rest.any(|line| *line == wanted);
            ensure!(
                is_there,
                "`mhebpf {}` does not show `{wanted}`, at its place:\n{}",
                self.words.join(" "),
                real.join("\n")
            );
        }
        Ok(())
    }
}

/// A line without what is another each time: times, hardware addresses, numbers that stand alone, the port and the process of a
/// client.
fn mask(line: &str) -> String {
    let line = line.split_once(") by ").map_or(line, |(line, _)| line).trim_end_matches(')');
    let words: Vec<String> = line.split_whitespace().map(mask_word).collect();
    words.join(" ")
}

fn mask_word(word: &str) -> String {
    let bare = word.trim_matches(|c: char| "(),:;".contains(c));
    let is_number = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    let is_time = bare.ends_with('Z') && bare.contains('T') && bare.len() > 20;
    let is_mac = bare.len() == 17 && bare.split(':').count() == 6;
    let is_span = ["s", "ms", "us", "m"].iter().any(|unit| bare.strip_suffix(unit).is_some_and(is_number));
    if is_time || is_mac || is_span || is_number(bare) {
        return word.replace(bare, "~");
    }
    match word.parse::<SocketAddr>() {
        Ok(client) if client.port() != ARTICLE_PORT => format!("{}:~", client.ip()),
        _ => word.to_owned(),
    }
}

/// What the session's client does: a connection from the address of an interface that the route does not lead through.
fn connect(lab: &Lab) -> Result<std::net::TcpStream> {
    tcp::connect(&lab.host, IpAddr::V4(lab.address(1)), SocketAddr::from((PEER, ARTICLE_PORT)))
}

fn command(lab: &Lab, words: &[&str]) -> Result<Output> {
    Ok(Daemon::command(&lab.host)?.args(words).output()?)
}

#[test]
fn the_session_in_the_readme_is_what_happens() -> Result<()> {
    if !features::require(Feature::Tcx)? {
        return Ok(());
    }
    let session = session();
    let names: Vec<&str> = session.iter().map(|shown| shown.words[0]).collect();
    assert_eq!(names, ["audit", "run", "run", "monitor", "status", "explain"]);
    let [audit, observe, run, monitor, status, explain] = session.as_slice() else { unreachable!() };
    let lab = Lab::article()?;
    let _server = tcp::EchoServer::start(&lab.switch, PEER, ARTICLE_PORT)?;

    audit.compare(&String::from_utf8(command(&lab, &audit.words)?.stdout)?)?;

    let mut daemon = lab.run_mhebpf(&observe.words)?;
    tcp::close(connect(&lab)?)?;
    lab.fence()?;
    // The reader may wait for the end of the time or not.
    daemon.signal(libc::SIGINT)?;
    let Ended { status: ended, stderr, .. } = daemon.wait_end(PATIENCE)?;
    ensure!(ended.success(), "{ended}: {stderr}");
    observe.compare(&stderr)?;

    let daemon = lab.run_mhebpf(&run.words)?;
    run.compare(&daemon.stderr())?;

    let watching = Monitor::start(&lab.host, &monitor.words[1..])?;
    let mut delays = Vec::new();
    for _ in 0..5 {
        let sent = Instant::now();
        let client = connect(&lab)?;
        let (seen, _) = watching.wait_for(sent, |line| monitor.compare(line).is_ok())?;
        delays.push(seen - sent);
        tcp::close(client)?;
    }
    delays.sort();
    assert!(delays[delays.len() / 2] < SOON, "shown after {delays:?}");
    // Not at once for each connection, but while one lasts.
    let mut client = connect(&lab)?;
    wait_until("the client's process to be named", PATIENCE, || {
        tcp::echo(&mut client, b"who am I?")?;
        Ok(watching.stdout().lines().any(|line| line.contains(") by ")).then_some(()))
    })?;

    status.compare(&String::from_utf8(command(&lab, &status.words)?.stdout)?)?;
    explain.compare(&String::from_utf8(command(&lab, &explain.words)?.stdout)?)?;
    daemon.stop()?;
    lab.finish()
}

#[test]
fn output_that_is_not_what_is_shown_is_noticed() {
    let shown = Shown {
        words: vec!["status"],
        lines: vec!["mhebpf 0.1.0, process 7, running for 2s", "...", "  egress x 6"],
    };
    let ran = "mhebpf 0.1.0, process 4711, running for 3m\nother\n  egress  x  1";
    assert!(shown.compare(ran).is_ok());
    for wrong in [
        &ran.replace("egress", "ingress"),
        &ran.replace("0.1.0", "0.2.0"),
        "",
        "  egress x 1\nmhebpf 0.1.0, process 1, running for 1s",
    ] {
        assert!(shown.compare(wrong).is_err(), "{wrong}");
    }
    assert_eq!(
        mask("by 02:00:00:00:00:a0 (12): 192.168.0.101:33476 > 192.168.0.1:9000 (x) by curl (3)"),
        "by ~ (~): 192.168.0.101:~ > 192.168.0.1:9000 (x"
    );
}

/// The lab that a reader gets: `cargo xtask lab` becomes this program.
#[test]
fn a_command_runs_on_the_labs_host_with_mhebpf_on_its_path_and_nothing_is_left() -> Result<()> {
    let lab = binary::mhebpf()?.with_file_name("lab");
    if !lab.is_file() {
        mhebpf_tests::skip("the lab for readers is not built here");
        return Ok(());
    }
    let script = "ip -brief address show dev eth1_int; mhebpf audit | tail -1; mhebpf run --all 2>&1 & \
                  sleep 60 & echo $! $$; exit 7";
    let output = std::process::Command::new(lab).args(["sh", "-c", script]).output()?;
    let text = String::from_utf8(output.stdout)?;
    assert_eq!(output.status.code(), Some(7), "{text}");
    assert!(text.contains("192.168.0.101/21") && text.contains("  mhebpf run --all"), "{text}");
    let sleeping =
        text.lines().find_map(|line| line.split_once(' ')?.0.parse::<u32>().ok()).context("a process")?;
    let is_left =
        std::fs::read_to_string(format!("/proc/{sleeping}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    assert!(!is_left, "what runs in the lab ends with it");
    Ok(())
}
