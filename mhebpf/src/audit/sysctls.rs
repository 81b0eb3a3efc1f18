//! The sysctls of `net.ipv4.conf` that make an end system weaker or stronger.

use std::collections::BTreeMap;

use serde::Serialize;

/// One of `net.ipv4.conf.*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sysctl {
    /// Which ARP requests for local addresses are answered.
    ArpIgnore,
    /// Which sender address an ARP request carries.
    ArpAnnounce,
    /// Only requests from where the route to the sender leads are answered.
    ArpFilter,
    /// Whether a datagram is taken if the route to its source leads elsewhere: 1 no, 2 if there is any route.
    RpFilter,
    /// Whether datagrams with an own source are taken.
    AcceptLocal,
    /// Routes through interfaces without carrier are not used.
    IgnoreRoutesWithLinkdown,
    /// Whether 127.0.0.0/8 may cross the wire.
    RouteLocalnet,
}

impl Sysctl {
    /// All of them, in the order in which they are reported.
    pub const ALL: [Self; 7] = [
        Self::ArpIgnore,
        Self::ArpAnnounce,
        Self::ArpFilter,
        Self::RpFilter,
        Self::AcceptLocal,
        Self::IgnoreRoutesWithLinkdown,
        Self::RouteLocalnet,
    ];

    /// The name in `/proc/sys/net/ipv4/conf`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ArpIgnore => "arp_ignore",
            Self::ArpAnnounce => "arp_announce",
            Self::ArpFilter => "arp_filter",
            Self::RpFilter => "rp_filter",
            Self::AcceptLocal => "accept_local",
            Self::IgnoreRoutesWithLinkdown => "ignore_routes_with_linkdown",
            Self::RouteLocalnet => "route_localnet",
        }
    }

    /// What counts for an interface, by its own value and that of `all`: `IN_DEV_MAXCONF` or `IN_DEV_ORCONF` of
    /// linux/inetdevice.h (Linux 6.18). `ignore_routes_with_linkdown` has been combined since Linux 5.16 only.
    pub const fn effective(self, own: u32, everywhere: u32) -> u32 {
        match self {
            Self::ArpIgnore | Self::ArpAnnounce | Self::RpFilter => {
                if own > everywhere {
                    own
                } else {
                    everywhere
                }
            }
            Self::ArpFilter | Self::AcceptLocal | Self::IgnoreRoutesWithLinkdown | Self::RouteLocalnet => {
                (own != 0 || everywhere != 0) as u32
            }
        }
    }
}

/// The values of an interface, or of `all`; what could not be read is missing.
pub type Values = BTreeMap<Sysctl, u32>;

/// The values of all interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sysctls {
    /// Those of `all`.
    pub everywhere: Values,
    /// By ifindex.
    pub links: BTreeMap<u32, Values>,
}

impl Sysctls {
    /// What counts for an interface. What could not be read counts as 0, the kernel's own default.
    pub fn effective(&self, ifindex: u32, sysctl: Sysctl) -> u32 {
        let own = self.links.get(&ifindex).and_then(|values| values.get(&sysctl));
        let everywhere = self.everywhere.get(&sysctl);
        sysctl.effective(own.copied().unwrap_or(0), everywhere.copied().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_value_is_the_larger_one_or_that_either_is_set() {
        assert_eq!(Sysctl::ArpIgnore.effective(1, 2), 2);
        assert_eq!(Sysctl::RpFilter.effective(2, 1), 2);
        assert_eq!(Sysctl::ArpFilter.effective(0, 5), 1);
        assert_eq!(Sysctl::RouteLocalnet.effective(0, 0), 0);
        let sysctls = Sysctls {
            everywhere: Values::from([(Sysctl::ArpIgnore, 1)]),
            links: BTreeMap::from([(2, Values::from([(Sysctl::ArpIgnore, 8)]))]),
        };
        assert_eq!([2, 3].map(|ifindex| sysctls.effective(ifindex, Sysctl::ArpIgnore)), [8, 1]);
    }
}
