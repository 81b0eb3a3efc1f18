//! One daemon for each network namespace.

use std::{
    ffi::OsStr,
    fmt, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixListener},
        },
    },
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tracing::warn;

use self::place::{Claim, Place};

pub(crate) mod connect;
pub(crate) mod place;

/// An abstract socket: such names belong to a network namespace, and end with the process, however that ends. Anybody can have
/// the name; so it is only how the daemon is found where its directory is not seen, from another mount namespace.
const NAME: &[u8] = b"\0mhebpf";

/// How long who has a socket may take to be named.
const NAMING: Duration = Duration::from_secs(1);

/// The abstract socket as a path.
pub(crate) fn abstract_name() -> &'static Path {
    Path::new(OsStr::from_bytes(NAME))
}

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
    _place: Option<Place>,
    sockets: Vec<UnixListener>,
}

impl Instance {
    /// Claims the namespace of this process.
    ///
    /// # Errors
    ///
    /// [`Taken`] when another daemon has it; when somebody else has its name and there is no directory to hold it by.
    pub async fn claim() -> Result<Self> {
        let (place, mut sockets) = match place::claim()? {
            Claim::Held(place, socket) => (Some(place), vec![socket]),
            Claim::Taken(socket) => return Err(holder(&socket.path(), true).await.into()),
            Claim::Nowhere => (None, Vec::new()),
        };
        let address =
            SocketAddr::from_abstract_name(&NAME[1..]).context("naming the socket of this instance")?;
        match UnixListener::bind_addr(&address) {
            Ok(socket) => sockets.push(socket),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                // One that is gone again can be asked no more.
                let taken = holder(abstract_name(), place.is_none()).await;
                if place.is_none() || taken.is_trusted {
                    return Err(taken.into());
                }
                warn!(
                    "{} holds the name of mhebpf in this network namespace (the abstract socket @mhebpf): a daemon here is not \
                     found by commands in other mount namespaces",
                    taken.holder
                );
            }
            Err(error) => return Err(error).context("claiming this network namespace"),
        }
        Ok(Self { _place: place, sockets })
    }

    /// The sockets, to listen for those who want to know how this process is. The namespace is held all the same.
    ///
    /// # Errors
    ///
    /// When no descriptor is left.
    pub fn listeners(&self) -> Result<Vec<UnixListener>> {
        let duplicated: io::Result<_> = self.sockets.iter().map(UnixListener::try_clone).collect();
        duplicated.context("duplicating the sockets of this instance")
    }
}

/// Names the process that has a socket, and its user.
async fn holder(socket: &Path, if_unknown: bool) -> Taken {
    match connect::connect(socket, NAMING).await {
        Ok((_, peer)) => Taken { holder: connect::name(&peer), is_trusted: connect::is_trusted(peer.uid()) },
        Err(_) => Taken { holder: "an unknown process".to_owned(), is_trusted: if_unknown },
    }
}
