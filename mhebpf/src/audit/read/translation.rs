//! Where addresses are translated: chains of nftables and tables of iptables for NAT, and services of IPVS.

use std::{fs, io};

use super::{
    ipvs,
    published::{self, ALL_FAMILIES, Chain},
};
use crate::{
    audit::snapshot::{Translation, Unread},
    netlink::raw::{self, NETFILTER, ask, attribute, number},
};

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN`
const GET_CHAINS: u16 = 10 << 8 | 4;
/// `NFTA_CHAIN_TABLE`, `NFTA_CHAIN_NAME`, `NFTA_CHAIN_HOOK`, `NFTA_HOOK_HOOKNUM`, `NFTA_CHAIN_USE` and `NFTA_CHAIN_TYPE` of
/// linux/netfilter/nf_tables.h.
const TABLE: u16 = 1;
const NAME: u16 = 3;
const HOOK: u16 = 4;
const HOOK_NUMBER: u16 = 1;
const USE: u16 = 6;
const TYPE: u16 = 7;

/// Reads what can be read; `matters` says whether it is worth a word where it can't.
pub(super) fn read(matters: bool, unread: &mut Vec<Unread>) -> Translation {
    let mut found = Translation::default();
    let mut miss = |what: &str, why: String| {
        if matters {
            unread.push(Unread { what: what.to_owned(), why });
        }
    };
    let mut beginnings = Vec::new();
    match ask(NETFILTER, GET_CHAINS, true, &ALL_FAMILIES) {
        Ok(chains) => beginnings.extend(chains.iter().filter_map(|chain| add_chain(&mut found, chain))),
        // The kernel has no nftables, or the module is not loaded.
        Err(error) if is_absent(&error) => {}
        Err(error) => miss("chains of nftables for NAT", why(&error)),
    }
    match published::read(&beginnings) {
        Ok(published) => found.published = published,
        Err(error) => miss("ports that rules of nftables publish", why(&error)),
    }
    for path in ["/proc/self/net/ip_tables_names", "/proc/self/net/ip6_tables_names"] {
        match fs::read_to_string(path) {
            Ok(tables) if tables.lines().any(|table| table == "nat") => {
                // It has all chains; which of them have rules, it does not say.
                found = Translation { arriving: true, output: true, leaving: true, ..found };
                miss(
                    "ports that rules of iptables-legacy publish",
                    "only those of nftables, and of the iptables that is made of it, are looked through"
                        .to_owned(),
                );
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => miss("tables of iptables for NAT", why(&error)),
        }
    }
    let services = fs::read_to_string("/proc/self/net/ip_vs").unwrap_or_default();
    if let Some(published) = ipvs::masqueraded(&services) {
        // It sees the connections of this host itself as well.
        (found.arriving, found.output) = (true, true);
        found.published.extend(published);
    }
    found
}

fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "the kernel shows it to root only (CAP_NET_ADMIN): run it with sudo".to_owned()
        }
        _ => error.to_string(),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPROTONOSUPPORT | libc::EINVAL | libc::EOPNOTSUPP))
}

/// A chain of type nat with rules in it; it is given back if packets that arrive come to it.
fn add_chain(found: &mut Translation, message: &[u8]) -> Option<Chain> {
    let (family, fields) = (*message.first()?, message.get(ALL_FAMILIES.len()..)?);
    let text = |kind| attribute(fields, kind).map(raw::text);
    let rules = attribute(fields, USE).and_then(number).map_or(0, u32::from_be_bytes);
    if text(TYPE)? != "nat" || rules == 0 {
        return None;
    }
    let hook = attribute(fields, HOOK).and_then(|hook| attribute(hook, HOOK_NUMBER)).and_then(number);
    // `enum nf_inet_hooks`
    match hook.map(u32::from_be_bytes)? {
        0 => found.arriving = true,
        3 => found.output = true,
        4 => found.leaving = true,
        _ => {}
    }
    let arriving = hook.map(u32::from_be_bytes) == Some(0);
    let chain = Chain { family, table: text(TABLE)?, name: text(NAME)? };
    arriving.then_some(chain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::raw::encoded;

    fn chain(kind: &[u8], hook: u32, rules: u32) -> Vec<u8> {
        let hook = encoded(HOOK | 0x8000, &encoded(HOOK_NUMBER, &hook.to_be_bytes()));
        let names = [encoded(TABLE, b"t\0"), encoded(NAME, b"c\0")].concat();
        let rules = encoded(USE, &rules.to_be_bytes());
        [ALL_FAMILIES.to_vec(), names, hook, rules, encoded(TYPE, kind)].concat()
    }

    #[test]
    fn chains_for_nat_with_rules_count() {
        let read = |chains: &[Vec<u8>]| {
            let mut found = Translation::default();
            let beginnings = chains.iter().filter_map(|chain| add_chain(&mut found, chain)).count();
            (found, beginnings)
        };
        let none = Translation::default();
        assert_eq!(read(&[chain(b"nat\0", 3, 0), chain(b"filter\0", 0, 4)]), (none.clone(), 0));
        assert_eq!(read(&[chain(b"nat\0", 3, 1)]), (Translation { output: true, ..none.clone() }, 0));
        let both = [chain(b"nat\0", 0, 2), chain(b"nat\0", 4, 1)];
        assert_eq!(read(&both), (Translation { arriving: true, leaving: true, ..none }, 1));
    }
}
