//! Connecting to who has a socket, without waiting for ever: a queue that somebody keeps full is never served.

use std::{
    io,
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

/// Names a process.
pub(crate) fn name(peer: &UCred) -> String {
    let process = peer.pid().map_or_else(|| "process unknown".to_owned(), |pid| format!("process {pid}"));
    format!("{process}, user {}", peer.uid())
}
