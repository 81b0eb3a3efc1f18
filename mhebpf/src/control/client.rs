//! A command's end.

use std::{io, os::linux::net::SocketAddrExt as _, os::unix::net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, bail};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use super::{Answer, Request, is_trusted, protocol::Status};
use crate::instance;

/// How long the daemon may take to say how it is: it may be busy with thousands of changes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request that was sent, and its answers.
#[derive(Debug)]
pub struct Answers {
    lines: Lines<BufReader<OwnedReadHalf>>,
    /// The daemon takes a closed half for the end.
    _writer: OwnedWriteHalf,
    /// The daemon's process.
    pid: Option<i32>,
}

impl Answers {
    /// Asks the daemon of this network namespace.
    ///
    /// # Errors
    ///
    /// When there is none, or the one that is there is neither root's nor this user's.
    pub async fn to(request: Request) -> Result<Self> {
        let address = SocketAddr::from_abstract_name(instance::NAME).context("naming the daemon's socket")?;
        let stream = match std::os::unix::net::UnixStream::connect_addr(&address) {
            Ok(stream) => stream,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => bail!(
                "no mhebpf is running in this network namespace: start it with `mhebpf run --all`, or enter the \
                 namespace where it runs (ip netns exec NAME mhebpf ...)"
            ),
            Err(error) => return Err(error).context("connecting to mhebpf"),
        };
        stream.set_nonblocking(true)?;
        let stream = UnixStream::from_std(stream)?;
        let peer = stream.peer_cred().context("asking who has the socket of mhebpf")?;
        // Any user can take the name.
        if !is_trusted(peer.uid()) {
            bail!(
                "what answers as mhebpf in this network namespace is process {} of user {}, who is neither root nor \
                 you: it is not believed",
                peer.pid().unwrap_or_default(),
                peer.uid()
            );
        }
        let pid = peer.pid();
        let (reader, mut writer) = stream.into_split();
        let mut line = serde_json::to_string(&request)?;
        line.push('\n');
        // Refused before it has asked, this fails; what was said is read all the same.
        let _ = writer.write_all(line.as_bytes()).await;
        Ok(Self { lines: BufReader::new(reader).lines(), _writer: writer, pid })
    }

    /// Waits for the next answer; `None` when the daemon has gone away. Cancelling loses none.
    ///
    /// # Errors
    ///
    /// When the daemon refuses, or is not understood.
    pub async fn next(&mut self) -> Result<Option<Answer>> {
        let line = match self.lines.next_line().await {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(error).context("reading the answer of mhebpf"),
        };
        match serde_json::from_str(&line) {
            Ok(Answer::Error { message }) => bail!("mhebpf{}: {message}", self.process()),
            Ok(answer) => Ok(Some(answer)),
            Err(error) => {
                Err(error).context("the mhebpf that runs answers what this version does not understand")
            }
        }
    }

    /// Names the daemon's process for a message.
    pub fn process(&self) -> String {
        self.pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
    }
}

/// Asks how the daemon is.
///
/// # Errors
///
/// When there is none, it refuses, or is not understood.
pub async fn status() -> Result<Box<Status>> {
    let mut answers = Answers::to(Request::Status).await?;
    let Ok(answer) = timeout(PATIENCE, answers.next()).await else {
        bail!("mhebpf{} does not answer: is it stopped?", answers.process());
    };
    match answer? {
        Some(Answer::Status(status)) => Ok(status),
        Some(_) => bail!("mhebpf{} answers another question", answers.process()),
        None => bail!("mhebpf{} went away without an answer", answers.process()),
    }
}
