//! The daemon's end. A client that asks nonsense, reads slowly or goes away costs the daemon nothing but a closed
//! connection: each is served by a task of its own, which asks the daemon's loop through a channel.

use std::{io, os::unix::net::UnixListener, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixStream, unix::OwnedWriteHalf},
    sync::{Semaphore, mpsc, oneshot},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{Answer, Request, protocol::Crossing};
use crate::{instance::connect::is_trusted, logging::Limit, metrics::Measures};

/// How long a request may be, in bytes.
const REQUEST: u64 = 4096;

/// How long a client may take to send it.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// How many clients are served at once.
const CLIENTS: usize = 32;

/// How many lines wait for a monitor that reads slowly.
const QUEUE: usize = 1024;

/// What anybody can have the log say by connecting.
static CLIENT_LINES: Limit = Limit::new("clients of status and monitor");

/// What is asked of the daemon's loop.
#[derive(Debug)]
pub enum Question {
    /// How it is.
    Status(oneshot::Sender<Answer>),
    /// What is measured.
    Measures(oneshot::Sender<Result<Box<Measures>>>),
    /// What becomes of a packet.
    Judge(Crossing, oneshot::Sender<Answer>),
    /// To send lines of [`Answer`]s to a monitor, for as long as the channel is open.
    Watch(mpsc::Sender<Arc<str>>),
    /// To see which of those channels are still open.
    Left,
}

/// What clients ask.
#[derive(Debug)]
pub struct Control {
    asks: mpsc::Sender<Question>,
    questions: mpsc::Receiver<Question>,
}

impl Control {
    /// Begins to serve clients that connect to listening sockets.
    ///
    /// # Errors
    ///
    /// When a socket can't be waited for.
    pub fn serve(listeners: Vec<UnixListener>) -> Result<Self> {
        let (asks, questions) = mpsc::channel(CLIENTS);
        let clients = Arc::new(Semaphore::new(CLIENTS));
        for listener in listeners {
            let registered = || {
                listener.set_nonblocking(true)?;
                tokio::net::UnixListener::from_std(listener)
            };
            let listener = registered().context("listening for status and monitor")?;
            tokio::spawn(accept(listener, Arc::clone(&clients), asks.clone()));
        }
        Ok(Self { asks, questions })
    }

    /// A way for others to ask.
    pub fn asks(&self) -> mpsc::Sender<Question> {
        self.asks.clone()
    }

    /// Waits for the next question. Cancelling loses none.
    pub async fn next(&mut self) -> Question {
        match self.questions.recv().await {
            Some(question) => question,
            // Nobody will ask any more.
            None => std::future::pending().await,
        }
    }
}

async fn accept(listener: tokio::net::UnixListener, clients: Arc<Semaphore>, asks: mpsc::Sender<Question>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // No descriptors are left, say. Not at once again: that would fail as well.
                warn!("accepting a connection of status or monitor: {error}");
                sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        match stream.peer_cred() {
            Ok(peer) if is_trusted(peer.uid()) => {}
            Ok(peer) => {
                if CLIENT_LINES.admits() {
                    debug!("user {} may not ask this daemon", peer.uid());
                }
                refuse(&stream, "only root and the user that mhebpf runs as may ask it: use sudo");
                continue;
            }
            Err(error) => {
                if CLIENT_LINES.admits() {
                    debug!("not telling who asks: {error}");
                }
                continue;
            }
        }
        let Ok(permit) = Arc::clone(&clients).try_acquire_owned() else {
            refuse(&stream, "too many commands ask this mhebpf at once: end some of them");
            continue;
        };
        let asks = asks.clone();
        tokio::spawn(async move {
            let _permit = permit;
            if let Err(error) = serve(stream, asks).await
                && CLIENT_LINES.admits()
            {
                debug!("a client of status or monitor: {error}");
            }
        });
    }
}

