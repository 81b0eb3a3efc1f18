//! `net.ipv4.conf` of every interface.

use std::{fs, io};

use crate::{
    audit::{
        snapshot::Unread,
        sysctls::{Sysctl, Sysctls, Values},
    },
    model::Host,
};

pub(super) fn read(host: &Host, unread: &mut Vec<Unread>) -> Sysctls {
    let links = host.links.values().map(|link| (link.index, values(&link.name, unread)));
    Sysctls { links: links.collect(), everywhere: values("all", unread) }
}

fn values(name: &str, unread: &mut Vec<Unread>) -> Values {
    let mut values = Values::new();
    for sysctl in Sysctl::ALL {
        let path = format!("/proc/sys/net/ipv4/conf/{name}/{}", sysctl.name());
        let value = fs::read_to_string(&path)
            .and_then(|text| text.trim().parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData)));
        match value {
            Ok(value) => {
                values.insert(sysctl, value);
            }
            // The interface has gone in the meantime, or has no IPv4 (an MTU of less than 68 bytes).
            Err(error) if error.kind() == io::ErrorKind::NotFound && name != "all" => {}
            Err(error) => unread.push(Unread { what: path, why: error.to_string() }),
        }
    }
    values
}
