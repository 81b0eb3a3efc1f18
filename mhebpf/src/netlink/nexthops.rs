//! Nexthop objects (`ip nexthop`), for routes that only name one: `net.ipv4.nexthop_compat_mode` is off.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use rtnetlink::sys::protocols::NETLINK_ROUTE;
use tracing::warn;

use super::raw::{ask, attributes, number};
use crate::model::Hop;

/// `RTM_GETNEXTHOP` of `linux/rtnetlink.h`, Linux 5.3 on.
const RTM_GETNEXTHOP: u16 = 106;
/// The length of `struct nhmsg`.
const NHMSG: usize = 8;

/// `RTNH_F_DEAD`
const DEAD: u32 = 1;
/// `RTNH_F_LINKDOWN`
const LINKDOWN: u32 = 16;

/// Attributes of `linux/nexthop.h`.
mod attribute {
    pub(super) const ID: u16 = 1;
    pub(super) const GROUP: u16 = 2;
    pub(super) const BLACKHOLE: u16 = 4;
    pub(super) const OIF: u16 = 5;
    pub(super) const GATEWAY: u16 = 6;
    pub(super) const ENCAP: u16 = 8;
    pub(super) const FDB: u16 = 11;
}

/// The nexthop objects of this network namespace, as far as routes need them.
#[derive(Clone, Debug, Default)]
pub(super) struct Nexthops {
    objects: HashMap<u32, Object>,
    /// Some routes say no more than the number of an object.
    pub(super) are_needed: bool,
    /// They have changed since they were read, and are read again when the next one is needed.
    pub(super) are_stale: bool,
}

/// A nexthop object.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Object {
    /// One next hop, if a plain neighbour describes it and packets go there; whether it has carrier.
    Single(Option<Hop>, bool),
    /// The numbers and weights of others.
    Group(Vec<(u32, u16)>),
}

impl Nexthops {
    /// Reads them all.
    ///
    /// # Errors
    ///
    /// When the kernel refuses. One that has no such objects has no routes that name them.
    pub(super) fn read(&mut self) -> io::Result<()> {
        let messages = ask(NETLINK_ROUTE, RTM_GETNEXTHOP, true, &[0; NHMSG])?;
        self.objects = messages.iter().filter_map(|message| object(message)).collect();
        self.are_stale = false;
        Ok(())
    }

    /// The same for a kernel that may know no such objects (before Linux 5.3).
    ///
    /// # Errors
    ///
    /// When the kernel refuses for another reason.
    pub(super) fn read_if_there_are(&mut self) -> io::Result<()> {
        match self.read() {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
            read => read,
        }
    }

    /// Adds the next hops of an object that the kernel uses: those without carrier only where there is no other. Notes that
    /// objects are needed.
    pub(super) fn resolve(&mut self, id: u32, hops: &mut Vec<Hop>) {
        self.are_needed = true;
        if self.are_stale
            && let Err(error) = self.read_if_there_are()
        {
            warn!("reading the nexthop objects of the host: {error}");
        }
        let members = match self.objects.get(&id) {
            Some(Object::Single(..)) => vec![(id, 1)],
            Some(Object::Group(members)) => members.clone(),
            None => return,
        };
        let found = members.iter().filter_map(|(member, weight)| match self.objects.get(member)? {
            Object::Single(Some(hop), up) => Some((Hop { weight: *weight, ..*hop }, *up)),
            _ => None,
        });
        let found: Vec<(Hop, bool)> = found.collect();
        let any_up = found.iter().any(|(_, up)| *up);
        hops.extend(found.into_iter().filter(|(_, up)| *up || !any_up).map(|(hop, _)| hop));
    }
}