/// Says no, without waiting. The line fits into any socket buffer.
fn refuse(stream: &UnixStream, message: &str) {
    if let Ok(line) = to_line(&Answer::Error { message: message.to_owned() }) {
        let _ = stream.try_write(line.as_bytes());
    }
}

async fn serve(stream: UnixStream, asks: mpsc::Sender<Question>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let request = match timeout(REQUEST_TIME, read_request(&mut reader)).await {
        Ok(Ok(Some(request))) => request,
        // Another daemon that asks who has this namespace says nothing.
        Ok(Ok(None)) => return Ok(()),
        Ok(Err(error)) => return say(&mut writer, &Answer::Error { message: format!("{error:#}") }).await,
        Err(_) => return Ok(()),
    };
    match request {
        Request::Status => ask(&mut writer, &asks, Question::Status).await,
        Request::Judge(crossing) => ask(&mut writer, &asks, |sender| Question::Judge(crossing, sender)).await,
        Request::Monitor => {
            let watched = watch(reader, writer, &asks).await;
            // A loop that has ended needs to know nothing.
            let _ = asks.send(Question::Left).await;
            watched
        }
    }
}

/// Asks what has one answer, and passes it on.
async fn ask(
    writer: &mut OwnedWriteHalf,
    asks: &mpsc::Sender<Question>,
    question: impl FnOnce(oneshot::Sender<Answer>) -> Question,
) -> io::Result<()> {
    let (sender, answer) = oneshot::channel();
    if asks.send(question(sender)).await.is_ok()
        && let Ok(answer) = answer.await
    {
        say(writer, &answer).await?;
    }
    Ok(())
}

/// Passes lines on until the client goes away.
async fn watch(
    mut reader: impl AsyncRead + Unpin,
    mut writer: OwnedWriteHalf,
    asks: &mpsc::Sender<Question>,
) -> io::Result<()> {
    let (sender, mut lines) = mpsc::channel::<Arc<str>>(QUEUE);
    if asks.send(Question::Watch(sender)).await.is_err() {
        return Ok(());
    }
    let mut ignored = [0; 64];
    loop {
        tokio::select! {
            read = reader.read(&mut ignored) => if read? == 0 {
                return Ok(());
            },
            line = lines.recv() => match line {
                Some(line) => writer.write_all(line.as_bytes()).await?,
                None => return Ok(()),
            },
        }
    }
}

async fn read_request<R: AsyncRead + Unpin>(reader: &mut BufReader<R>) -> Result<Option<Request>> {
    let mut line = Vec::new();
    reader.take(REQUEST).read_until(b'\n', &mut line).await.context("reading the request")?;
    if line.is_empty() {
        return Ok(None);
    }
    let request = serde_json::from_slice(&line)
        .context("this mhebpf does not understand the request: is the command of another version?")?;
    Ok(Some(request))
}

async fn say(writer: &mut OwnedWriteHalf, answer: &Answer) -> io::Result<()> {
    writer.write_all(to_line(answer)?.as_bytes()).await
}

/// An answer as it is sent.
///
/// # Errors
///
/// Never, as answers are.
pub(crate) fn to_line(answer: &Answer) -> io::Result<String> {
    let mut line = serde_json::to_string(answer)?;
    line.push('\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Result<Option<Request>> {
        read_request(&mut BufReader::new(bytes)).await
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_request_is_one_line_of_limited_length() {
        assert_eq!(read(b"{\"request\":\"status\"}\nmore").await.ok(), Some(Some(Request::Status)));
        assert_eq!(read(b"").await.ok(), Some(None));
        let endless = format!("{{\"request\":\"status\",\"more\":\"{}\"}}\n", "x".repeat(REQUEST as usize));
        for wrong in ["\n", "status\n", "{\"request\":\"status\"", "\u{0}\u{1}\n", "[[[[[[", &endless] {
            let error = read(wrong.as_bytes()).await.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains("another version"), "{wrong:.30}: {error}");
        }
    }
}
