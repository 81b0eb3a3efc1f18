//! Metrics over HTTP/1.1.
//!
//! Each client has a task of its own, a limited time, and one answer: the daemon's loop waits for none of them.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

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
    sync::{Semaphore, mpsc, oneshot},
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use super::exposition;
use crate::control::Question;

/// Where the metrics are.
const PATH: &str = "/metrics";

/// How many clients are served at once. Others wait for their turn.
const CLIENTS: usize = 16;

/// How long a client may take to say what it wants.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// How long it may take in all. Prometheus gives up after 10 s by itself.
const CLIENT_TIME: Duration = Duration::from_secs(15);

/// How long a request's head may be, in bytes.
const HEAD: usize = 16 * 1024;

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
        tokio::spawn(accept(listener, asks));
    }
}

async fn accept(listener: TcpListener, asks: mpsc::Sender<Question>) {
    let clients = Arc::new(Semaphore::new(CLIENTS));
    // It is never closed.
    while let Ok(permit) = Arc::clone(&clients).acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // No descriptors are left, say. Not at once again: that would fail as well.
                warn!("accepting a scrape of the metrics: {error}");
                sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let asks = asks.clone();
        tokio::spawn(async move {
            let _permit = permit;
            match timeout(CLIENT_TIME, serve(stream, asks)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!("a scrape of the metrics: {error}"),
                Err(_) => debug!("a scrape of the metrics took too long"),
            }
        });
    }
}

async fn serve(stream: TcpStream, asks: mpsc::Sender<Question>) -> hyper::Result<()> {
    let service = service_fn(|request: Request<Incoming>| {
        let asks = asks.clone();
        async move { Ok::<_, Infallible>(answer(&request, &asks).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME)
        .max_buf_size(HEAD)
        // One who keeps a connection keeps a place.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn answer(request: &Request<Incoming>, asks: &mpsc::Sender<Question>) -> Response<Full<Bytes>> {
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
    match metrics(asks).await {
        Ok(text) => response(StatusCode::OK, exposition::CONTENT_TYPE, text),
        Err(error) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}\n")),
    }
}

async fn metrics(asks: &mpsc::Sender<Question>) -> Result<String> {
    let (sender, measures) = oneshot::channel();
    asks.send(Question::Measures(sender)).await.context("mhebpf is stopping")?;
    let measures = measures.await.context("mhebpf is stopping")??;
    exposition::text(*measures).context("writing the metrics")
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
