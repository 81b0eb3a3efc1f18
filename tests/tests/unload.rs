//! `mhebpf unload` where nothing is pinned, and where somebody holds the name of the daemon who is none.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
    thread,
};

use anyhow::{Result, ensure};
use mhebpf_tests::{Daemon, Lab, NetNs, PATIENCE};

fn unload(ns: &NetNs) -> Result<(Option<i32>, String, String)> {
    let output = Daemon::command(ns)?.arg("unload").output()?;
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    Ok((output.status.code(), stdout, stderr))
}

#[test]
fn policy_routing_that_a_killed_daemon_has_left_is_removed() -> Result<()> {
    let lab = Lab::builder().links(2).ipv6().build()?;
    let routing = || {
        let words = ["rule", "-6 rule", "-4 route show table all", "-6 route show table all"];
        words.iter().map(|words| lab.host.ip(words)).collect::<Result<String>>()
    };
    let before = routing()?;
    let mut daemon = lab.mhebpf_quietly(&["--steer", "rules"])?;
    let (status, _, stderr) = unload(&lab.host)?;
    ensure!(status == Some(1) && stderr.contains("stop it first"), "beside a daemon: {stderr}");
    daemon.signal(libc::SIGKILL)?;
    daemon.wait_end(PATIENCE)?;
    assert_ne!(routing()?, before);
    let (status, stdout, stderr) = unload(&lab.host)?;
    ensure!(status == Some(0) && stdout.starts_with("removed 4 rules"), "{status:?}: {stdout}{stderr}");
    assert_eq!(routing()?, before);
    let (status, stdout, _) = unload(&lab.host)?;
    ensure!(status == Some(0) && stdout.starts_with("nothing"), "{stdout}");
    lab.finish()
}

/// Binds the daemon's name as another user.
fn squat(ns: &NetNs) -> Result<UnixListener> {
    ns.run(|| {
        let bound = thread::spawn(|| {
            const NOBODY: libc::uid_t = 65_534;
            // The system call, unlike the function of libc, is about this thread only. SAFETY: no pointers are involved.
            if unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) } != 0 {
                return Err(io::Error::last_os_error());
            }
            UnixListener::bind_addr(&SocketAddr::from_abstract_name("mhebpf")?)
        });
        Ok(bound.join().map_err(|_| io::Error::other("the thread has panicked"))??)
    })
}

#[test]
fn another_user_with_the_daemons_name_does_not_keep_root_from_it() -> Result<()> {
    let lab = Lab::builder().links(1).build()?;
    let squatter = squat(&lab.host)?;
    let (status, stdout, stderr) = unload(&lab.host)?;
    ensure!(status == Some(0) && stdout.starts_with("nothing"), "{status:?}: {stdout}{stderr}");
    ensure!(stderr.contains("user 65534") && stderr.contains("not trusted"), "{stderr}");
    let ended = Daemon::spawn(&lab.host, &["run", "--interface", "eth*"])?.wait_end(PATIENCE)?;
    ensure!(
        ended.status.code() == Some(1) && ended.stderr.contains("end that process first"),
        "{}",
        ended.stderr
    );
    drop(squatter);
    lab.finish()
}
