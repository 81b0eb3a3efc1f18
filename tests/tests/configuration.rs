//! The configuration file: policies of single interfaces, and changes while packets flow.

use std::{
    collections::BTreeSet,
    env,
    ffi::CString,
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use anyhow::{Result, ensure};
use mhebpf_tests::{
    Daemon, Family, Lab, Mac, PATIENCE,
    lab::{INTERFACES, PROBE_PORT},
    traffic::udp,
    wait_until,
};

/// A file that vanishes with the test.
struct File(PathBuf);

impl File {
    fn new(contents: &str) -> Result<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = Self(env::temp_dir().join(format!("mhebpf-{}-{number}.toml", process::id())));
        file.write(contents)?;
        Ok(file)
    }

    fn write(&self, contents: &str) -> Result<()> {
        Ok(fs::write(&self.0, contents)?)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn start(lab: &Lab, file: &File) -> Result<Daemon> {
    lab.run_mhebpf(&["run", "--config", file.path(), "--no-announce"])
}

/// Where a datagram comes out that is sent through a port with another one's address.
fn ways_out(lab: &Lab, through: usize, source: impl Into<IpAddr>) -> Result<BTreeSet<usize>> {
    let (recording, source) = (lab.record(), source.into());
    lab.emit(through, source)?;
    recording.ports_of(source)
}

/// Whether a port answers when it is asked for another one's address.
fn answers(lab: &Lab, port: usize, address: Ipv4Addr) -> Result<bool> {
    let recording = lab.record();
    lab.ask(port, address, Mac::BROADCAST)?;
    Ok(!recording.arp_replies_for(address)?.is_empty())
}

#[test]
fn each_interface_has_its_own_policy() -> Result<()> {
    let lab = Lab::article()?;
    // What port 1 and 3 let through is as the file says.
    let (of_0, of_2) = (lab.address(0), lab.address(2));
    let file = File::new(
        "interfaces = [\"eth*_int\"]\nmode = \"drop\"\n\
         [[interface]]\nname = \"eth[13]_int\"\nsend = \"off\"\n\
         [[interface]]\nname = \"eth3_int\"\nannounce = \"off\"\n\
         [[interface]]\nname = \"eth2_int\"\nsend = \"redirect\"",
    )?;
    let daemon = start(&lab, &file)?;
    assert_eq!(ways_out(&lab, 0, of_2)?, BTreeSet::new(), "drop");
    assert_eq!(ways_out(&lab, 2, of_0)?, BTreeSet::from([0]), "redirect");
    for port in [1, 3] {
        lab.claim(port, of_0, std::time::Duration::ZERO);
        assert_eq!(ways_out(&lab, port, of_0)?, BTreeSet::from([port]), "off");
    }
    assert!(!answers(&lab, 1, of_0)?, "ARP is a switch of its own");
    assert!(answers(&lab, 3, of_0)?);
    daemon.stop()?;
    lab.finish()
}

#[test]
fn an_interface_is_an_owner_of_what_it_is_allowed() -> Result<()> {
    for family in Family::BOTH {
        let lab = Lab::article_in(family)?;
        let of_0 = lab.address_in(family, 0);
        let (foreign, prefix): (IpAddr, _) = family.choose(
            ([203, 0, 113, 9].into(), "203.0.113.0/24"),
            ([0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 9].into(), "2001:db8:f::/48"),
        );
        let file = File::new(&format!(
            "interfaces = [\"eth*_int\"]\nunknown = \"drop\"\n\
             [[interface]]\nname = \"eth1_int\"\nallow = [\"{of_0}\", \"{prefix}\"]"
        ))?;
        let daemon = start(&lab, &file)?;
        lab.claim(1, of_0, std::time::Duration::ZERO);
        assert_eq!(ways_out(&lab, 1, of_0)?, BTreeSet::from([1]));
        if family == Family::V4 {
            assert!(answers(&lab, 1, lab.address(0))?);
        }
        assert_eq!(
            ways_out(&lab, 2, of_0)?,
            BTreeSet::from([0]),
            "the first owner is where it is configured"
        );
        assert_eq!(ways_out(&lab, 1, foreign)?, BTreeSet::from([1]));
        assert_eq!(ways_out(&lab, 2, foreign)?, BTreeSet::new(), "to others it is foreign");
        let socket = udp::bind(&lab.host, of_0, PROBE_PORT)?;
        for port in [2, 1] {
            lab.deliver(port, (of_0, PROBE_PORT), &[port as u8])?;
        }
        lab.fence()?;
        assert_eq!(udp::take_delivered(&socket)?.map(|(payload, _)| payload), Some(vec![1]));
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn a_changed_file_is_applied_on_sighup() -> Result<()> {
    let lab = Lab::article()?;
    let of_1 = lab.address(1);
    let file = File::new("interfaces = [\"eth*_int\"]\nmode = \"drop\"")?;
    let daemon = start(&lab, &file)?;
    assert_eq!(ways_out(&lab, 0, of_1)?, BTreeSet::new());
    file.write("interfaces = [\"eth*_int\"]\nmode = \"redirect\"")?;
    daemon.reload()?;
    wait_until("the new mode", PATIENCE, || {
        Ok((ways_out(&lab, 0, of_1)? == BTreeSet::from([1])).then_some(()))
    })?;
    // Interfaces come and go with it as well.
    file.write("interfaces = [\"eth[123]_int\"]\nmode = \"redirect\"")?;
    lab.claim(0, of_1, std::time::Duration::ZERO);
    daemon.reload()?;
    wait_until("the first interface to be let go", PATIENCE, || {
        Ok((ways_out(&lab, 0, of_1)? == BTreeSet::from([0])).then_some(()))
    })?;
    assert_eq!(ways_out(&lab, 2, of_1)?, BTreeSet::from([1]));
    daemon.stop()?;
    lab.finish()
}

#[test]
fn a_broken_file_leaves_the_running_policy_in_force() -> Result<()> {
    let lab = Lab::article()?;
    let of_1 = lab.address(1);
    let file = File::new("interfaces = [\"eth*_int\"]\nmode = \"drop\"")?;
    let daemon = start(&lab, &file)?;
    for (contents, said) in [
        ("interfaces = [\"eth*_int\"]\nmoed = \"redirect\"", &["line 2", "moed"][..]),
        ("interfaces = [\"eth*_int\"]\n\nmode = \"redierct\"", &["line 3", "redierct"]),
        ("mode = \"redirect\"", &["names no interface"]),
    ] {
        file.write(contents)?;
        daemon.reload()?;
        for part in said {
            daemon.wait_for_line(part, PATIENCE)?;
        }
        assert_eq!(ways_out(&lab, 0, of_1)?, BTreeSet::new(), "{contents}");
    }
    fs::remove_file(&file.0)?;
    daemon.reload()?;
    daemon.wait_for_line("reading the configuration file", PATIENCE)?;
    assert_eq!(ways_out(&lab, 0, of_1)?, BTreeSet::new());
    // A pipe that nobody writes to, and what is much too large.
    let path = CString::new(file.path())?;
    // SAFETY: a string that ends with NUL.
    ensure!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) } == 0, std::io::Error::last_os_error());
    daemon.reload()?;
    daemon.wait_for_line("it is no regular file", PATIENCE)?;
    fs::remove_file(&file.0)?;
    file.write(&"# nothing\n".repeat(200_000))?;
    daemon.reload()?;
    daemon.wait_for_line("it is larger than 1 MiB", PATIENCE)?;
    assert_eq!(ways_out(&lab, 0, of_1)?, BTreeSet::new());
    daemon.stop()?;
    lab.finish()
}

/// The judge of the lab looks at every frame that leaves while the file is read again and again.
#[test]
fn nothing_leaks_while_the_file_is_read_again() -> Result<()> {
    let lab = Lab::article()?;
    let settings = [
        "interfaces = [\"eth*_int\"]\nmode = \"redirect\"",
        "interfaces = [\"eth*_int\"]\nmode = \"drop\"\n[[interface]]\nname = \"*\"\nallow = [\"10.9.0.0/16\"]",
        "interfaces = [\"*_int\"]\nunknown = \"drop\"\n[[interface]]\nname = \"eth0_int\"\nsend = \"drop\"",
    ];
    let file = File::new(settings[0])?;
    let daemon = start(&lab, &file)?;
    let (done, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<()> {
            while !done.load(Ordering::Relaxed) {
                for port in lab.ports() {
                    lab.emit(port, lab.address((port + 1) % 4))?;
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(())
        });
        let reload = || -> Result<()> {
            // The daemon may be quicker than the sender.
            for round in (1..).take_while(|round| *round <= 30 || sent.load(Ordering::Relaxed) <= 100) {
                ensure!(!sender.is_finished(), "sending has failed");
                file.write(settings[round % settings.len()])?;
                daemon.reload()?;
                let said = || daemon.stderr().matches("reloaded ").count();
                wait_until("the file to be read", PATIENCE, || Ok((said() >= round).then_some(())))?;
            }
            Ok(())
        };
        let reloaded = reload();
        done.store(true, Ordering::Relaxed);
        sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        reloaded
    })?;
    daemon.stop()?;
    lab.finish()
}

#[test]
fn the_file_says_how_the_log_is_written_unless_the_command_line_does() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let file = File::new("interfaces = [\"eth*_int\"]\nlog-format = \"json\"\nverbose = 1")?;
    let daemon = start(&lab, &file)?;
    daemon.wait_for_line("in step with", PATIENCE)?;
    let said = daemon.stderr();
    let levels: BTreeSet<String> = said
        .lines()
        .map(|line| Ok(serde_json::from_str::<serde_json::Value>(line)?["level"].to_string()))
        .collect::<Result<_>>()?;
    assert!(levels.contains("\"DEBUG\"") && levels.contains("\"INFO\""), "{said}");
    file.write("interfaces = [\"eth*_int\"]\nlog-format = \"human\"\nverbose = 1")?;
    daemon.reload()?;
    daemon.wait_for_line("`log-format` stays as it is", PATIENCE)?;
    assert!(!daemon.stderr().contains("`verbose` stays"), "{}", daemon.stderr());
    daemon.stop()?;
    file.write("interfaces = [\"eth*_int\"]\nlog-format = \"json\"")?;
    let arguments = ["--log-format", "human", "run", "--config", file.path(), "--no-announce"];
    let daemon = lab.run_mhebpf(&arguments)?;
    assert!(!daemon.stderr().contains('{'), "{}", daemon.stderr());
    daemon.stop()?;
    lab.finish()
}

