//! Sockets that are bound to an address of the host (sock_diag(7)).

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    io,
    net::{IpAddr, SocketAddr},
};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, TCP_CLOSE, TCP_LISTEN},
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags},
};
use rtnetlink::sys::{Socket as Netlink, SocketAddr as NetlinkAddress, protocols::NETLINK_SOCK_DIAG};

use crate::{
    audit::snapshot::{Socket, Unread, View},
    netlink::RouteLookup,
};

/// The sockets of judged addresses, with the kernel's route to their peers: that of a socket that is bound to an
/// interface (`SO_BINDTODEVICE`) is looked up there.
pub(super) fn read(view: &View<'_>, lookup: &mut RouteLookup) -> (Vec<Socket>, Vec<Unread>) {
    let judged: BTreeSet<IpAddr> = view.judged_addresses().map(|address| address.local).collect();
    let mut routes: HashMap<(IpAddr, IpAddr, u32), Option<u32>> = HashMap::new();
    let (mut sockets, mut unread) = (Vec::new(), Vec::new());
    for (name, protocol) in [("tcp", IPPROTO_TCP), ("udp", IPPROTO_UDP)] {
        for family in [AF_INET, AF_INET6] {
            let found = match dump(family, protocol) {
                Ok(found) => found,
                // The kernel has no IPv6.
                Err(error) if family == AF_INET6 && error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    let why = match error.kind() {
                        io::ErrorKind::NotFound => {
                            format!("the kernel lacks the module {name}_diag: load it")
                        }
                        _ => error.to_string(),
                    };
                    unread.push(Unread { what: format!("{name} sockets"), why });
                    continue;
                }
            };
            for response in found {
                let Some((local, peer, device)) = bound(&response, &judged) else { continue };
                let mut leaves_by = None;
                if let Some(peer) = peer {
                    let key = (local.ip(), peer.ip(), device);
                    leaves_by = match routes.entry(key) {
                        Entry::Occupied(known) => *known.get(),
                        Entry::Vacant(unknown) => {
                            let bound_to = (device != 0).then_some(device);
                            let route = lookup.route(Some(local.ip()), peer.ip(), bound_to).ok();
                            *unknown.insert(route.filter(|route| !route.local).map(|route| route.ifindex))
                        }
                    };
                }
                sockets.push(Socket { protocol: name, local, peer, leaves_by });
            }
        }
    }
    sockets.sort();
    sockets.dedup();
    (sockets, unread)
}

/// Where a socket is bound, to whom it is connected, and the interface that it is bound to or 0; `None` where it is
/// of no interest.
fn bound(
    response: &InetResponse,
    judged: &BTreeSet<IpAddr>,
) -> Option<(SocketAddr, Option<SocketAddr>, u32)> {
    let id = &response.header.socket_id;
    // An IPv6 socket can speak IPv4.
    let (local, remote) = (id.source_address.to_canonical(), id.destination_address.to_canonical());
    if !judged.contains(&local) {
        return None;
    }
    let unconnected = remote.is_unspecified()
        || id.destination_port == 0
        || [TCP_LISTEN, TCP_CLOSE].contains(&response.header.state);
    let peer = (!unconnected).then(|| SocketAddr::new(remote, id.destination_port));
    Some((SocketAddr::new(local, id.source_port), peer, id.interface_id))
}

/// `ENOENT` where the kernel has no such sockets, or can't list them.
fn dump(family: u8, protocol: u8) -> io::Result<Vec<InetResponse>> {
    let socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
    let states = StateFlags::all() - StateFlags::TIME_WAIT;
    let request = InetRequest { family, protocol, extensions: ExtensionFlags::empty(), states, socket_id };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);

    let mut socket = Netlink::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&NetlinkAddress::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let mut responses = Vec::new();
    loop {
        let (answer, _) = socket.recv_from_full()?;
        let mut rest = answer.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(io::Error::other)?;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(responses),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    responses.push(*response);
                }
                _ => {}
            }
            let length = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}
