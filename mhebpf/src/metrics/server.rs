//! Metrics over HTTP/1.1.
//!
//! Each client has a task of its own, a limited time, and one answer: the daemon's loop waits for none of them.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Mutex, mpsc, oneshot},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{debug, info, warn};

use super::exposition;
use crate::{control::Question, logging::Limit};

/// Where the metrics are.
const PATH: &str = "/metrics";

/// How many clients are served at once.
const CLIENTS: usize = 64;

/// How long a client may take to say what it wants.
const REQUEST_TIME: Duration = Duration::from_secs(1);

/// How long it may take in all. Prometheus gives up after 10 s by itself.
const CLIENT_TIME: Duration = Duration::from_secs(15);

/// How long the daemon is asked nothing after a question, so that many scrapes don't keep it from its work.
const PAUSE: Duration = Duration::from_millis(20);

/// How long a request's head may be, in bytes.
const HEAD: usize = 16 * 1024;

/// What anybody who reaches the address can have the log say.
static LINES: Limit = Limit::new("scrapes of the metrics");

/// An address that clients can connect to.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens in the network namespace of this process. Clients that connect wait until [`Listener::serve`].
    ///
    /// # Errors
    ///
    /// When the address can't be had.
    pub async fn bind(address: SocketAddr) -> Result<Self> {
        let bound = async {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok::<_, std::io::Error>(Self { listener, address })
        };
        bound.await.with_context(|| {
            format!(
                "listening for scrapes of the metrics on {address} (choose another address or port with --metrics, or \
                 leave it out; `ss -ltnp` says who has one)"
            )
        })
    }

    /// Begins to answer, by what the daemon's loop is asked through `asks`.
    pub fn serve(self, asks: mpsc::Sender<Question>) {
        let Self { listener, address } = self;
        info!("metrics are at http://{address}{PATH}");
        if !address.ip().is_loopback() {
            warn!(
                "whoever reaches {address} can read the metrics: nothing is encrypted, and nobody is asked who they are"
            );
        }
        tokio::spawn(accept(listener, Source { asks, last: Mutex::new(None) }));
    }
}

/// Where the metrics come from.
struct Source {
    asks: mpsc::Sender<Question>,
    /// The last answer, and when it was asked for.
    last: Mutex<Option<(Instant, Bytes)>>,
}

/// A client that is served.
struct Client {
    task: AbortHandle,
    has_asked: Arc<AtomicBool>,
}

async fn accept(listener: TcpListener, source: Source) {
    let source = Arc::new(source);
    let mut tasks = JoinSet::new();
    let mut clients: VecDeque<Client> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // No descriptors are left, say. Not at once again: that would fail as well.
                warn!("accepting a scrape of the metrics: {error}");
                sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        make_room(&mut clients, &mut tasks).await;
        let (source, has_asked) = (Arc::clone(&source), Arc::new(AtomicBool::new(false)));
        let asked = Arc::clone(&has_asked);
        let task = tasks.spawn(async move {
            match timeout(CLIENT_TIME, serve(stream, source, asked)).await {
                Ok(Ok(())) => {}
                _ if !LINES.admits() => {}
                Ok(Err(error)) => debug!("a scrape of the metrics: {error}"),
                Err(_) => debug!("a scrape of the metrics took too long"),
            }
        });
        clients.push_back(Client { task, has_asked });
    }
}

/// Who has a place and says nothing gives it to others, the one that has been silent for the longest time first.
async fn make_room(clients: &mut VecDeque<Client>, tasks: &mut JoinSet<()>) {
    loop {
        while tasks.try_join_next().is_some() {}
        clients.retain(|client| !client.task.is_finished());
        if clients.len() < CLIENTS {
            return;
        }
        match clients.iter().position(|client| !client.has_asked.load(Ordering::Relaxed)) {
            Some(silent) => {
                if let Some(client) = clients.remove(silent) {
                    client.task.abort();
                }
            }
            // All are being answered.
            None => drop(tasks.join_next().await),
        }
    }
}

async fn serve(stream: TcpStream, source: Arc<Source>, has_asked: Arc<AtomicBool>) -> hyper::Result<()> {
    let service = service_fn(|request: Request<Incoming>| {
        has_asked.store(true, Ordering::Relaxed);
        let source = Arc::clone(&source);
        async move { Ok::<_, Infallible>(answer(&request, &source).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME)
        // One who has said all that it wants to say may close its half.
        .half_close(true)
        .max_buf_size(HEAD)
        // One who keeps a connection keeps a place.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn answer(request: &Request<Incoming>, source: &Source) -> Response<Full<Bytes>> {
    match (request.uri().path(), request.method()) {
        (PATH | "/", &Method::GET | &Method::HEAD) => {}
        (PATH | "/", _) => {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "metrics can only be read: use GET\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        _ => return plain(StatusCode::NOT_FOUND, "there is nothing here: the metrics are at /metrics\n"),
    }
    if request.uri().path() == "/" {
        return plain(StatusCode::OK, "mhebpf: the metrics are at /metrics\n");
    }
    match source.metrics().await {
        Ok(text) => response(StatusCode::OK, exposition::CONTENT_TYPE, text),
        Err(error) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}\n")),
    }
}

impl Source {
    /// The metrics of now: never older than the request. Those who wait for their turn share an answer.
    async fn metrics(&self) -> Result<Bytes> {
        let requested = Instant::now();
        let mut last = self.last.lock().await;
        if let Some((asked, text)) = last.as_ref() {
            if *asked >= requested {
                return Ok(text.clone());
            }
            sleep_until(*asked + PAUSE).await;
        }
        let asked = Instant::now();
        let (sender, measures) = oneshot::channel();
        self.asks.send(Question::Measures(sender)).await.context("mhebpf is stopping")?;
        let measures = measures.await.context("mhebpf is stopping")??;
        let text = Bytes::from(exposition::text(*measures).context("writing the metrics")?);
        *last = Some((asked, text.clone()));
        Ok(text)
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", text)
}

fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
