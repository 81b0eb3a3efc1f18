//! A pinned link.

use std::{
    ffi::CString,
    fmt, fs, io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use crate::{
    datapath::links_on,
    trusted::{Directory, Entry},
};

/// `BPF_OBJ_PIN` of linux/bpf.h.
const BPF_OBJ_PIN: libc::c_long = 6;
/// `BPF_OBJ_GET` of linux/bpf.h.
const BPF_OBJ_GET: libc::c_long = 7;

/// The beginning of `union bpf_attr` for `BPF_OBJ_PIN` and `BPF_OBJ_GET`. The path is that of a string that ends with NUL.
#[repr(C)]
struct ObjectPath {
    path: u64,
    descriptor: u32,
    flags: u32,
}

/// Which of the two programs it is, in the order in which they are taken off: the receive filter is never on without the
/// egress program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The one for packets that arrive.
    Ingress,
    /// The one for packets that leave.
    Egress,
}

/// The pin of a link.
///
/// The kernel's description of a link says the interface only as long as there is one, so the name says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// The interface.
    pub ifindex: u32,
    /// Which program it is.
    pub side: Side,
    place: Entry,
}

impl Pinned {
    /// Where the link is pinned, or will be.
    pub fn new(directory: &Directory, ifindex: u32, side: Side) -> Self {
        Self { ifindex, side, place: directory.entry(&format!("{ifindex}-{side}")) }
    }

    /// Understands the name of a pin; `None` where it is something else.
    pub(super) fn read(directory: &Directory, name: &str) -> Option<Self> {
        let (ifindex, side) = name.split_once('-')?;
        let side = match side {
            "ingress" => Side::Ingress,
            "egress" => Side::Egress,
            _ => return None,
        };
        Some(Self::new(directory, ifindex.parse().ok()?, side))
    }

    /// Where it is.
    pub fn place(&self) -> &Entry {
        &self.place
    }

    /// Pins a link there.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn pin(&self, link: &OwnedFd) -> io::Result<()> {
        let path = CString::new(self.place.through().as_os_str().as_bytes())?;
        let descriptor = link.as_raw_fd().cast_unsigned();
        object(BPF_OBJ_PIN, &mut ObjectPath { path: path.as_ptr() as u64, descriptor, flags: 0 }).map(drop)
    }

    /// Whether the program is on its interface still, in whatever network namespace that is. A link outlives an interface that
    /// is deleted, and does nothing then.
    ///
    /// # Errors
    ///
    /// When there is no such pin, or it can't be opened.
    pub fn is_alive(&self) -> io::Result<bool> {
        Ok(Description::read(&open(&self.place.through())?)?.ifindex == Some(self.ifindex))
    }

    /// Whether the program is on the interface of this network namespace that has the index. An interface keeps its index when
    /// it is moved to another namespace, and another one can have it here then.
    ///
    /// # Errors
    ///
    /// When there is no such pin, or it can't be opened.
    pub fn is_in_force(&self) -> io::Result<bool> {
        let link = Description::read(&open(&self.place.through())?)?;
        Ok(match links_on(self.ifindex, self.side) {
            Ok(links) => link.id.is_some_and(|id| links.contains(&id)),
            // Who may open a pin need not be allowed to ask what is on an interface.
            Err(_) => link.ifindex == Some(self.ifindex),
        })
    }

    /// By which the kernel lists the link.
    ///
    /// # Errors
    ///
    /// When there is no such pin, or it can't be opened.
    pub fn id(&self) -> io::Result<Option<u32>> {
        Ok(Description::read(&open(&self.place.through())?)?.id)
    }

    /// Takes the program off its interface, unless others hold the link too.
    ///
    /// # Errors
    ///
    /// When the pin can't be removed.
    pub fn remove(&self) -> io::Result<()> {
        // Held until the pin is gone: the last one that closes a link waits until it has ended, and a pin does not
        // (`bpf_link_put_direct`, Linux 6.18).
        let link = open(&self.place.through());
        self.place.remove()?;
        drop(link);
        Ok(())
    }
}

/// What the kernel says of a link.
struct Description {
    id: Option<u32>,
    /// 0 when there is no interface any more.
    ifindex: Option<u32>,
}

impl Description {
    /// `bpf_link_show_fdinfo` (Linux 5.8), `tcx_link_fdinfo` (Linux 6.6).
    fn read(link: &OwnedFd) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", link.as_raw_fd()))?;
        let number = |name| {
            let value = text.lines().find_map(|line| line.strip_prefix(name))?;
            value.trim().parse().ok()
        };
        Ok(Self { id: number("link_id:"), ifindex: number("ifindex:") })
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let opened =
        object(BPF_OBJ_GET, &mut ObjectPath { path: path.as_ptr() as u64, descriptor: 0, flags: 0 })?;
    // SAFETY: on success the command returns a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(opened) })
}

fn object(command: libc::c_long, attributes: &mut ObjectPath) -> io::Result<i32> {
    let size = size_of::<ObjectPath>();
    // SAFETY: the attributes are as `union bpf_attr` begins for these commands, and their size goes with them; the path ends
    // with NUL and lives as long as the callers'.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// By which the kernel lists a link.
pub fn id_of_link(link: &OwnedFd) -> Option<u32> {
    Description::read(link).ok()?.id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_are_not_ours() {
        let directory = Directory::open(Path::new("/")).expect("root's own");
        for side in [Side::Ingress, Side::Egress] {
            let pinned = Pinned::new(&directory, 17, side);
            let path = pinned.place().path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            assert_eq!(Pinned::read(&directory, name), Some(pinned.clone()), "{name}");
        }
        for other in ["maps-1-3", "17", "17-both", "-egress", "x-egress", "progs"] {
            assert_eq!(Pinned::read(&directory, other), None, "{other}");
        }
    }
}
