//! AF_PACKET sockets: whole frames in and out.

use std::{
    io, mem,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

use crate::{
    PATIENCE,
    frame::{ETHERTYPE_VLAN, Frame},
};

/// Every protocol, frames on their way out included.
pub(crate) const ALL_PROTOCOLS: u16 = libc::ETH_P_ALL as u16;

/// How much of a frame is kept: all headers of interest, with two VLAN tags and IP options.
const SNAP_LENGTH: u32 = 192;

/// Room for the frames of a burst that the reader has not come round to.
const RECEIVE_BUFFER: i32 = 64 << 20;

/// A raw AF_PACKET socket of the calling thread's namespace.
#[derive(Debug)]
pub(crate) struct PacketSocket(Socket);

/// A frame with what the kernel says about it.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) ifindex: u32,
    /// Whether the frame was sent by this namespace rather than received.
    pub(crate) outgoing: bool,
    pub(crate) at: SystemTime,
    /// In bytes on the wire; that of the whole segment where the kernel has not cut it yet (GSO).
    pub(crate) length: usize,
    pub(crate) bytes: Vec<u8>,
}

impl PacketSocket {
    /// A socket that sends and receives nothing.
    pub(crate) fn sender() -> Result<Self> {
        let kind = Type::RAW.cloexec().nonblocking();
        Ok(Self(
            Socket::new(Domain::PACKET, kind, None)
                .context("opening an AF_PACKET socket (this needs root)")?,
        ))
    }

