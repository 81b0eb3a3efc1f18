//! A command's end.

use std::{fmt, io, time::Duration};

use anyhow::{Context as _, Result, bail};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf, UCred},
    },
    time::timeout,
};

use super::{
    Answer, Request,
    protocol::{Crossing, Judgement, Status},
};
use crate::instance::{
    self,
    connect::{connect, is_trusted, may_enforce},
    place,
};

/// How long it may take to take a connection.
const CONNECTING: Duration = Duration::from_secs(2);

/// The same of one that need not be a daemon.
const BRIEFLY: Duration = Duration::from_millis(200);

/// How long the daemon may take to say how it is: it may be busy with thousands of changes.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long it may take to judge a packet, which the command can do by itself.
const JUDGING: Duration = Duration::from_secs(5);

/// No daemon runs in this network namespace.
#[derive(Debug)]
pub struct NoDaemon;

impl fmt::Display for NoDaemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "no mhebpf is running in this network namespace: start it with `mhebpf run --all`, or enter the namespace \
             where it runs (ip netns exec NAME mhebpf ...)",
        )
    }
}

impl std::error::Error for NoDaemon {}

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
    /// [`NoDaemon`] when there is none; when the one that is there is neither root's nor this user's.
    pub async fn to(request: Request) -> Result<Self> {
        let (stream, peer) = connect_to_daemon().await?;
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

/// Whether a daemon of this network namespace is there and may be believed.
pub async fn find() -> bool {
    connect_to_daemon().await.is_ok()
}

/// Connects to the daemon where nobody else can be; where there is none, to who has its name in this network namespace.
async fn connect_to_daemon() -> Result<(UnixStream, UCred)> {
    for (socket, users) in place::sockets() {
        match connect(&socket, CONNECTING).await {
            Ok((stream, peer)) if is_trusted(peer.uid()) || users.contains(&peer.uid()) => {
                return Ok((stream, peer));
            }
            Ok(_) => {}
            Err(error) => match error.kind() {
                // Of a daemon that was killed, or is only now starting.
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {}
                io::ErrorKind::TimedOut => {
                    bail!("mhebpf takes no connections at {}: is it stopped?", socket.display())
                }
                _ => {
                    return Err(error)
                        .with_context(|| format!("connecting to mhebpf at {}", socket.display()));
                }
            },
        }
    }
    let by_name = connect(instance::abstract_name(), CONNECTING).await;
    match by_name {
        Ok((stream, peer)) if is_trusted(peer.uid()) => return Ok((stream, peer)),
        _ => {}
    }
    // Any user can have a socket there; it is a daemon's only if the process could be one.
    for (socket, user) in place::sockets_of_others() {
        match connect(&socket, BRIEFLY).await {
            Ok((stream, peer)) if peer.uid() == user && may_enforce(&peer) => return Ok((stream, peer)),
            _ => {}
        }
    }
    match by_name {
        // Any user can take the name.
        Ok((_, peer)) => bail!(
            "what answers as mhebpf in this network namespace is process {} of user {}, who is neither root nor \
             you: it is not believed; end that process, and mhebpf can be asked",
            peer.pid().unwrap_or_default(),
            peer.uid()
        ),
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => Err(NoDaemon.into()),
            io::ErrorKind::TimedOut => bail!(
                "somebody holds the name of mhebpf in this network namespace (the abstract socket @mhebpf) and takes no \
                 connections: `ss -lxp` names the process"
            ),
            _ => Err(error).context("connecting to mhebpf"),
        },
    }
}

/// Asks how the daemon is.
///
/// # Errors
///
/// [`NoDaemon`] when there is none; when it refuses, or is not understood.
pub async fn status() -> Result<Box<Status>> {
    match ask(Request::Status, PATIENCE).await? {
        (Answer::Status(status), _) => Ok(status),
        (_, process) => bail!("mhebpf{process} answers another question"),
    }
}

/// Asks what becomes of a packet by the maps as they are, and names the daemon's process.
///
/// # Errors
///
/// [`NoDaemon`] when there is none; when it refuses, or is not understood.
pub async fn judge(crossing: Crossing) -> Result<(Box<Judgement>, String)> {
    match ask(Request::Judge(crossing), JUDGING).await? {
        (Answer::Judged(judgement), process) => Ok((judgement, process)),
        (_, process) => bail!("mhebpf{process} answers another question"),
    }
}

/// Asks what has one answer.
async fn ask(request: Request, patience: Duration) -> Result<(Answer, String)> {
    let mut answers = Answers::to(request).await?;
    let process = answers.process();
    let Ok(answer) = timeout(patience, answers.next()).await else {
        bail!("mhebpf{process} does not answer: is it stopped?");
    };
    match answer? {
        Some(answer) => Ok((answer, process)),
        None => bail!("mhebpf{process} went away without an answer"),
    }
}
