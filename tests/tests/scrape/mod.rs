//! A client of `mhebpf run --metrics`.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context as _, Result, ensure};
use mhebpf_tests::{Daemon, Lab, Mac, NetNs, PATIENCE};

use crate::openmetrics::Exposition;

/// Every lab has a loopback of its own.
pub(crate) const ADDRESS: &str = "127.0.0.1:9469";

/// An answer of the daemon: status, head and body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

pub(crate) fn connect() -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&ADDRESS.parse::<SocketAddr>()?, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends a request and reads until the daemon closes the connection.
pub(crate) fn ask(mut stream: TcpStream, method: &str, path: &str) -> Result<Answer> {
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {ADDRESS}\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no end of the head")?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok(Answer { status, head: head.to_lowercase(), body: body.to_owned() })
}

pub(crate) fn scrape_text(ns: &NetNs) -> Result<String> {
    let answer = ns.run(|| ask(connect()?, "GET", "/metrics"))?;
    ensure!(answer.status == 200, "{}\n{}", answer.head, answer.body);
    Ok(answer.body)
}

pub(crate) fn scrape(ns: &NetNs) -> Result<Exposition> {
    let text = scrape_text(ns)?;
    Exposition::parse(&text).context(text)
}

pub(crate) fn start(lab: &Lab, further: &[&str]) -> Result<Daemon> {
    lab.mhebpf_quietly(&[&["--metrics", ADDRESS], further].concat())
}

/// Sends what does not belong: a datagram, and a question for another interface's address.
pub(crate) fn violate(lab: &Lab) -> Result<()> {
    lab.emit(0, lab.address(1))?;
    lab.ask(1, lab.address(0), Mac::BROADCAST)?;
    lab.fence()
}
