//! One daemon for each network namespace.

use std::{
    fmt, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
};

use anyhow::{Context as _, Result};

/// The name of an abstract socket: such names belong to a network namespace, and end with the process,
/// however that ends.
pub(crate) const NAME: &[u8] = b"mhebpf";

/// Another daemon has the network namespace.
#[derive(Debug)]
pub struct Taken {
    /// Its process and user.
    pub holder: String,
    /// It is of root, or of the user of this process. Any other user can have the name too.
    pub is_trusted: bool,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_trusted {
            return write!(
                f,
                "{} holds the name of mhebpf in this network namespace (the abstract socket @mhebpf), and is not trusted: end \
                 that process first",
                self.holder
            );
        }
        write!(
            f,
            "another mhebpf ({}) is already running in this network namespace: stop it first, or let it enforce on these \
             interfaces as well (--interface may be repeated)",
            self.holder
        )
    }
}

impl std::error::Error for Taken {}

/// Holds the network namespace for this process.
#[derive(Debug)]
pub struct Instance {
    socket: UnixListener,
}

impl Instance {
    /// Claims the namespace of this process.
    ///
    /// # Errors
    ///
    /// [`Taken`] when another daemon has it.
    pub async fn claim() -> Result<Self> {
        let address = SocketAddr::from_abstract_name(NAME).context("naming the socket of this instance")?;
        match UnixListener::bind_addr(&address) {
            Ok(socket) => Ok(Self { socket }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                // One that is gone again can be asked no more.
                let unknown = Taken { holder: "of an unknown process".to_owned(), is_trusted: true };
                Err(holder(&address).await.unwrap_or(unknown).into())
            }
            Err(error) => Err(error).context("claiming this network namespace"),
        }
    }

    /// The socket, to listen for those who want to know how this process is. The namespace is held all the same.
    ///
    /// # Errors
    ///
    /// When no descriptor is left.
    pub fn listener(&self) -> Result<UnixListener> {
        self.socket.try_clone().context("duplicating the socket of this instance")
    }
}

/// Names the process that has the socket. Any user can claim the name, so the user is named as well.
async fn holder(address: &SocketAddr) -> io::Result<Taken> {
    let stream = UnixStream::connect_addr(address)?;
    stream.set_nonblocking(true)?;
    let holder = tokio::net::UnixStream::from_std(stream)?.peer_cred()?;
    let process = holder.pid().map_or_else(|| "process unknown".to_owned(), |pid| format!("process {pid}"));
    // SAFETY: no pointers are involved, and it never fails.
    let own = unsafe { libc::geteuid() };
    let is_trusted = [0, own].contains(&holder.uid());
    Ok(Taken { holder: format!("{process}, user {}", holder.uid()), is_trusted })
}
