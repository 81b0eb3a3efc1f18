//! What the kernel says about an interface of the calling thread's namespace.

use std::{ffi::CString, io, mem};

use anyhow::{Context as _, Result};
use socket2::{Domain, Socket, Type};
use std::os::fd::AsRawFd as _;

/// The index of an interface.
///
/// # Errors
///
/// When there is none of this name.
pub fn index(name: &str) -> Result<u32> {
    let c_name = CString::new(name)?;
    // SAFETY: the name ends with a zero byte.
    match unsafe { libc::if_nametoindex(c_name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()).with_context(|| format!("looking up the interface {name}")),
        index => Ok(index),
    }
}

/// Whether an interface is administratively up; `false` when there is none of this name.
///
/// # Errors
///
/// When no socket can be had to ask with.
pub fn is_up(name: &str) -> Result<bool> {
    Ok(flags(name)? & libc::IFF_UP != 0)
}

/// Whether an interface is up and has carrier; `false` when there is none of this name.
///
/// # Errors
///
/// When no socket can be had to ask with.
pub fn is_running(name: &str) -> Result<bool> {
    Ok(flags(name)? & libc::IFF_RUNNING != 0)
}

fn flags(name: &str) -> Result<i32> {
    let (socket, mut request) = request(name)?;
    // SAFETY: SIOCGIFFLAGS takes and fills in an ifreq.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) } {
        // SAFETY: the kernel has filled in the flags.
        0 => Ok(i32::from(unsafe { request.ifr_ifru.ifru_flags })),
        _ => Ok(0),
    }
}

/// Whether the kernel leaves it to an interface to cut TCP segments (ethtool's `tso`).
///
/// # Errors
///
/// When there is none of this name, or it cannot be told.
pub fn set_segmentation_offload(name: &str, on: bool) -> Result<()> {
    /// `ETHTOOL_STSO`.
    const SET_TSO: u32 = 0x1f;
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    let (socket, mut request) = request(name)?;
    // struct ethtool_value: the command and its argument.
    let mut value = [SET_TSO, u32::from(on)];
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: SIOCETHTOOL takes an ifreq that points to the command, of which the kernel reads these eight bytes.
    match unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()).with_context(|| format!("setting TSO of {name}")),
    }
}

/// A socket to ask with, and a request for an interface of this name.
fn request(name: &str) -> Result<(Socket, libc::ifreq)> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    // SAFETY: ifreq is plain data for which all zeroes are valid.
    let mut request = unsafe { mem::zeroed::<libc::ifreq>() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from.cast_signed();
    }
    Ok((socket, request))
}
