//! The server of `mhebpf run --metrics`: HTTP, and clients that are slow or many.

mod openmetrics;
mod scrape;

use std::{
    env, fs,
    io::{Read as _, Write as _},
    process, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use mhebpf_tests::{Daemon, Lab, PATIENCE, scaled, wait_until};
use scrape::{ADDRESS, ask, connect, scrape, start, violate};

#[test]
fn paths_and_methods_are_those_of_http() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = start(&lab, &[])?;
    lab.host.run(|| {
        let metrics = ask(connect()?, "GET", "/metrics?collect=all")?;
        assert_eq!(metrics.status, 200);
        let content_type = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert!(metrics.head.contains(content_type), "{}", metrics.head);
        assert!(metrics.body.ends_with("# EOF\n"), "{}", metrics.body);
        let head = ask(connect()?, "HEAD", "/metrics")?;
        assert_eq!((head.status, head.body.as_str()), (200, ""));
        let root = ask(connect()?, "GET", "/")?;
        assert!(root.status == 200 && root.body.contains("/metrics"), "{}", root.body);
        for path in ["/metric", "/metrics/", "/status", "/%2e%2e/etc/passwd"] {
            assert_eq!(ask(connect()?, "GET", path)?.status, 404, "{path}");
        }
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
            let refused = ask(connect()?, method, "/metrics")?;
            assert_eq!(refused.status, 405, "{method}");
            assert!(refused.head.contains("allow: get, head"), "{}", refused.head);
        }
        let mut nonsense = connect()?;
        nonsense.write_all(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")?;
        let mut said = Vec::new();
        // It may be reset once it was refused.
        let _ = nonsense.read_to_end(&mut said);
        assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&said));
        Ok(())
    })?;
    scrape(&lab.host)?;
    daemon.stop()?;
    lab.finish()
}

#[test]
fn clients_that_are_slow_disturb_neither_scrapes_nor_the_daemon() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = start(&lab, &[])?;
    // Some say nothing, some begin and go no further; none of them reads.
    let slow = lab.host.run(|| {
        let clients = (0..8).map(|n| {
            let mut stream = connect()?;
            stream.write_all([&b""[..], b"GET /metr", b"GET /metrics HTTP/1.1\r\nHost:"][n % 3])?;
            Ok(stream)
        });
        clients.collect::<Result<Vec<_>>>()
    })?;
    let before = scrape(&lab.host)?.value("mhebpf_local_addresses")?;
    lab.add_address(0, [192, 168, 0, 120])?;
    wait_until("the new address, while they wait", PATIENCE, || {
        Ok((scrape(&lab.host)?.value("mhebpf_local_addresses")? == before + 1.0).then_some(()))
    })?;
    violate(&lab)?;
    assert_eq!(scrape(&lab.host)?.sum("mhebpf_packets_total", &[("reason", "redirected")]), 1.0);
    for mut stream in slow {
        let mut said = Vec::new();
        stream.read_to_end(&mut said).context("the daemon lets go of a slow client")?;
        assert!(!String::from_utf8_lossy(&said).contains("200 OK"));
    }
    daemon.stop()?;
    lab.finish()
}

/// Some hundred connections that say nothing take every place.
#[test]
fn a_scrape_does_not_wait_for_those_who_say_nothing() -> Result<()> {
    const PROMPT: Duration = scaled(Duration::from_millis(500));
    let lab = Lab::builder().links(2).build()?;
    let daemon = start(&lab, &[])?;
    let idle = lab.host.run(|| (0..600).map(|_| connect()).collect::<Result<Vec<_>>>())?;
    for _ in 0..3 {
        let begin = Instant::now();
        scrape(&lab.host)?;
        assert!(begin.elapsed() < PROMPT, "{:?}", begin.elapsed());
    }
    drop(idle);
    daemon.stop()?;
    lab.finish()
}

#[test]
fn many_scrape_at_once() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = start(&lab, &[])?;
    thread::scope(|scope| {
        let scrapers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut last = 0.0;
                    for _ in 0..25 {
                        let now = scrape(&lab.host)?.sum("mhebpf_packets_total", &[("reason", "redirected")]);
                        ensure!(now >= last, "{now} after {last}");
                        last = now;
                    }
                    Ok(())
                })
            })
            .collect();
        for _ in 0..20 {
            lab.emit(0, lab.address(1))?;
        }
        for scraper in scrapers {
            scraper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    lab.fence()?;
    assert_eq!(scrape(&lab.host)?.sum("mhebpf_packets_total", &[("reason", "redirected")]), 20.0);
    daemon.stop()?;
    lab.finish()
}

#[test]
fn an_address_that_cannot_be_had_is_an_error_that_says_what_to_do() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let _taken = lab.host.run(|| Ok(std::net::TcpListener::bind(ADDRESS)?))?;
    let run = |address: &str| -> Result<(Option<i32>, String)> {
        let arguments = ["run", "--interface", "eth*_int", "--metrics", address];
        let ended = Daemon::spawn(&lab.host, &arguments)?.wait_end(PATIENCE)?;
        Ok((ended.status.code(), ended.stderr))
    };
    for (address, why) in [(ADDRESS, "in use"), ("192.0.2.1:9469", "assign")] {
        let (code, said) = run(address)?;
        assert_eq!(code, Some(1), "{said}");
        for part in [address, why, "--metrics"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(!said.contains("mhebpf ready"), "nothing was attached: {said}");
    }
    for wrong in ["9469", "localhost:9469", "127.0.0.1", "127.0.0.1:66000"] {
        let (code, said) = run(wrong)?;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("127.0.0.1:9469"), "an example: {said}");
    }
    lab.finish()
}

#[test]
fn the_file_names_the_address_too_and_it_stays_until_the_next_start() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let path = env::temp_dir().join(format!("mhebpf-metrics-{}.toml", process::id()));
    let write =
        |address: &str| fs::write(&path, format!("interfaces = [\"eth*_int\"]\nmetrics = \"{address}\"\n"));
    write("0.0.0.0:9469")?;
    let daemon = lab.run_mhebpf(&["run", "--config", path.to_str().context("a path")?, "--no-announce"])?;
    daemon.wait_for_line("nothing is encrypted", PATIENCE)?;
    scrape(&lab.host)?;
    write("127.0.0.1:9999")?;
    daemon.reload()?;
    daemon.wait_for_line("`metrics` stays as it is until mhebpf is started again", PATIENCE)?;
    fs::remove_file(&path)?;
    scrape(&lab.host)?;
    daemon.stop()?;
    lab.finish()
}
