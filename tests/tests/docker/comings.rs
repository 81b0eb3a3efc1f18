//! Containers that come and go, while mhebpf enforces and others talk.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use mhebpf_tests::{
    Lab, PEER,
    docker::{self, Engine, IMAGE},
    features::{self, Feature},
    tcx,
    traffic::{ARTICLE_PORT, tcp},
};

const CONTAINERS: usize = 20;
/// So many live at the same time.
const ALIVE: usize = 5;
/// Between two messages of a session.
const PACE: Duration = Duration::from_millis(2);
const PUBLISHED_PORT: u16 = 8080;

/// The interfaces of the host on which there is a program.
fn enforced(lab: &Lab) -> Result<BTreeSet<String>> {
    let links = lab.host.ip("-oneline link show")?;
    let names = links.lines().filter_map(|line| line.split([':', '@']).nth(1));
    let mut enforced = BTreeSet::new();
    for name in names.map(str::trim) {
        // A container's end vanishes whenever it likes.
        if tcx::programs(&lab.host, name, tcx::Hook::Egress).is_ok_and(|programs| !programs.is_empty()) {
            enforced.insert(name.to_owned());
        }
    }
    Ok(enforced)
}

/// Sends something through a session over and over, until it is told that all is over; returns how often.
fn keep_talking(mut session: TcpStream, over: &AtomicBool) -> Result<usize> {
    let mut count = 0;
    while !over.load(Ordering::Acquire) {
        tcp::echo(&mut session, &[7; 3000])?;
        count += 1;
        // Else the capture has nothing but this to do.
        thread::sleep(PACE);
    }
    tcp::close(session)?;
    Ok(count)
}

/// Has containers come and go, and looks at what is enforced each time.
fn churn(lab: &Lab, engine: &Engine, uplinks: &BTreeSet<String>) -> Result<()> {
    let name = |number: usize| format!("passing{number}");
    for number in 0..CONTAINERS + ALIVE {
        if number < CONTAINERS {
            let publish = format!("--publish={}:80", 10_000 + number);
            let run = ["run", "--detach", "--name", &name(number), &publish, IMAGE, "sleep", "infinity"];
            engine.docker(&run)?;
        }
        assert_eq!(enforced(lab)?, *uplinks, "{}", lab.host.ip("-brief link show")?);
        if let Some(oldest) = number.checked_sub(ALIVE) {
            engine.docker(&["rm", "--force", &name(oldest)])?;
        }
    }
    assert_eq!(enforced(lab)?, *uplinks);
    Ok(())
}

#[test]
fn sessions_go_on_while_containers_come_and_go() -> Result<()> {
    if !docker::is_available()? || !features::require(Feature::Tcx)? {
        return Ok(());
    }
    let lab = Lab::builder().links(2).build()?;
    let engine = Engine::start(&lab.host, &[])?;
    let published = SocketAddrV4::new(lab.address(1), PUBLISHED_PORT);
    let publish = format!("--publish={published}:{ARTICLE_PORT}");
    let container = engine.run_idle("server", &[&publish])?;
    let _inside = tcp::EchoServer::start(&container, Ipv4Addr::UNSPECIFIED, ARTICLE_PORT)?;
    let outside = tcp::EchoServer::start(&lab.switch, PEER, ARTICLE_PORT)?;

    let daemon = lab.run_mhebpf(&["run", "--all"])?;
    let uplinks = BTreeSet::from(["eth0_int", "eth1_int"].map(str::to_owned));
    let recording = lab.record();
    let of_the_host = tcp::connect(&lab.host, lab.address(1), outside.address())?;
    let of_the_container = tcp::connect(&lab.switch, PEER, published)?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let sessions = [("the host", of_the_host), ("the container", of_the_container)]
            .map(|(whose, session)| (whose, scope.spawn(|| keep_talking(session, &over))));
        let result = churn(&lab, &engine, &uplinks);
        over.store(true, Ordering::Release);
        for (whose, session) in sessions {
            let count = session.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let count = count.with_context(|| format!("the session of {whose}"))?;
            assert!(count > CONTAINERS, "the session of {whose} stood still: {count} messages");
        }
        result
    })?;
    assert_eq!(recording.ports_of(lab.address(1))?, BTreeSet::from([1]));
    let said = daemon.stop()?.stderr;
    assert!(!said.contains(" ERROR "), "{said}");
    lab.finish()
}
