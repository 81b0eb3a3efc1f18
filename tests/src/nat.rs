//! Address translation, set up by netlink so that no package is needed for it.

use std::{io, net::Ipv4Addr, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    features::{self, Feature},
    netlink::{ACK, APPEND, CREATE, Message, Netlink, REQUEST, attribute, nested},
    netns::NetNs,
    skip::skip,
};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const NEW_CHAIN: u16 = (SUBSYSTEM << 8) | 3;
const NEW_RULE: u16 = (SUBSYSTEM << 8) | 6;
/// `NFPROTO_IPV4`.
const IPV4: u8 = 2;
/// `NF_INET_PRE_ROUTING` and `NF_IP_PRI_NAT_DST`.
const PRE_ROUTING: (u32, i32) = (0, -100);
/// `NF_INET_POST_ROUTING` and `NF_IP_PRI_NAT_SRC`.
const POST_ROUTING: (u32, i32) = (4, 100);

/// Tells whether a test can have rules that `nft` makes; says so if not.
///
/// # Errors
///
/// When the kernel has no nf_tables although it is expected to.
pub fn has_nft() -> Result<bool> {
    match Command::new("nft").arg("--version").output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            skip("nft is not installed");
            Ok(false)
        }
        _ => features::require(Feature::Nftables),
    }
}

/// Lets everything that is forwarded out of `ns` go out with the address of the interface that it leaves by: the same as
/// `nft 'table ip lab { chain post { type nat hook postrouting priority srcnat; masquerade; } }'`.
///
/// # Errors
///
/// When the kernel has no nf_tables or no masquerading.
pub fn masquerade(ns: &NetNs) -> Result<()> {
    let masquerade = nested(1, &[attribute(1, b"masq\0"), nested(2, &[])]);
    add_rule(ns, b"post\0", POST_ROUTING, &[masquerade])
        .context("setting up masquerading (the kernel needs nf_tables with masquerading)")
}

/// Sends TCP connections to a port of any address of `ns` on to another station: the same as
/// `nft 'table ip lab { chain pre { type nat hook prerouting priority dstnat; tcp dport PORT dnat to STATION; } }'`.
///
/// # Errors
///
/// When the kernel has no nf_tables or no NAT.
pub fn publish(ns: &NetNs, port: u16, station: Ipv4Addr) -> Result<()> {
    let number = |n: u32| n.to_be_bytes();
    let expression = |name: &[u8], fields: &[Vec<u8>]| nested(1, &[attribute(1, name), nested(2, fields)]);
    // Register 1 of nf_tables (`NFT_REG_1`) carries what is compared and where to go.
    let register = |kind| attribute(kind, &number(1));
    let compare = |value: &[u8]| {
        let fields = [register(1), attribute(2, &number(0)), nested(3, &[attribute(1, value)])];
        expression(b"cmp\0", &fields)
    };
    let protocol = expression(b"meta\0", &[register(1), attribute(2, &number(16))]);
    let destination_port =
        [register(1), attribute(2, &number(2)), attribute(3, &number(2)), attribute(4, &number(2))];
    let there = [register(1), nested(2, &[attribute(1, &station.octets())])];
    let translate = [attribute(1, &number(1)), attribute(2, &number(2)), register(3), register(4)];
    let expressions = [
        protocol,
        compare(&[6]),
        expression(b"payload\0", &destination_port),
        compare(&port.to_be_bytes()),
        expression(b"immediate\0", &there),
        expression(b"nat\0", &translate),
    ];
    add_rule(ns, b"pre\0", PRE_ROUTING, &expressions)
        .context("publishing a port (the kernel needs nf_tables with NAT)")
}

/// Adds a rule in a chain of its own.
fn add_rule(
    ns: &NetNs,
    chain_name: &[u8],
    (hook, priority): (u32, i32),
    expressions: &[Vec<u8>],
) -> Result<()> {
    let flags = REQUEST | ACK | CREATE;

    let mut table = Message::new(NEW_TABLE, flags, &family(IPV4, 0));
    table.attribute(1, b"lab\0");

    let hook = [attribute(1, &hook.to_be_bytes()), attribute(2, &priority.to_be_bytes())];
    let mut chain = Message::new(NEW_CHAIN, flags, &family(IPV4, 0));
    chain.attribute(1, b"lab\0");
    chain.attribute(3, chain_name);
    chain.nested(4, &hook);
    chain.attribute(7, b"nat\0");

    let mut rule = Message::new(NEW_RULE, flags | APPEND, &family(IPV4, 0));
    rule.attribute(1, b"lab\0");
    rule.attribute(2, chain_name);
    rule.nested(4, expressions);

    let begin = Message::new(BATCH_BEGIN, REQUEST, &family(0, SUBSYSTEM));
    let end = Message::new(BATCH_END, REQUEST, &family(0, SUBSYSTEM));
    ns.run(|| Netlink::open(libc::NETLINK_NETFILTER)?.transact(&[begin, table, chain, rule, end]))
}

/// struct nfgenmsg: family, version, resource id.
fn family(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}
