//! Datagrams whose sender names the interface and the source address itself (IP_PKTINFO).

use std::{
    io, mem,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd as _,
};

use socket2::SockAddr;

/// Sends a datagram out of the interface with this index, with this source address.
///
/// # Errors
///
/// When the kernel refuses: it has no route to `to` through the interface, say.
pub fn send(
    socket: &UdpSocket,
    ifindex: u32,
    source: Ipv4Addr,
    to: SocketAddrV4,
    payload: &[u8],
) -> io::Result<()> {
    let mut payload = payload.to_vec();
    let to = SockAddr::from(to);
    let info = libc::in_pktinfo {
        ipi_ifindex: ifindex.cast_signed(),
        ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    let mut control = [0_u64; 8];
    let mut buffer = libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() };
    // SAFETY: msghdr is plain data for which all zeroes are valid. All pointers in it point to live buffers of the lengths
    // given with them; the control buffer is aligned and larger than the one message in it.
    let sent = unsafe {
        let mut message = mem::zeroed::<libc::msghdr>();
        message.msg_name = to.as_ptr().cast_mut().cast();
        message.msg_namelen = to.len();
        message.msg_iov = &raw mut buffer;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of_val(&info) as u32) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::IPPROTO_IP;
        (*header).cmsg_type = libc::IP_PKTINFO;
        (*header).cmsg_len = libc::CMSG_LEN(size_of_val(&info) as u32) as usize;
        libc::CMSG_DATA(header).cast::<libc::in_pktinfo>().write_unaligned(info);
        libc::sendmsg(socket.as_raw_fd(), &raw const message, 0)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
