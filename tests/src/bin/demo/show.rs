//! The running commentary.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use mhebpf_tests::{
    Captured, Lab, Mac, PEER, Recording,
    frame::{ARP_REQUEST, Arp, Ipv4},
};

/// TCP's flags of a connection that begins, and of data.
const TCP_SYN: u8 = 0x02;
const TCP_PUSH: u8 = 0x08;

/// How many frames of a kind are shown where there are many.
const A_FEW: usize = 4;

pub(crate) fn lab(lab: &Lab) {
    println!("The lab: the peer {PEER} on a bridge, and a host with four links to it:");
    for (port, address) in lab.addresses().into_iter().enumerate() {
        println!("  eth{port}_int  {}  {address}/21", lab.mac(port));
    }
}

pub(crate) fn half(title: &str) {
    println!("\n=== {title}");
}

pub(crate) fn step(title: &str) {
    println!("\n{title}:");
}

pub(crate) fn frame(frame: &Captured) {
    println!("    {frame}");
}

pub(crate) fn routes(lab: &Lab) -> Result<()> {
    for line in lab.host.ip("route show table main")?.lines() {
        println!("    {}", line.trim());
    }
    Ok(())
}

/// The frames of a session that matter: the resolution of the next hop, the SYN, and the first data either way.
pub(crate) fn session(recording: &Recording<'_>, address: Ipv4Addr, elapsed: Duration) -> Result<()> {
    println!("  {address}, connected in {:.1} ms", elapsed.as_secs_f64() * 1e3);
    let frames = recording.frames()?;
    let is_for_the_next_hop = |arp: &Arp| arp.operation == ARP_REQUEST && arp.target == PEER;
    let is_request = |f: &Captured| f.from_host && f.arp().is_some_and(is_for_the_next_hop);
    frames.iter().filter(|f| is_request(f)).for_each(|captured| frame(captured));
    let segment = |from_host: bool, flag: u8| {
        frames.iter().find(|f| {
            let of_the_session = |ip: &Ipv4| ip.source == address || ip.destination == address;
            f.from_host == from_host
                && f.ipv4().is_some_and(|ip| of_the_session(ip) && ip.tcp_flags & flag != 0)
        })
    };
    for captured in [segment(true, TCP_SYN), segment(true, TCP_PUSH), segment(false, TCP_PUSH)] {
        captured.into_iter().for_each(|captured| frame(captured));
    }
    Ok(())
}

/// All that explains a slow session: every frame of it, with the time since it was asked for, and the neighbour tables.
pub(crate) fn delay(lab: &Lab, recording: &Recording<'_>, asked: SystemTime) -> Result<()> {
    println!("  That was slow. All frames, in milliseconds since it was asked for:");
    for captured in recording.frames()? {
        let since = captured.at.duration_since(asked).unwrap_or_default();
        println!("    {:9.3} {captured}", since.as_secs_f64() * 1e3);
    }
    for (whose, ns) in [("host", &lab.host), ("peer", &lab.switch)] {
        println!("  The {whose}'s neighbour table:");
        for line in ns.ip("-statistics neighbour show")?.lines().filter(|line| !line.is_empty()) {
            println!("    {line}");
        }
    }
    Ok(())
}

pub(crate) fn neighbours(lab: &Lab, neighbours: &BTreeMap<Ipv4Addr, Mac>) {
    for (address, mac) in neighbours {
        let owner = lab.ports().find(|port| lab.mac(*port) == *mac);
        let owner = owner.map_or_else(|| "nobody".to_owned(), |port| format!("eth{port}_int"));
        println!("    {address} is at {mac}, {owner}");
    }
}

/// The answers to a request for an address.
pub(crate) fn arp(recording: &Recording<'_>, address: Ipv4Addr) -> Result<()> {
    println!("  who-has {address}?");
    for captured in recording.from_host()?.iter().filter(|f| f.arp().is_some_and(|arp| arp.sender == address))
    {
        frame(captured);
    }
    Ok(())
}

/// Requests that went to the wrong interface.
pub(crate) fn stray(recording: &Recording<'_>, requests: usize, answered: usize) -> Result<()> {
    println!("  {requests} requests, {answered} answered");
    for captured in recording.frames()?.iter().filter(|f| f.arp().is_some()).take(A_FEW) {
        frame(captured);
    }
    println!("    …");
    Ok(())
}

/// What the interfaces said of themselves when mhebpf started.
pub(crate) fn announcements(recording: &Recording<'_>) -> Result<()> {
    step("Each interface announces its own address (gratuitous ARP)");
    recording.from_host()?.iter().filter(|f| f.arp().is_some()).for_each(|captured| frame(captured));
    Ok(())
}

pub(crate) fn summary(stderr: &str) {
    step("mhebpf stops and has counted");
    let lines: Vec<_> = stderr.lines().collect();
    let ready = lines.iter().position(|line| line.contains("mhebpf ready")).map_or(0, |at| at + 1);
    for line in lines.iter().skip(ready) {
        println!("    {line}");
    }
}
