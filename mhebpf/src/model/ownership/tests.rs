//! One table of hosts, and who owns what on them.

use std::collections::BTreeMap;

use super::{Bindings, of_addresses};
use crate::model::{
    Address, Framing, Host, Link, LinkKind, LocalRoute,
    host::MAIN_DOMAIN,
    stacking::Stacking,
    testing::{address, all_bound, host, ip, link, net, port, stacked},
};

/// Who owns an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// Nobody: it is foreign.
    Foreign,
    /// Every interface.
    HostWide,
    /// These, the preferred ones first.
    Owned(&'static [u32]),
    /// These may use it, though it is not local.
    Allowed(&'static [u32]),
}

use Whose::{Allowed, Foreign, HostWide, Owned};

/// A host, and what is asked of it.
struct Case {
    name: &'static str,
    links: Vec<Link>,
    /// Each an interface and an address with its prefix length.
    addresses: &'static [(u32, &'static str)],
    /// Each a domain, a prefix and an interface.
    local_routes: &'static [(u32, &'static str, u32)],
    /// Each an interface and a prefix.
    allow: &'static [(u32, &'static str)],
    /// Each an interface and a prefix.
    owns: &'static [(u32, &'static str)],
    /// Interfaces whose addresses are everyone's.
    unbound: &'static [u32],
    /// Each a domain, an address, and whose it is there.
    owners: &'static [(u32, &'static str, Whose)],
}

const NONE: Case = Case {
    name: "",
    links: Vec::new(),
    addresses: &[],
    local_routes: &[],
    allow: &[],
    owns: &[],
    unbound: &[],
    owners: &[],
};

/// The index of the loopback device.
const LO: u32 = 1;
/// The index of a VRF device, and so its domain.
const RED: u32 = 90;
/// Another.
const BLUE: u32 = 91;

fn wire(index: u32) -> Link {
    link(index, LinkKind::Wire)
}

fn vrf(index: u32) -> Link {
    link(index, LinkKind::Vrf { table: 1000 + index })
}

/// A tunnel whose packets have this source.
fn tunnel(index: u32, outer: &str) -> Link {
    Link { outer: Some(ip(outer)), framing: Framing::Bare, mac: None, ..link(index, LinkKind::Tunnel) }
}

