//! A tun device: an interface whose packets have no Ethernet header, and end in this process.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::fd::{AsFd as _, AsRawFd as _},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};

use crate::{netns::NetNs, packet_socket::readable, wait::PATIENCE};

/// `TUNSETIFF` of linux/if_tun.h.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;

/// Larger than any packet.
const BUFFER: usize = 65_536;

/// The process's end of a tun device, which vanishes with it.
#[derive(Debug)]
pub struct Tun {
    file: File,
}

impl Tun {
    /// Makes a tun device in a namespace, up, with these addresses.
    ///
    /// # Errors
    ///
    /// When the kernel has no tun devices, or without root.
    pub fn new(ns: &NetNs, name: &str, addresses: &[&str]) -> Result<Self> {
        let file = ns.run(|| {
            let file =
                OpenOptions::new().read(true).write(true).open("/dev/net/tun").context("/dev/net/tun")?;
            let mut request = [0u8; size_of::<libc::ifreq>()];
            ensure!(name.len() < libc::IFNAMSIZ, "the name {name} is too long");
            request[..name.len()].copy_from_slice(name.as_bytes());
            let flags = (libc::IFF_TUN | libc::IFF_NO_PI) as u16;
            request[libc::IFNAMSIZ..][..2].copy_from_slice(&flags.to_ne_bytes());
            // SAFETY: a pointer to as many bytes as a `struct ifreq` has, which live through the call.
            let result = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
            ensure!(result == 0, "making the tun device {name}: {}", io::Error::last_os_error());
            // SAFETY: no pointers are involved.
            let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
            ensure!(result == 0, io::Error::last_os_error());
            Ok(file)
        })?;
        ns.ip(&format!("link set {name} up"))?;
        for address in addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            ns.ip(&format!("address add {address} dev {name}{nodad}"))?;
        }
        Ok(Self { file })
    }

    /// Lets a packet arrive on the device.
    ///
    /// # Errors
    ///
    /// When the device is down.
    pub fn deliver(&self, packet: &[u8]) -> Result<()> {
        (&self.file).write_all(packet).context("writing to a tun device")
    }

    /// Waits for a packet that leaves through the device and looks like this.
    ///
    /// # Errors
    ///
    /// When none comes in time.
    pub fn wait_for(&self, what: &str, mut wanted: impl FnMut(&[u8]) -> bool) -> Result<Vec<u8>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for packet in self.packets()? {
                if wanted(&packet) {
                    return Ok(packet);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero() && readable(self.file.as_fd(), left)?, "waited in vain for {what}");
        }
    }

    /// All packets that have left through the device since the last call.
    ///
    /// # Errors
    ///
    /// When the device is gone.
    pub fn packets(&self) -> Result<Vec<Vec<u8>>> {
        let mut packets = Vec::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            match (&self.file).read(&mut buffer) {
                Ok(length) => packets.push(buffer[..length].to_vec()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(packets),
                Err(error) => return Err(error).context("reading from a tun device"),
            }
        }
    }
}