    /// A socket that receives `protocol` on all interfaces except these.
    pub(crate) fn receiver(protocol: u16, except: &[u32]) -> Result<Self> {
        let socket = Self::sender()?;
        socket.set_option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &RECEIVE_BUFFER)?;
        socket.set_option(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1_i32)?;
        socket.set_option(libc::SOL_PACKET, libc::PACKET_AUXDATA, &1_i32)?;
        socket.set_filter(except)?;
        // Only now do frames come: none was taken without the filter and the options.
        socket.0.bind(&link_layer_address(protocol, 0)).context("binding an AF_PACKET socket")?;
        Ok(socket)
    }

    /// Sends a frame through the interface, past routing but not past the traffic control programs.
    pub(crate) fn send(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        let protocol = frame.get(12..14).map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
        let to = link_layer_address(protocol, ifindex);
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.0.send_to(frame, &to) {
                // Frames of this socket are still on their way: there is room when they are through.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                    thread::yield_now();
                }
                result => return result.map(drop),
            }
        }
    }

    /// The next frame, or `None` when there is none yet.
    pub(crate) fn receive(&self) -> io::Result<Option<Received>> {
        let mut bytes = vec![0_u8; SNAP_LENGTH as usize];
        let mut control = [0_u64; 16];
        // SAFETY: sockaddr_ll and msghdr are plain data for which all zeroes are valid.
        let (mut from, mut message) =
            unsafe { (mem::zeroed::<libc::sockaddr_ll>(), mem::zeroed::<libc::msghdr>()) };
        let mut buffer = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        message.msg_name = (&raw mut from).cast();
        message.msg_namelen = size_of::<libc::sockaddr_ll>() as u32;
        message.msg_iov = &raw mut buffer;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: all pointers in the message point to live buffers of the lengths given with them.
        let length = unsafe { libc::recvmsg(self.0.as_raw_fd(), &raw mut message, 0) };
        if length < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                // The interface of some earlier send went down: nothing to do with receiving.
                Some(libc::EAGAIN | libc::ENETDOWN) => Ok(None),
                _ => Err(error),
            };
        }
        bytes.truncate(length as usize);
        let mut received = Received {
            ifindex: from.sll_ifindex.unsigned_abs(),
            outgoing: from.sll_pkttype == libc::PACKET_OUTGOING,
            at: SystemTime::now(),
            length: bytes.len(),
            bytes,
        };
        received.read_control(&message);
        Ok(Some(received))
    }

    /// How many frames the kernel had no room for since the last call.
    pub(crate) fn drops(&self) -> io::Result<u32> {
        let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = size_of_val(&stats) as u32;
        // SAFETY: the buffer and its length belong together.
        let result = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &raw mut length,
            )
        };
        if result == 0 { Ok(stats.tp_drops) } else { Err(io::Error::last_os_error()) }
    }

    fn set_option<T>(&self, level: i32, option: i32, value: &T) -> Result<()> {
        // SAFETY: the kernel reads the value only, whose size goes with it.
        let result = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                level,
                option,
                (&raw const *value).cast(),
                size_of::<T>() as u32,
            )
        };
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error())
                .with_context(|| format!("setting option {option} of an AF_PACKET socket")),
        }
    }

    /// Keeps the first bytes of each frame, and none of some interfaces.
    fn set_filter(&self, except: &[u32]) -> Result<()> {
        const LOAD_WORD: u16 = 0x20;
        const JUMP_IF_EQUAL: u16 = 0x15;
        const RETURN: u16 = 0x06;
        /// `SKF_AD_OFF + SKF_AD_IFINDEX`.
        const IFINDEX: u32 = 0xffff_f000 + 8;
        let step = |code, jt, k| libc::sock_filter { code, jt, jf: 0, k };
        let mut program = vec![step(LOAD_WORD, 0, IFINDEX)];
        for (i, ifindex) in except.iter().enumerate() {
            let past_the_snap = except.len() - i;
            program.push(step(JUMP_IF_EQUAL, u8::try_from(past_the_snap)?, *ifindex));
        }
        program.push(step(RETURN, 0, SNAP_LENGTH));
        program.push(step(RETURN, 0, 0));
        let filter = libc::sock_fprog { len: u16::try_from(program.len())?, filter: program.as_mut_ptr() };
        self.set_option(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Received {
    fn read_control(&mut self, message: &libc::msghdr) {
        // SAFETY: the kernel filled in the control messages of `message`; each is long enough for the type
        // that its level and type name, and is read unaligned.
        unsafe {
            let mut header = libc::CMSG_FIRSTHDR(message);
            while !header.is_null() {
                let data = libc::CMSG_DATA(header);
                match ((*header).cmsg_level, (*header).cmsg_type) {
                    (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                        let time = data.cast::<libc::timespec>().read_unaligned();
                        self.at = UNIX_EPOCH
                            + Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32);
                    }
                    (libc::SOL_PACKET, libc::PACKET_AUXDATA) => {
                        self.read_auxiliary(&data.cast::<libc::tpacket_auxdata>().read_unaligned());
                    }
                    _ => {}
                }
                header = libc::CMSG_NXTHDR(message, header);
            }
        }
    }

    /// Puts a VLAN tag back that the kernel had taken out of the frame.
    fn read_auxiliary(&mut self, auxiliary: &libc::tpacket_auxdata) {
        self.length = auxiliary.tp_len as usize;
        if auxiliary.tp_status & libc::TP_STATUS_VLAN_VALID == 0 || self.bytes.len() < 12 {
            return;
        }
        let has_type = auxiliary.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
        let ethertype = if has_type { auxiliary.tp_vlan_tpid } else { ETHERTYPE_VLAN };
        let tag = [ethertype.to_be_bytes(), auxiliary.tp_vlan_tci.to_be_bytes()].concat();
        self.bytes.splice(12..12, tag);
        self.length += 4;
    }

    pub(crate) fn frame(&self) -> Option<Frame> {
        Frame::parse(&self.bytes)
    }
}

fn link_layer_address(protocol: u16, ifindex: u32) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: the storage is large enough and aligned for every kind of socket address.
    unsafe {
        let address = storage.view_as::<libc::sockaddr_ll>();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol.to_be();
        address.sll_ifindex = ifindex.cast_signed();
        SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as u32)
    }
}

/// Waits until the descriptor can be read, at most `limit`.
pub(crate) fn readable(socket: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let milliseconds = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one pollfd is given, and its descriptor is open.
    match unsafe { libc::poll(&raw mut poll, 1, milliseconds) } {
        -1 => Err(io::Error::last_os_error()),
        ready => Ok(ready > 0),
    }
}