fn cases() -> Vec<Case> {
    let lo = || link(LO, LinkKind::Loopback);
    vec![
        Case {
            name: "an address is owned by the interface that has it",
            links: vec![lo(), wire(2), wire(3)],
            addresses: &[(2, "10.0.0.2/24"), (3, "2001:db8::3/64")],
            owners: &[
                (0, "10.0.0.2", Owned(&[2])),
                (0, "2001:db8::3", Owned(&[3])),
                (0, "10.0.0.3", Foreign),
                (0, "10.0.0.255", Foreign),
            ],
            ..NONE
        },
        Case {
            name: "the same address on two interfaces has two owners",
            links: vec![wire(2), wire(3), wire(4)],
            addresses: &[(3, "10.0.0.1/24"), (2, "10.0.0.1/24")],
            owners: &[(0, "10.0.0.1", Owned(&[2, 3]))],
            ..NONE
        },
        Case {
            name: "the same link-local address may be on many",
            links: vec![wire(2), wire(3)],
            addresses: &[(2, "fe80::1/64"), (3, "fe80::1/64"), (3, "fe80::3/64")],
            owners: &[(0, "fe80::1", Owned(&[2, 3])), (0, "fe80::3", Owned(&[3]))],
            ..NONE
        },
        Case {
            name: "secondary, /32 and /128 addresses are addresses like others",
            links: vec![wire(2)],
            addresses: &[(2, "10.0.0.1/24"), (2, "10.0.0.2/24"), (2, "10.9.9.9/32"), (2, "2001:db8::9/128")],
            owners: &[
                (0, "10.0.0.2", Owned(&[2])),
                (0, "10.9.9.9", Owned(&[2])),
                (0, "2001:db8::9", Owned(&[2])),
            ],
            ..NONE
        },
        Case {
            name: "packets of an ipvlan, and of what nobody knows, cross their lower device as they are",
            links: vec![wire(2), Link { kind: LinkKind::Other, ..stacked(10, 2) }, stacked(11, 10)],
            addresses: &[(10, "10.0.10.1/24"), (11, "2001:db8:11::1/64"), (2, "10.0.0.1/24")],
            owners: &[
                (0, "10.0.10.1", Owned(&[10, 2])),
                (0, "2001:db8:11::1", Owned(&[11, 10, 2])),
                (0, "10.0.0.1", Owned(&[2])),
            ],
            ..NONE
        },
        Case {
            name: "a macvlan whose lower device is in another namespace is stacked on nothing here",
            links: vec![wire(2), Link { link: None, link_elsewhere: true, ..stacked(10, 2) }],
            addresses: &[(10, "10.0.10.1/24")],
            owners: &[(0, "10.0.10.1", Owned(&[10]))],
            ..NONE
        },
        Case {
            name: "the peer of a veth is not below it",
            links: vec![
                Link { link: Some(3), ..link(2, LinkKind::Other) },
                Link { link: Some(2), ..link(3, LinkKind::Other) },
            ],
            addresses: &[(2, "10.0.0.1/24")],
            owners: &[(0, "10.0.0.1", Owned(&[2]))],
            ..NONE
        },
        Case {
            name: "a container's veth, whose peer is elsewhere, is stacked on nothing",
            links: vec![wire(2), Link { link_elsewhere: true, ..link(3, LinkKind::Other) }],
            addresses: &[(3, "169.254.1.1/32")],
            owners: &[(0, "169.254.1.1", Owned(&[3]))],
            ..NONE
        },
        Case {
            name: "a tunnel's packets are others on the lower device",
            links: vec![wire(2), Link { link: Some(2), ..link(3, LinkKind::Tunnel) }],
            addresses: &[(3, "10.200.0.1/24")],
            owners: &[(0, "10.200.0.1", Owned(&[3]))],
            ..NONE
        },
        Case {
            name: "the ports of a bridge, bond or team own its addresses, and it not theirs",
            links: vec![port(2, 9), port(3, 9), link(9, LinkKind::Bond)],
            addresses: &[(9, "10.0.0.9/24"), (2, "10.0.0.2/24")],
            owners: &[(0, "10.0.0.9", Owned(&[9, 2, 3])), (0, "10.0.0.2", Owned(&[2]))],
            ..NONE
        },
        Case {
            name: "a VLAN on a bond is owned down to the ports",
            links: vec![port(2, 9), port(3, 9), link(9, LinkKind::Bond), stacked(10, 9)],
            addresses: &[(10, "10.0.0.1/24")],
            owners: &[(0, "10.0.0.1", Owned(&[10, 9, 2, 3]))],
            ..NONE
        },
        Case {
            name: "a circle of devices ends",
            links: vec![stacked(2, 3), stacked(3, 2)],
            addresses: &[(2, "10.0.0.1/24")],
            owners: &[(0, "10.0.0.1", Owned(&[2, 3]))],
            ..NONE
        },
        Case {
            name: "addresses on loopback and dummies are host-wide",
            links: vec![lo(), wire(2), link(5, LinkKind::Dummy)],
            addresses: &[(LO, "203.0.113.1/32"), (5, "10.96.0.1/32"), (5, "fd00::1/128"), (2, "10.0.0.2/24")],
            owners: &[
                (0, "203.0.113.1", HostWide),
                (0, "10.96.0.1", HostWide),
                (0, "fd00::1", HostWide),
                (0, "10.0.0.2", Owned(&[2])),
            ],
            ..NONE
        },
        Case {
            name: "an address on loopback and on an interface is host-wide",
            links: vec![lo(), wire(2), wire(3)],
            addresses: &[(LO, "203.0.113.1/32"), (2, "203.0.113.1/32")],
            owners: &[(0, "203.0.113.1", HostWide)],
            ..NONE
        },
        Case {
            name: "the ports of a VRF own its addresses, it comes last, and others don't know them",
            links: vec![port(2, RED), port(3, RED), wire(4), vrf(RED)],
            addresses: &[(RED, "10.0.0.9/24"), (2, "10.0.0.2/24"), (4, "10.0.0.4/24")],
            owners: &[
                (RED, "10.0.0.9", Owned(&[2, 3, RED])),
                (RED, "10.0.0.2", Owned(&[2])),
                (RED, "10.0.0.4", Foreign),
                (MAIN_DOMAIN, "10.0.0.9", Foreign),
                (MAIN_DOMAIN, "10.0.0.2", Foreign),
                (MAIN_DOMAIN, "10.0.0.4", Owned(&[4])),
            ],
            ..NONE
        },
        Case {
            name: "the same address in two VRFs has an owner in each",
            links: vec![port(2, RED), port(3, BLUE), wire(4), vrf(RED), vrf(BLUE)],
            addresses: &[(2, "10.0.0.1/24"), (3, "10.0.0.1/24"), (4, "10.0.0.1/24")],
            owners: &[
                (RED, "10.0.0.1", Owned(&[2])),
                (BLUE, "10.0.0.1", Owned(&[3])),
                (MAIN_DOMAIN, "10.0.0.1", Owned(&[4])),
            ],
            ..NONE
        },
        Case {
            name: "an ipvlan in a VRF is known on its lower device outside it",
            links: vec![wire(2), Link { master: Some(RED), ..stacked(10, 2) }, vrf(RED)],
            addresses: &[(10, "10.0.0.1/24")],
            owners: &[(RED, "10.0.0.1", Owned(&[10])), (MAIN_DOMAIN, "10.0.0.1", Owned(&[2]))],
            ..NONE
        },
        Case {
            name: "a dummy in a VRF is host-wide there only",
            links: vec![port(2, RED), Link { master: Some(RED), ..link(5, LinkKind::Dummy) }, vrf(RED)],
            addresses: &[(5, "10.9.9.9/32")],
            owners: &[(RED, "10.9.9.9", HostWide), (MAIN_DOMAIN, "10.9.9.9", Foreign)],
            ..NONE
        },
        Case {
            name: "local routes through loopback are host-wide (AnyIP)",
            links: vec![lo(), wire(2)],
            local_routes: &[(0, "10.5.0.0/16", LO), (0, "2001:db8:5::/48", LO), (0, "10.7.7.7/32", LO)],
            owners: &[
                (0, "10.5.1.2", HostWide),
                (0, "2001:db8:5::77", HostWide),
                (0, "10.7.7.7", HostWide),
                (0, "10.7.7.8", Foreign),
            ],
            ..NONE
        },
        Case {
            name: "local routes through an interface are owned by it and what is below (VIP routes)",
            links: vec![wire(2), wire(3), stacked(10, 3)],
            local_routes: &[(0, "10.5.0.0/16", 2), (0, "10.5.5.5/32", 10), (0, "2001:db8::/64", 10)],
            owners: &[
                (0, "10.5.1.2", Owned(&[2])),
                (0, "10.5.5.5", Owned(&[2, 10, 3])),
                (0, "2001:db8::1", Owned(&[10, 3])),
            ],
            ..NONE
        },
        Case {
            name: "an address is owned as every prefix around it says",
            links: vec![lo(), wire(2), wire(3)],
            addresses: &[(2, "10.5.0.2/24"), (2, "10.6.0.2/24")],
            local_routes: &[(0, "10.5.0.0/16", 3), (0, "10.6.0.0/16", LO)],
            owners: &[
                (0, "10.5.0.2", Owned(&[2, 3])),
                (0, "10.6.0.2", HostWide),
                (0, "10.5.0.3", Owned(&[3])),
            ],
            ..NONE
        },
        Case {
            name: "a local route in a VRF's table counts there",
            links: vec![lo(), port(2, RED), wire(3), vrf(RED)],
            local_routes: &[(RED, "10.5.0.0/16", RED), (RED, "10.6.0.0/16", LO)],
            owners: &[
                (RED, "10.5.0.1", Owned(&[2, RED])),
                (RED, "10.6.0.1", HostWide),
                (MAIN_DOMAIN, "10.5.0.1", Foreign),
                (MAIN_DOMAIN, "10.6.0.1", Foreign),
            ],
            ..NONE
        },
        Case {
            name: "an interface is an owner of what the configuration allows it",
            links: vec![lo(), wire(2), wire(3), wire(4)],
            addresses: &[(2, "10.0.0.2/24"), (LO, "10.0.0.9/32")],
            allow: &[(3, "10.0.0.0/24"), (4, "10.0.0.2/32")],
            owners: &[
                (0, "10.0.0.2", Owned(&[2, 3, 4])),
                (0, "10.0.0.9", HostWide),
                (0, "10.0.0.3", Allowed(&[3])),
                (0, "10.0.1.3", Foreign),
            ],
            ..NONE
        },
        Case {
            name: "a lower device is no owner of what is in a VLAN on it, nor of what has a macvlan's hardware address",
            links: vec![
                wire(2),
                Link { kind: LinkKind::Vlan { id: 5 }, ..stacked(10, 2) },
                Link { kind: LinkKind::Macvlan, ..stacked(11, 2) },
                Link { kind: LinkKind::Vlan { id: 0 }, ..stacked(12, 2) },
            ],
            addresses: &[(10, "10.0.10.1/24"), (11, "10.0.11.1/24"), (12, "10.0.12.1/24")],
            owners: &[
                (0, "10.0.10.1", Owned(&[10])),
                (0, "10.0.11.1", Owned(&[11])),
                (0, "10.0.12.1", Owned(&[12, 2])),
            ],
            ..NONE
        },
        Case {
            name: "what is on devices that are not bound is everyone's, but for link-local addresses",
            links: vec![wire(2), link(3, LinkKind::Bridge), port(4, RED), vrf(RED)],
            addresses: &[(3, "172.17.0.1/16"), (3, "fe80::3/64"), (4, "10.0.0.4/24"), (RED, "10.0.0.9/32")],
            local_routes: &[(0, "10.5.0.0/16", 3)],
            unbound: &[3, 4],
            owners: &[
                (0, "172.17.0.1", HostWide),
                (0, "fe80::3", Owned(&[3])),
                (0, "10.5.0.1", HostWide),
                (RED, "10.0.0.4", HostWide),
                (0, "10.0.0.4", Foreign),
                (RED, "10.0.0.9", Owned(&[4, RED])),
            ],
            ..NONE
        },
        Case {
            name: "what the packets of a tunnel have outside is everyone's, though the tunnel has it, unless another interface does",
            links: vec![wire(2), tunnel(3, "10.0.3.1"), tunnel(4, "10.0.2.2"), tunnel(5, "fe80::5")],
            addresses: &[
                (2, "10.0.2.2/24"),
                (3, "10.0.3.1/32"),
                (3, "10.8.0.3/24"),
                (4, "10.0.2.2/32"),
                (5, "10.0.3.2/32"),
                (5, "fe80::5/64"),
            ],
            owners: &[
                (0, "10.0.3.1", HostWide),
                (0, "10.8.0.3", Owned(&[3])),
                (0, "10.0.2.2", Owned(&[2, 4])),
                (0, "10.0.3.2", Owned(&[5])),
                (0, "fe80::5", HostWide),
            ],
            ..NONE
        },
        Case {
            name: "what a bound interface has too is not everyone's, and a macvlan that is not bound is of its link",
            links: vec![
                wire(2),
                wire(3),
                link(4, LinkKind::Bridge),
                Link { kind: LinkKind::Macvlan, ..stacked(5, 2) },
                Link { kind: LinkKind::Macvlan, ..stacked(6, 4) },
                Link { link: None, link_elsewhere: true, ..link(7, LinkKind::Macvlan) },
                Link { link: None, link_elsewhere: true, ..link(8, LinkKind::Macvlan) },
            ],
            addresses: &[
                (2, "10.0.0.2/24"),
                (4, "10.0.0.2/32"),
                (5, "10.0.0.223/32"),
                (6, "172.17.0.9/32"),
                (7, "10.1.20.201/24"),
                (8, "10.1.20.100/32"),
                (8, "10.1.21.100/32"),
            ],
            unbound: &[4, 5, 6, 8],
            owners: &[
                (0, "10.0.0.2", Owned(&[2, 4])),
                (0, "10.0.0.223", Owned(&[2, 5])),
                (0, "172.17.0.9", HostWide),
                (0, "10.1.20.100", Owned(&[7, 8])),
                (0, "10.1.21.100", HostWide),
            ],
            ..NONE
        },
        Case {
            name: "an interface owns what the configuration says that it does, and what is below owns it too",
            links: vec![wire(2), wire(3), stacked(10, 3)],
            addresses: &[(2, "10.0.0.2/24")],
            owns: &[(10, "10.0.0.0/24"), (3, "2001:db8::/64")],
            allow: &[(2, "10.0.0.7/32")],
            owners: &[
                (0, "10.0.0.2", Owned(&[2, 10, 3])),
                (0, "10.0.0.9", Owned(&[10, 3])),
                (0, "10.0.0.7", Owned(&[10, 3, 2])),
                (0, "2001:db8::1", Owned(&[3])),
                (0, "10.0.1.1", Foreign),
            ],
            ..NONE
        },
        Case {
            name: "what is allowed around a local route is an owner of it, and makes nothing else local",
            links: vec![wire(2), wire(3), wire(4)],
            local_routes: &[(0, "10.5.0.0/16", 2)],
            allow: &[(3, "10.5.5.0/24"), (4, "0.0.0.0/0")],
            owners: &[
                (0, "10.5.5.1", Owned(&[2, 3, 4])),
                (0, "10.5.6.1", Owned(&[2, 4])),
                (0, "10.6.0.1", Allowed(&[4])),
                (0, "2001:db8::1", Foreign),
            ],
            ..NONE
        },
    ]
}