#[test]
fn a_mistake_in_the_file_is_reported_whatever_it_says_of_the_log() -> Result<()> {
    let lab = Lab::builder().links(1).build()?;
    for (contents, said) in [
        ("all = true\nlog-format = \"yaml\"", &["line 2", "yaml"][..]),
        ("log-format = \"json\"\nmode = \"dorp\"", &["line 2", "dorp"]),
    ] {
        let file = File::new(contents)?;
        let ended = Daemon::spawn(&lab.host, &["run", "--config", file.path()])?.wait_end(PATIENCE)?;
        assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
        for part in said.iter().chain(&[file.path()]) {
            assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
        }
        assert_eq!(
            ended.stderr.lines().filter(|line| line.starts_with("error")).count(),
            1,
            "{}",
            ended.stderr
        );
    }
    lab.finish()
}

#[test]
fn a_file_that_cannot_be_used_is_a_usage_error() -> Result<()> {
    let lab = Lab::builder().links(1).build()?;
    let file = File::new("all = true\nmode = \"dorp\"")?;
    let missing = Path::new(file.path()).with_extension("missing");
    for (path, said) in [
        (file.path(), &["line 2", "dorp", file.path()][..]),
        (missing.to_str().unwrap_or_default(), &["reading the configuration file"]),
    ] {
        let mut daemon = Daemon::spawn(&lab.host, &["run", "--config", path])?;
        let ended = daemon.wait_end(PATIENCE)?;
        assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
        for part in said {
            assert!(ended.stderr.contains(part), "{}", ended.stderr);
        }
    }
    lab.finish()
}

/// For those who want the file of the host not to be read.
#[test]
fn the_null_device_is_an_empty_configuration() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let words =
        ["run", "--interface", INTERFACES, "--no-announce", "--config", "/dev/null", "--mode", "observe"];
    let daemon = Daemon::spawn(&lab.host, &words)?;
    daemon.wait_ready()?;
    let said = daemon.stop()?.stderr;
    // Where nothing is changed, nothing is said to be.
    ensure!(said.contains("observing on eth0_int") && said.contains("receive observe"), "{said}");
    ensure!(!said.contains("enforcing on") && !said.contains("receive drop"), "{said}");
    lab.finish()
}
