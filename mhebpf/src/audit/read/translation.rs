//! Where addresses are translated: chains of nftables and tables of iptables for NAT, and services of IPVS.

use std::{fs, io};

use super::raw::{ask, attribute, number};
use crate::audit::snapshot::{Translation, Unread};

/// `NETLINK_NETFILTER`
const NETFILTER: isize = 12;
/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN`
const GET_CHAINS: u16 = 10 << 8 | 4;
/// `struct nfgenmsg` for all families.
const ALL_FAMILIES: [u8; 4] = [0; 4];
/// `NFTA_CHAIN_HOOK`, `NFTA_HOOK_HOOKNUM`, `NFTA_CHAIN_USE` and `NFTA_CHAIN_TYPE` of linux/netfilter/nf_tables.h.
const HOOK: u16 = 4;
const HOOK_NUMBER: u16 = 1;
const USE: u16 = 6;
const TYPE: u16 = 7;

/// Reads what can be read; `matters` says whether it is worth a word where it can't.
pub(super) fn read(matters: bool, unread: &mut Vec<Unread>) -> Translation {
    let mut found = Translation::default();
    let mut miss = |what: &str, error: &io::Error| {
        if matters {
            let why = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "the kernel shows it to root only (CAP_NET_ADMIN): run it with sudo".to_owned()
                }
                _ => error.to_string(),
            };
            unread.push(Unread { what: what.to_owned(), why });
        }
    };
    match ask(NETFILTER, GET_CHAINS, true, &ALL_FAMILIES) {
        Ok(chains) => chains.iter().for_each(|chain| add_chain(&mut found, chain)),
        // The kernel has no nftables, or the module is not loaded.
        Err(error) if is_absent(&error) => {}
        Err(error) => miss("chains of nftables for NAT", &error),
    }
    for path in ["/proc/self/net/ip_tables_names", "/proc/self/net/ip6_tables_names"] {
        match fs::read_to_string(path) {
            Ok(tables) if tables.lines().any(|table| table == "nat") => {
                // It has all chains; which of them have rules, it does not say.
                found = Translation { arriving: true, output: true, leaving: true };
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => miss("tables of iptables for NAT", &error),
        }
    }
    let services = fs::read_to_string("/proc/self/net/ip_vs").unwrap_or_default();
    if masquerades(&services) {
        // It sees the connections of this host itself as well.
        (found.arriving, found.output) = (true, true);
    }
    found
}

/// Whether IPVS has a real server whose answers get the address of the service as their source, as it writes
/// `  -> 0A000002:0050      Masq    1      0          0`. Those that it routes to directly, or by a tunnel, answer by themselves.
fn masquerades(services: &str) -> bool {
    services
        .lines()
        .any(|line| line.trim_start().starts_with("->") && line.split_whitespace().nth(2) == Some("Masq"))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPROTONOSUPPORT | libc::EINVAL | libc::EOPNOTSUPP))
}

/// A chain of type nat with rules in it.
fn add_chain(found: &mut Translation, message: &[u8]) {
    let Some(chain) = message.get(ALL_FAMILIES.len()..) else { return };
    let is_nat = attribute(chain, TYPE).is_some_and(|name| name.strip_suffix(&[0]).unwrap_or(name) == b"nat");
    let rules = attribute(chain, USE).and_then(number).map_or(0, u32::from_be_bytes);
    if !is_nat || rules == 0 {
        return;
    }
    let hook = attribute(chain, HOOK).and_then(|hook| attribute(hook, HOOK_NUMBER)).and_then(number);
    // `enum nf_inet_hooks`
    match hook.map(u32::from_be_bytes) {
        Some(0) => found.arriving = true,
        Some(3) => found.output = true,
        Some(4) => found.leaving = true,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::read::raw::encoded;

    fn chain(kind: &[u8], hook: u32, rules: u32) -> Vec<u8> {
        let hook = encoded(HOOK | 0x8000, &encoded(HOOK_NUMBER, &hook.to_be_bytes()));
        [ALL_FAMILIES.to_vec(), hook, encoded(USE, &rules.to_be_bytes()), encoded(TYPE, kind)].concat()
    }

    #[test]
    fn chains_for_nat_with_rules_count() {
        let read = |chains: &[Vec<u8>]| {
            let mut found = Translation::default();
            chains.iter().for_each(|chain| add_chain(&mut found, chain));
            found
        };
        let none = Translation::default();
        assert_eq!(read(&[chain(b"nat\0", 3, 0), chain(b"filter\0", 0, 4)]), none);
        assert_eq!(read(&[chain(b"nat\0", 3, 1)]), Translation { output: true, ..none });
        let both = [chain(b"nat\0", 0, 2), chain(b"nat\0", 4, 1)];
        assert_eq!(read(&both), Translation { arriving: true, leaving: true, output: false });
    }

    #[test]
    fn services_of_ipvs_that_masquerade_count() {
        let head = "IP Virtual Server version 1.2.1 (size=4096)\n\
                    Prot LocalAddress:Port Scheduler Flags\n  \
                    -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n";
        let table = |services: &str| masquerades(&format!("{head}{services}"));
        assert!(!masquerades(""));
        assert!(!table(""));
        let server = |way: &str| format!("  -> 0A000002:0050      {way}   1      0          0         \n");
        for service in [
            "TCP  C0A80065:0050 rr \n",
            "UDP  [2001:0db8:0000:0000:0000:0000:0000:0001]:0050 rr \n",
            "FWM  00000007 wlc persistent 50\n",
        ] {
            assert!(!table(service));
            assert!(table(&format!("{service}{}", server("Masq "))), "{service}");
            assert!(!table(&format!("{service}{}{}", server("Route"), server("Tunnel"))), "{service}");
        }
        let server =
            "  -> [fd17:0000:0000:0000:0000:0000:0000:0002]:1F40      Masq    1      0          0         \n";
        assert!(table(&format!("TCP  [2001:0db8:0001:0000:0000:0000:0000:0101]:0050 rr \n{server}")));
    }
}
