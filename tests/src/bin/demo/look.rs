//! What the article looks at, seen in real frames.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use mhebpf_tests::{
    Lab, Mac, PATIENCE, PEER, Recording,
    frame::Arp,
    traffic::tcp::{self, Connection},
};

use crate::{claims::SLOWEST_CONNECT, show};

/// TCP's flags of a segment that does nothing but acknowledge.
const TCP_ACK: u8 = 0x10;

/// Everything seen in one half of the demo.
pub(crate) struct Observations {
    /// The interfaces by which each address's datagrams left, at first.
    pub(crate) ways: Ways,
    /// The same after `eth0_int` was taken down and up.
    pub(crate) ways_after: Ways,
    /// The peer's neighbour table.
    pub(crate) neighbours: BTreeMap<Ipv4Addr, Mac>,
    /// Who answered when the peer asked everyone for an address.
    pub(crate) broadcast_answers: BTreeMap<Ipv4Addr, Vec<(usize, Mac)>>,
    /// How many of the requests were answered that went to an interface for an address of another.
    pub(crate) stray_answers: usize,
    /// How many such requests there were.
    pub(crate) stray_requests: usize,
    /// How many TCP sessions carried data both ways.
    pub(crate) sessions: usize,
    /// The longest that a handshake took, with the resolution of the next hop.
    pub(crate) slowest: Duration,
}

/// The interfaces by which the datagrams of each address left.
pub(crate) type Ways = BTreeMap<Ipv4Addr, BTreeSet<usize>>;

impl Observations {
    /// Looks at everything; `settle` waits until a change of the routes is in force.
    pub(crate) fn make(lab: &Lab, server: SocketAddr, settle: impl FnOnce() -> Result<()>) -> Result<Self> {
        show::step(&format!("A TCP session to {server} from each address, neighbour tables empty before"));
        let mut sessions = 0;
        let mut slowest = Duration::ZERO;
        lab.forget_neighbours()?;
        let ways = connect_from_all(lab, server, &mut sessions, &mut slowest)?;

        show::step("The peer's neighbour table");
        let mut neighbours = lab.peer_neighbours()?;
        neighbours.retain(|address, _| lab.addresses().contains(address));
        show::neighbours(lab, &neighbours);

        show::step("The peer asks everyone by ARP who has an address");
        let broadcast_answers = ask_everyone(lab)?;

        show::step("The peer asks each interface by ARP for the addresses of the others");
        let (stray_requests, stray_answers) = ask_the_wrong_ones(lab)?;

        show::step("eth0_int goes down and up: its route is now the last; the same sessions again");
        lab.reorder_routes(0)?;
        settle()?;
        show::routes(lab)?;
        let ways_after = connect_from_all(lab, server, &mut sessions, &mut slowest)?;

        Ok(Self {
            ways,
            ways_after,
            neighbours,
            broadcast_answers,
            stray_answers,
            stray_requests,
            sessions,
            slowest,
        })
    }
}

/// Opens a session from each address, sends and gets data, and notes the interfaces by which it left.
fn connect_from_all(
    lab: &Lab,
    server: SocketAddr,
    sessions: &mut usize,
    slowest: &mut Duration,
) -> Result<Ways> {
    let mut ways = Ways::new();
    for address in lab.addresses() {
        // The host shall have to ask for the peer: by its request the peer learns where the address is.
        lab.host_forgets_neighbours()?;
        let recording = lab.record();
        let Connection { mut stream, asked, .. } = tcp::open(&lab.host, address, server, PATIENCE)?;
        let elapsed = handshake(&recording, address, asked)?;
        let hello = format!("hello from {address}");
        if tcp::echo(&mut stream, hello.as_bytes()).is_ok() {
            *sessions += 1;
        }
        tcp::close(stream)?;
        *slowest = elapsed.max(*slowest);
        show::session(&recording, address, elapsed)?;
        if elapsed >= SLOWEST_CONNECT {
            show::delay(lab, &recording, asked)?;
        }
        ways.insert(address, recording.ports_of(address)?);
    }
    Ok(ways)
}

/// From the program's request to the last segment of the handshake that leaves the host, by the capture's time stamps: how long
/// the program then waits for a CPU to hear of it says nothing about the network.
fn handshake(recording: &Recording<'_>, address: Ipv4Addr, asked: SystemTime) -> Result<Duration> {
    let frames = recording.from_host()?;
    let last = frames
        .iter()
        .find(|frame| frame.ipv4().is_some_and(|ip| ip.source == address && ip.tcp_flags == TCP_ACK))
        .with_context(|| format!("no handshake of {address} in the capture"))?;
    last.at.duration_since(asked).context("the clock was set back during a handshake")
}

/// Broadcasts a request for each address, as a neighbour without an entry does.
fn ask_everyone(lab: &Lab) -> Result<BTreeMap<Ipv4Addr, Vec<(usize, Mac)>>> {
    let mut answers = BTreeMap::new();
    for address in lab.addresses() {
        let recording = lab.record();
        let request = Arp::request(lab.peer_mac(0), PEER, address);
        lab.send_from_bridge(0, &request.frame(Mac::BROADCAST))?;
        let replies = recording.arp_replies_for(address)?;
        show::arp(&recording, address)?;
        answers.insert(address, replies);
    }
    Ok(answers)
}

/// Sends requests straight to interfaces that do not own what is asked for; returns how many, and how many were answered.
fn ask_the_wrong_ones(lab: &Lab) -> Result<(usize, usize)> {
    let whole: Recording<'_> = lab.record();
    let mut requests = 0;
    let mut answered = 0;
    for port in lab.ports() {
        for (owner, address) in lab.addresses().into_iter().enumerate() {
            if owner != port {
                let recording = lab.record();
                let request = Arp::request(lab.peer_mac(port), PEER, address);
                lab.send_to_host(port, &request.frame(lab.mac(port)))?;
                requests += 1;
                answered += usize::from(!recording.arp_replies_for(address)?.is_empty());
            }
        }
    }
    show::stray(&whole, requests, answered)?;
    Ok((requests, answered))
}
