//! Masquerading, set up by netlink so that no package is needed for it.

use anyhow::{Context as _, Result};

use crate::{
    netlink::{ACK, APPEND, CREATE, Message, Netlink, REQUEST, attribute, nested},
    netns::NetNs,
};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const NEW_CHAIN: u16 = (SUBSYSTEM << 8) | 3;
const NEW_RULE: u16 = (SUBSYSTEM << 8) | 6;
/// `NFPROTO_IPV4`.
const IPV4: u8 = 2;
/// `NF_INET_POST_ROUTING`.
const POST_ROUTING: u32 = 4;
/// `NF_IP_PRI_NAT_SRC`.
const SOURCE_NAT: u32 = 100;

/// Lets everything that is forwarded out of `ns` go out with the address of the interface that it leaves by: the same as
/// `nft 'table ip lab { chain post { type nat hook postrouting priority srcnat; masquerade; } }'`.
///
/// # Errors
///
/// When the kernel has no nf_tables or no masquerading.
pub fn masquerade(ns: &NetNs) -> Result<()> {
    let flags = REQUEST | ACK | CREATE;

    let mut table = Message::new(NEW_TABLE, flags, &family(IPV4, 0));
    table.attribute(1, b"lab\0");

    let hook = [attribute(1, &POST_ROUTING.to_be_bytes()), attribute(2, &SOURCE_NAT.to_be_bytes())];
    let mut chain = Message::new(NEW_CHAIN, flags, &family(IPV4, 0));
    chain.attribute(1, b"lab\0");
    chain.attribute(3, b"post\0");
    chain.nested(4, &hook);
    chain.attribute(7, b"nat\0");

    let expression = nested(1, &[attribute(1, b"masq\0"), nested(2, &[])]);
    let mut rule = Message::new(NEW_RULE, flags | APPEND, &family(IPV4, 0));
    rule.attribute(1, b"lab\0");
    rule.attribute(2, b"post\0");
    rule.nested(4, &[expression]);

    let begin = Message::new(BATCH_BEGIN, REQUEST, &family(0, SUBSYSTEM));
    let end = Message::new(BATCH_END, REQUEST, &family(0, SUBSYSTEM));
    ns.run(|| Netlink::open(libc::NETLINK_NETFILTER)?.transact(&[begin, table, chain, rule, end]))
        .context("setting up masquerading (the kernel needs nf_tables with masquerading)")
}

/// struct nfgenmsg: family, version, resource id.
fn family(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}
