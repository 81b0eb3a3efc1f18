//! `mhebpf status`: what the daemon says of itself, and to whom.

use std::{
    env, fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    process,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use mhebpf_tests::{Daemon, Lab, NetNs, PATIENCE, wait_until};
use serde_json::Value;

/// What `-o json` promises.
const SCHEMA: &str = include_str!("../../mhebpf/schema/status.json");

/// Any user but root.
const NOBODY: libc::uid_t = 65534;

/// Standard output of `mhebpf status`.
fn status(ns: &NetNs, arguments: &[&str]) -> Result<String> {
    let output = Daemon::command(ns)?.arg("status").args(arguments).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {stderr}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// Holds a document against the schema.
fn check(document: &Value) -> Result<()> {
    let validator = jsonschema::validator_for(&serde_json::from_str(SCHEMA)?)?;
    let errors: Vec<String> = validator.iter_errors(document).map(|error| error.to_string()).collect();
    ensure!(errors.is_empty(), "{errors:?}: {document}");
    Ok(())
}

fn json(ns: &NetNs) -> Result<Value> {
    let document = serde_json::from_str(&status(ns, &["-o", "json"])?)?;
    check(&document)?;
    Ok(document)
}

/// What `mhebpf status` says where it fails.
fn failure(ns: &NetNs) -> Result<String> {
    let output = Daemon::command(ns)?.arg("status").output()?;
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    Ok(String::from_utf8(output.stderr)?)
}

fn interface<'a>(status: &'a Value, name: &str) -> Result<&'a Value> {
    let interfaces = status["interfaces"].as_array().context("interfaces")?;
    interfaces.iter().find(|interface| interface["name"] == name).with_context(|| format!("{name}: {status}"))
}

/// Each address with the rule and the interface that it is about.
fn owned(of: &Value) -> Vec<String> {
    let owned = of.as_array().map(Vec::as_slice).unwrap_or_default();
    let words = |owned: &Value| {
        ["address", "rule", "through"].map(|key| owned[key].as_str().unwrap_or("?").to_owned())
    };
    owned.iter().map(|owned| words(owned).join(" ")).collect()
}

/// Runs `work` inside a namespace as a user without rights.
fn as_nobody<T: Send>(ns: &NetNs, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    ns.run(|| {
        // The C library would change the user of all threads; the system call changes that of this one.
        // SAFETY: no pointers are passed, and the thread ends with `work`.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, -1) };
        ensure!(result == 0, io::Error::last_os_error());
        work()
    })
}

fn address() -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name("mhebpf")
}

fn connect() -> Result<UnixStream> {
    let stream = UnixStream::connect_addr(&address()?)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

#[test]
fn without_a_daemon_it_fails_and_says_how_to_start_one() -> Result<()> {
    let stderr = failure(&NetNs::new("empty")?)?;
    assert!(stderr.contains("no mhebpf is running in this network namespace"), "{stderr}");
    assert!(stderr.contains("mhebpf run --all"), "{stderr}");
    Ok(())
}

#[test]
fn it_says_what_each_interface_owns_and_why() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    lab.host.ip("link add link eth0_int name top0 type macvlan mode bridge")?;
    lab.host.ip("link set top0 up")?;
    lab.host.ip("address add 192.168.0.110/21 dev top0")?;
    lab.host.ip("address add 203.0.113.9/32 dev lo")?;
    lab.host.ip("route add local 10.5.0.0/16 dev eth1_int")?;
    let config = env::temp_dir().join(format!("mhebpf-status-{}.toml", process::id()));
    fs::write(
        &config,
        "interfaces = [\"eth*_int\", \"lo\"]\n[[interface]]\nname = \"eth1_int\"\nreceive = \"off\"\nallow = [\"10.7.0.0/16\"]\n",
    )?;
    let daemon = lab.run_mhebpf(&["run", "--config", config.to_str().context("a path")?, "--no-announce"])?;
    fs::remove_file(&config)?;
    lab.emit(0, lab.address(1))?;
    lab.fence()?;

    let status = json(&lab.host)?;
    assert_eq!((&status["schema"], &status["pid"]), (&Value::from(1), &Value::from(daemon.pid())));
    assert_eq!(status["observing"], false);
    let eth0 = interface(&status, "eth0_int")?;
    assert_eq!(owned(&eth0["owned"]), ["192.168.0.100 configured eth0_int"]);
    let eth1 = interface(&status, "eth1_int")?;
    assert_eq!(
        owned(&eth1["owned"]),
        [
            "192.168.0.101 configured eth1_int",
            "10.5.0.0/16 local-route eth1_int",
            "10.7.0.0/16 allowed eth1_int"
        ]
    );
    assert_eq!((&eth0["policy"]["receive"], &eth1["policy"]["receive"]), (&"drop".into(), &"off".into()));
    assert_eq!(owned(&status["host_wide"]), ["203.0.113.9 host-wide lo"]);
    assert_eq!(status["left_out"][0]["name"], "lo");
    let counted: Vec<_> =
        eth0["counters"].as_array().into_iter().flatten().map(|c| (&c["reason"], &c["packets"])).collect();
    assert_eq!(counted, [(&Value::from("redirected"), &Value::from(1))]);

    let text = self::status(&lab.host, &[])?;
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    for part in ["192.168.0.100", "redirected", "left out", "mode redirect"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains('\u{1b}'), "{text}");
    drop(daemon);
    lab.finish()
}

