//! Connecting to who has a socket, without waiting for ever: a queue that somebody keeps full is never served.

use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use tokio::{
    net::{UnixStream, unix::UCred},
    time::sleep,
};

use crate::trusted::own_user;

/// How often it is tried while the queue is full.
const STEP: Duration = Duration::from_millis(20);

/// Connects to a socket, be it a file or, with a zero in front, an abstract name.
///
/// # Errors
///
/// When nobody listens there, or, as a timeout, nobody serves the queue.
pub(crate) async fn connect(to: &Path, limit: Duration) -> io::Result<(UnixStream, UCred)> {
    let begin = Instant::now();
    loop {
        match UnixStream::connect(to).await {
            Ok(stream) => {
                let peer = stream.peer_cred()?;
                return Ok((stream, peer));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if begin.elapsed() > limit {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error),
        }
        sleep(STEP).await;
    }
}

/// Whether somebody with the effective user id `user` may be spoken with: root, or the user of this process.
pub(crate) fn is_trusted(user: u32) -> bool {
    [0, own_user()].contains(&user)
}

/// Whether a process may change what is on interfaces, as a daemon must: it has `CAP_NET_ADMIN` in this process's user
/// namespace, where root has given it. In one of his own anybody has it.
pub(crate) fn may_enforce(peer: &UCred) -> bool {
    const CAP_NET_ADMIN: u32 = 12;
    let Some(pid) = peer.pid() else { return false };
    let user_namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/user")).ok();
    let own = user_namespace("self");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    own.is_some() && user_namespace(&pid.to_string()) == own && effective & 1 << CAP_NET_ADMIN != 0
}

/// Names a process.
pub(crate) fn name(peer: &UCred) -> String {
    let process = peer.pid().map_or_else(|| "process unknown".to_owned(), |pid| format!("process {pid}"));
    format!("{process}, user {}", peer.uid())
}
