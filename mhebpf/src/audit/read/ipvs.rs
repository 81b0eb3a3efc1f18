//! Services of IPVS, as `/proc/net/ip_vs` lists them, each with its real servers behind it:
//!
//! ```text
//! TCP  C0A80002:0050 rr
//!   -> 0A000002:0050      Masq    1      0          0
//! FWM  00000007 wlc persistent 50
//!   -> 0A000003:0000      Route   1      0          0
//! ```

use std::net::IpAddr;

use crate::audit::published::Published;

/// The services whose answers get the address of the service as their source; `None` where there is none of that kind. Real
/// servers that are routed to directly, or by a tunnel, answer by themselves. Those for packets with a mark count, and have no
/// address here: what a mark stands for is in the rules that set it.
pub(super) fn masqueraded(services: &str) -> Option<Vec<Published>> {
    let (mut masqueraded, mut service) = (None, None);
    for line in services.lines() {
        if !line.trim_start().starts_with("->") {
            service = virtual_service(line);
        } else if line.split_whitespace().nth(2) == Some("Masq") {
            // Of several real servers the first adds it.
            masqueraded.get_or_insert_with(Vec::new).extend(service.take());
        }
    }
    masqueraded
}

fn virtual_service(line: &str) -> Option<Published> {
    let (protocol, rest) = line.split_once(' ')?;
    let protocol = match protocol {
        "TCP" => libc::IPPROTO_TCP,
        "UDP" => libc::IPPROTO_UDP,
        "SCTP" => libc::IPPROTO_SCTP,
        _ => return None,
    };
    let (address, port) = rest.split_whitespace().next()?.rsplit_once(':')?;
    let address = match address.strip_prefix('[') {
        Some(ipv6) => ipv6.strip_suffix(']')?.parse().ok()?,
        None => IpAddr::V4(u32::from_str_radix(address, 16).ok()?.into()),
    };
    // Port 0 stands for all.
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(Published {
        protocol: u8::try_from(protocol).ok(),
        addresses: Some((address, address)),
        ports: (port != 0).then_some((port, port)),
        interface: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  \
                        -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n";

    fn read(services: &str) -> Option<Vec<String>> {
        let services = masqueraded(&format!("{HEAD}{services}"))?;
        Some(services.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn services_that_masquerade_count() {
        assert_eq!((masqueraded(""), read("")), (None, None));
        let server = |way: &str| format!("  -> 0A000002:0050      {way}   1      0          0         \n");
        for (service, published) in [
            ("TCP  C0A80065:0050 rr \n", vec!["tcp 192.168.0.101:80"]),
            ("TCP  C0A80002:0000 rr \n", vec!["tcp 192.168.0.2"]),
            (
                "UDP  [2001:0db8:0000:0000:0000:0000:0000:0001]:0035 wlc persistent 300\n",
                vec!["udp [2001:db8::1]:53"],
            ),
            ("FWM  00000007 wlc persistent 50\n", vec![]),
        ] {
            let published: Vec<String> = published.into_iter().map(str::to_owned).collect();
            assert_eq!(read(service), None);
            assert_eq!(read(&format!("{service}{}{}", server("Route"), server("Tunnel"))), None, "{service}");
            let masquerading = format!("{service}{}{}{}", server("Route"), server("Masq "), server("Masq "));
            assert_eq!(read(&masquerading), Some(published), "{service}");
        }
        let both =
            format!("TCP  C0A80065:0050 rr \n{}UDP  C0A80065:0035 rr \n{}", server("Route"), server("Masq "));
        assert_eq!(read(&both), Some(vec!["udp 192.168.0.101:53".to_owned()]));
    }
}