fn build(case: &Case) -> Host {
    let addresses: Vec<Address> =
        case.addresses.iter().map(|(ifindex, text)| address(*ifindex, text)).collect();
    let local_routes = case.local_routes.iter().map(|(domain, prefix, ifindex)| LocalRoute {
        domain: *domain,
        prefix: net(prefix),
        ifindex: *ifindex,
    });
    Host { local_routes: local_routes.collect(), ..host(case.links.iter().cloned(), addresses) }
}

#[test]
fn each_address_belongs_to_those_whom_the_table_names() {
    for case in cases() {
        let mut allowed: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for (ifindex, prefix) in case.allow {
            allowed.entry(*ifindex).or_default().push(net(prefix));
        }
        let host = build(&case);
        let mut owned: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for (ifindex, prefix) in case.owns {
            owned.entry(*ifindex).or_default().push(net(prefix));
        }
        let mut bindings = Bindings { allowed, owned, ..all_bound(&host) };
        bindings.bound.retain(|ifindex| !case.unbound.contains(ifindex));
        let ownerships = of_addresses(&Stacking::of(&host), &bindings);
        for (domain, address, expected) in case.owners {
            let found = ownerships.of_address(*domain, ip(address)).cloned().unwrap_or_default();
            let whose = match expected {
                _ if found.host_wide => HostWide,
                Owned(owners) if !found.allowed_only && found.owners == *owners => *expected,
                Allowed(owners) if found.allowed_only && found.owners == *owners => *expected,
                Foreign if found.owners.is_empty() => Foreign,
                _ => panic!("{}: {address} in {domain}: {found:?} instead of {expected:?}", case.name),
            };
            assert_eq!(whose, *expected, "{}: {address} in {domain}", case.name);
        }
    }
}
