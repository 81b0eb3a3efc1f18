//! Ports that translation publishes: what arrives for them is sent on to a container or another host.

use std::{fmt, net::IpAddr};

/// A port or service whose packets are translated when they arrive, by each of its conditions that is known. One that is
/// `None` is no condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    /// The number of the protocol above IP.
    pub protocol: Option<u8>,
    /// The first and the last of the addresses that it is asked for at.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// The first and the last port.
    pub ports: Option<(u16, u16)>,
    /// The beginning of the name of the interface that it is asked for by.
    pub interface: Option<String>,
}

impl Published {
    /// What meets the conditions of both; `None` where nothing does.
    pub fn and(&self, other: &Self) -> Option<Self> {
        let one = |own: &Option<u8>, other: &Option<u8>| match (own, other) {
            (Some(own), Some(other)) if own != other => None,
            _ => Some(own.or(*other)),
        };
        let interface = match (&self.interface, &other.interface) {
            (Some(own), Some(other)) if own.starts_with(other.as_str()) => Some(own),
            (Some(own), Some(other)) if other.starts_with(own.as_str()) => Some(other),
            (Some(_), Some(_)) => return None,
            (own, other) => own.as_ref().or(other.as_ref()),
        };
        let addresses = intersection(self.addresses, other.addresses)?;
        if addresses.is_some_and(|(first, last)| first.is_ipv4() != last.is_ipv4()) {
            return None;
        }
        Some(Self {
            protocol: one(&self.protocol, &other.protocol)?,
            addresses,
            ports: intersection(self.ports, other.ports)?,
            interface: interface.cloned(),
        })
    }

    /// Whether it can be asked for at an address, by the interface of this name.
    pub fn is_at(&self, address: IpAddr, interface: &str) -> bool {
        self.addresses.is_none_or(|(first, last)| {
            first.is_ipv4() == address.is_ipv4() && (first..=last).contains(&address)
        }) && self.interface.as_ref().is_none_or(|start| interface.starts_with(start.as_str()))
    }
}

/// The values that two ranges have in common, where both are limits; `None` where there is no such value.
#[expect(clippy::option_option, reason = "the inner one is a range without limits")]
fn intersection<T: Ord + Copy>(one: Option<(T, T)>, other: Option<(T, T)>) -> Option<Option<(T, T)>> {
    match (one, other) {
        (Some(one), Some(other)) => {
            let (first, last) = (one.0.max(other.0), one.1.min(other.1));
            (first <= last).then_some(Some((first, last)))
        }
        _ => Some(one.or(other)),
    }
}

/// `tcp 8080`, `udp 192.0.2.1:5000-5010`, `tcp`, `192.0.2.1`
impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol.map(i32::from) {
            Some(libc::IPPROTO_TCP) => Some("tcp".to_owned()),
            Some(libc::IPPROTO_UDP) => Some("udp".to_owned()),
            Some(libc::IPPROTO_SCTP) => Some("sctp".to_owned()),
            Some(other) => Some(format!("protocol {other}")),
            None => None,
        };
        let range = |first: String, last: String| match first == last {
            true => first,
            false => format!("{first}-{last}"),
        };
        let addresses = self.addresses.map(|(first, last)| range(first.to_string(), last.to_string()));
        let ports = self.ports.map(|(first, last)| range(first.to_string(), last.to_string()));
        let place = match (addresses, ports) {
            (Some(addresses), Some(ports)) if addresses.contains(':') => {
                Some(format!("[{addresses}]:{ports}"))
            }
            (Some(addresses), Some(ports)) => Some(format!("{addresses}:{ports}")),
            (addresses, ports) => addresses.or(ports),
        };
        match (protocol, place) {
            (Some(protocol), Some(place)) => write!(f, "{protocol} {place}"),
            (None, None) => f.write_str("all"),
            (protocol, place) => f.write_str(&protocol.or(place).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn port(port: u16) -> Published {
        Published { protocol: Some(6), ports: Some((port, port)), ..Published::default() }
    }

    fn at(address: &str) -> Published {
        Published { addresses: Some((ip(address), ip(address))), ..Published::default() }
    }

    #[test]
    fn conditions_are_met_together() {
        let both = port(80).and(&at("192.0.2.1"));
        assert_eq!(both.as_ref().map(ToString::to_string), Some("tcp 192.0.2.1:80".to_owned()));
        assert_eq!(port(80).and(&port(81)), None);
        assert_eq!(at("192.0.2.1").and(&at("2001:db8::1")), None);
        let udp = Published { protocol: Some(17), ..Published::default() };
        assert_eq!(port(80).and(&udp), None);
        let wide = Published { ports: Some((1, 1024)), interface: Some("eth".to_owned()), ..udp.clone() };
        let narrow = Published { ports: Some((1000, 2000)), interface: Some("eth1".to_owned()), ..udp };
        let both = wide.and(&narrow);
        assert_eq!(both, narrow.and(&wide));
        assert_eq!(both.as_ref().map(ToString::to_string), Some("udp 1000-1024".to_owned()));
        assert!(both.is_some_and(|both| both.is_at(ip("192.0.2.1"), "eth1")));
    }

    #[test]
    fn what_it_is_asked_for_at_is_told() {
        let place = at("192.0.2.1");
        assert!(place.is_at(ip("192.0.2.1"), "eth0"));
        assert!(!place.is_at(ip("192.0.2.2"), "eth0") && !place.is_at(ip("2001:db8::1"), "eth0"));
        let by = Published { interface: Some("eth0".to_owned()), ..place };
        assert!(by.is_at(ip("192.0.2.1"), "eth0") && !by.is_at(ip("192.0.2.1"), "eth1"));
        let both = port(53).and(&at("2001:db8::1")).map(|both| both.to_string());
        assert_eq!(both.as_deref(), Some("tcp [2001:db8::1]:53"));
        let every = Published::default();
        assert_eq!(
            (every.to_string(), at("192.0.2.1").to_string()),
            ("all".to_owned(), "192.0.2.1".to_owned())
        );
    }
}