/// Reads a message of the kind `RTM_NEWNEXTHOP`: the number of an object, and what it is.
fn object(message: &[u8]) -> Option<(u32, Object)> {
    let flags = u32::from_ne_bytes(number(message.get(4..)?)?);
    let (mut id, mut hop, mut is_plain) = (None, Hop::new(0, None), true);
    let mut group = None;
    for (kind, value) in attributes(message.get(NHMSG..)?) {
        match kind {
            attribute::ID => id = number(value).map(u32::from_ne_bytes),
            attribute::OIF => hop.ifindex = u32::from_ne_bytes(number(value)?),
            attribute::GATEWAY => hop.gateway = address(value),
            attribute::GROUP => group = Some(value.chunks_exact(8).filter_map(member).collect()),
            attribute::BLACKHOLE | attribute::ENCAP | attribute::FDB => is_plain = false,
            _ => {}
        }
    }
    let is_used = is_plain && hop.ifindex != 0 && flags & DEAD == 0;
    let single = || Object::Single(is_used.then_some(hop), flags & LINKDOWN == 0);
    Some((id?, group.map_or_else(single, Object::Group)))
}

/// `struct nexthop_grp`: a number, and one less than the weight, in two bytes that are not side by side.
fn member(bytes: &[u8]) -> Option<(u32, u16)> {
    let id = u32::from_ne_bytes(number(bytes)?);
    let [low, high] = number(bytes.get(4..)?)?;
    Some((id, u16::from_le_bytes([low, high]).saturating_add(1)))
}

fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(Ipv4Addr::from(number::<4>(value)?).into()),
        16 => Some(Ipv6Addr::from(number::<16>(value)?).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::testing::ip, netlink::raw::encoded};

    fn message(flags: u32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0];
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(attributes.iter().flat_map(|(kind, value)| encoded(*kind, value)));
        bytes
    }

    fn single(id: u32, last: u8, flags: u32) -> Vec<u8> {
        message(flags, &[(1, &id.to_ne_bytes()), (5, &7_u32.to_ne_bytes()), (6, &[10, 0, 0, last])])
    }

    fn resolved(messages: &[Vec<u8>], id: u32) -> Vec<(Option<IpAddr>, u16)> {
        let objects = messages.iter().filter_map(|message| object(message)).collect();
        let mut nexthops = Nexthops { objects, ..Nexthops::default() };
        let mut hops = Vec::new();
        nexthops.resolve(id, &mut hops);
        assert!(nexthops.are_needed);
        hops.into_iter().map(|hop| (hop.gateway, hop.weight)).collect()
    }

    #[test]
    fn a_group_has_the_hops_of_its_members_with_their_weights() {
        let group: Vec<u8> = [(1_u32, 2_u8), (2, 0), (3, 0), (4, 0)]
            .iter()
            .flat_map(|(id, weight)| [&id.to_ne_bytes()[..], &[*weight, 0, 0, 0]].concat())
            .collect();
        let group = message(0, &[(1, &9_u32.to_ne_bytes()), (2, &group)]);
        let blackhole = message(0, &[(1, &4_u32.to_ne_bytes()), (4, &[])]);
        let messages = [single(1, 1, 0), single(2, 2, DEAD), single(3, 3, 0), blackhole, group];
        let hop = |last, weight| (Some(ip(&format!("10.0.0.{last}"))), weight);
        assert_eq!(resolved(&messages, 9), [hop(1, 3), hop(3, 1)]);
        assert_eq!(resolved(&messages, 3), [hop(3, 1)]);
        assert_eq!(resolved(&messages, 4), []);
        assert_eq!(resolved(&messages, 8), []);
    }

    #[test]
    fn what_has_no_carrier_is_used_only_where_nothing_has() {
        let group = [[1, 0, 0, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0, 0, 0]].concat();
        let group = message(0, &[(1, &9_u32.to_ne_bytes()), (2, &group)]);
        let of = |flags| {
            let messages = [single(1, 1, LINKDOWN), single(2, 2, flags), group.clone()];
            resolved(&messages, 9).len()
        };
        assert_eq!((of(0), of(LINKDOWN)), (1, 2));
    }
}