#[test]
fn it_follows_the_host_and_says_what_is_only_observed() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.mhebpf(&["--mode", "observe"])?;
    lab.add_address(0, [192, 168, 0, 120])?;
    lab.emit(0, lab.address(1))?;
    lab.fence()?;
    let status = json(&lab.host)?;
    let owned = owned(&interface(&status, "eth0_int")?["owned"]);
    assert!(owned.contains(&"192.168.0.120 configured eth0_int".to_owned()), "{owned:?}");
    assert_eq!(status["observing"], true);
    let text = self::status(&lab.host, &[])?;
    assert!(text.contains("what is counted would be done") && text.contains("(would be)"), "{text}");
    daemon.stop()?;
    lab.finish()
}

#[test]
fn each_namespace_has_a_daemon_of_its_own() -> Result<()> {
    let labs = [Lab::builder().links(2).build()?, Lab::builder().links(2).build()?];
    let daemons = [labs[0].mhebpf(&[])?, labs[1].mhebpf(&["--mode", "drop"])?];
    for (lab, daemon) in labs.iter().zip(&daemons) {
        assert_eq!(json(&lab.host)?["pid"], daemon.pid());
    }
    for (lab, daemon) in labs.into_iter().zip(daemons) {
        daemon.stop()?;
        let gone = failure(&lab.host)?;
        assert!(gone.contains("no mhebpf is running"), "{gone}");
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn users_without_rights_are_told_nothing() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.mhebpf(&[])?;
    for request in ["{\"request\":\"status\"}\n", "{\"request\":\"monitor\"}\n"] {
        let answer = as_nobody(&lab.host, || {
            let mut stream = connect()?;
            // It may be closed already.
            let _ = stream.write_all(request.as_bytes());
            let mut lines = BufReader::new(stream).lines();
            let first = lines.next().context("an answer")??;
            assert!(lines.next().is_none_or(|end| end.is_err()), "nothing else");
            Ok(first)
        })?;
        let answer: Value = serde_json::from_str(&answer)?;
        assert_eq!(answer["answer"], "error", "{answer}");
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(message.contains("only root"), "{answer}");
    }
    daemon.stop()?;
    lab.finish()
}

#[test]
fn an_impostor_is_not_believed() -> Result<()> {
    let ns = NetNs::new("impostor")?;
    let _listener = as_nobody(&ns, || Ok(UnixListener::bind_addr(&address()?)?))?;
    let stderr = failure(&ns)?;
    assert!(stderr.contains("of user 65534") && stderr.contains("not believed"), "{stderr}");
    Ok(())
}

#[test]
fn nonsense_is_answered_and_too_many_clients_are_refused() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.mhebpf(&[])?;
    let first_line = |stream: UnixStream| {
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).map(|_| line)
    };
    lab.host.run(|| {
        for nonsense in [b"\xff\0\n".to_vec(), b"{}\n".to_vec(), [b'x'; 5000].to_vec()] {
            let mut stream = connect()?;
            // What is too long is not read to its end.
            let _ = stream.write_all(&nonsense);
            let answer = first_line(stream)?;
            assert!(answer.contains("does not understand"), "{answer}");
        }
        // These say nothing at all, until the daemon has had enough of them.
        let idle = (0..32).map(|_| connect()).collect::<Result<Vec<_>>>()?;
        let answer = first_line(connect()?)?;
        assert!(answer.contains("too many"), "{answer}");
        for mut stream in idle {
            assert_eq!(stream.read(&mut [0; 16])?, 0);
        }
        Ok(())
    })?;
    assert_eq!(json(&lab.host)?["pid"], daemon.pid());
    daemon.stop()?;
    lab.finish()
}

#[test]
fn watching_shows_rates() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.mhebpf(&[])?;
    lab.emit(0, lab.address(1))?;
    let mut command = Daemon::command(&lab.host)?;
    command.args(["status", "--watch", "1", "-o", "json"]).stdout(process::Stdio::piped());
    let mut child = command.spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
    let rated = wait_until("a rate", PATIENCE, || {
        lab.emit(0, lab.address(1))?;
        let status: Value = serde_json::from_str(&lines.next().context("a line")??)?;
        check(&status)?;
        let counter = interface(&status, "eth0_int")?["counters"][0].clone();
        Ok(counter["rate"].as_f64().filter(|rate| *rate > 0.0))
    });
    // SAFETY: kill takes no pointers; a child that has not been waited for keeps its id.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGINT) };
    let ended = child.wait()?;
    rated?;
    assert!(ended.success(), "{ended}");
    daemon.stop()?;
    lab.finish()
}

#[test]
fn an_answer_takes_no_longer_with_many_addresses_than_a_synchronisation() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let addresses: String = (0..2000)
        .map(|n| format!("address add 10.60.{}.{}/32 dev eth0_int\n", n / 250, 1 + n % 250))
        .collect();
    lab.host.ip_batch(&addresses)?;
    let daemon = lab.mhebpf(&["--no-announce"])?;
    let started = Instant::now();
    let status = json(&lab.host)?;
    let took = started.elapsed();
    assert_eq!(owned(&interface(&status, "eth0_int")?["owned"]).len(), 2001);
    assert!(took < PATIENCE, "{took:?}");
    daemon.stop()?;
    lab.finish()
}
