//! One daemon for each network namespace.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
};

use anyhow::{Context as _, Result, bail};

/// The name of an abstract socket: such names belong to a network namespace, and end with the process, however that ends.
const NAME: &[u8] = b"mhebpf";

/// Holds the network namespace for this process.
#[derive(Debug)]
pub struct Instance {
    _socket: UnixListener,
}

impl Instance {
    /// Claims the namespace of this process.
    ///
    /// # Errors
    ///
    /// When another daemon has it.
    pub fn claim() -> Result<Self> {
        let address = SocketAddr::from_abstract_name(NAME).context("naming the socket of this instance")?;
        match UnixListener::bind_addr(&address) {
            Ok(socket) => Ok(Self { _socket: socket }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => bail!(
                "another mhebpf is already running in this network namespace; stop it first, or give it the other \
                 interfaces as well (--interface may be repeated)"
            ),
            Err(error) => Err(error).context("claiming this network namespace"),
        }
    }
}
