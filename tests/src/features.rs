//! What a kernel can do, and which kernel of the matrix is expected to be able to.
//!
//! A test asks [`require`] for what it needs. The running kernel is probed, not believed. Where it lacks the feature the
//! test skips itself and says so; but in a guest of `cargo xtask vm`, where the kernel and its modules are known
//! (`EXPECTED`), an unexpected lack is an error: else a test could be skipped everywhere and nobody would notice.

use std::{env, fmt, fs};

use anyhow::{Context as _, Result, bail};

use crate::{
    ipvs::{self, Forwarding},
    nat,
    netns::NetNs,
    skip::skip,
    tcx,
};

/// Names the series of the kernel, `6.1` say, in a guest of the matrix.
pub const KERNEL_VARIABLE: &str = "MHEBPF_TEST_KERNEL";

/// Something that not every kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Programs attached by links, in a chain of their own.
    Tcx,
    /// VLAN interfaces.
    Vlan,
    /// Macvlan interfaces.
    Macvlan,
    /// Macvtap interfaces.
    Macvtap,
    /// Ipvlan interfaces.
    Ipvlan,
    /// Bonds, with a port that is the standby of another.
    Bond,
    /// Teams.
    Team,
    /// Interfaces of virtual routing domains.
    Vrf,
    /// Interfaces without a wire.
    Dummy,
    /// Interfaces that a process reads and writes, without an Ethernet header.
    Tun,
    /// Tunnels of IPv4 in IPv4, without an Ethernet header.
    Ipip,
    /// GRE tunnels without an Ethernet header.
    Gre,
    /// Tunnels of IPv6 in IPv4, without an Ethernet header.
    Sit,
    /// Tunnels of both families in IPv6, without an Ethernet header.
    Ip6Tunnel,
    /// GRE tunnels of Ethernet frames.
    GreTap,
    /// WireGuard interfaces, without an Ethernet header.
    WireGuard,
    /// Tunnels of Ethernet frames in UDP.
    Vxlan,
    /// IPsec, with AES in Galois/Counter Mode.
    Esp,
    /// Interfaces for what IPsec protects.
    XfrmInterface,
    /// Address translation by nf_tables.
    Nftables,
    /// Virtual services of IPVS.
    Ipvs,
    /// Test runs of a program for a packet that came from an interface (`ingress_ifindex`).
    TestRunIngressIfindex,
    /// Loading the programs without `CAP_PERFMON`.
    LoadWithoutPerfmon,
}

/// A kernel's version, without what comes behind the second number.
type Series = (u32, u32);

/// The first series of the matrix's kernels that has a feature, as Debian builds them.
const EXPECTED: [(Feature, Series); 23] = [
    (Feature::Tcx, (6, 6)),
    (Feature::Vlan, (5, 10)),
    (Feature::Macvlan, (5, 10)),
    (Feature::Macvtap, (5, 10)),
    (Feature::Ipvlan, (5, 10)),
    (Feature::Bond, (5, 10)),
    (Feature::Team, (5, 10)),
    (Feature::Vrf, (5, 10)),
    (Feature::Dummy, (5, 10)),
    (Feature::Tun, (5, 10)),
    (Feature::Ipip, (5, 10)),
    (Feature::Gre, (5, 10)),
    (Feature::Sit, (5, 10)),
    (Feature::Ip6Tunnel, (5, 10)),
    (Feature::WireGuard, (5, 10)),
    (Feature::Vxlan, (5, 10)),
    (Feature::GreTap, (5, 10)),
    (Feature::Esp, (5, 10)),
    (Feature::XfrmInterface, (5, 10)),
    (Feature::Nftables, (5, 10)),
    (Feature::Ipvs, (5, 10)),
    (Feature::TestRunIngressIfindex, (5, 15)),
    (Feature::LoadWithoutPerfmon, (6, 18)),
];

/// How a feature is looked for.
#[derive(Clone, Copy, Debug)]
enum Probe {
    /// By `ip` with these words, in a namespace that has an interface `under`.
    Ip(&'static str),
    Tcx,
    Nftables,
    Ipvs,
    /// By the version of the running kernel: trying takes a program that a test has, not this crate.
    Version,
}

/// Tells whether the running kernel has a feature. If it has not, this says why the test is skipped.
///
/// # Errors
///
/// When the feature is lacking on a kernel of the matrix that is expected to have it.
pub fn require(feature: Feature) -> Result<bool> {
    let lack = lack(feature)?;
    if let Some(why) = &lack {
        skip(&format!("this kernel has no {feature} ({why:#})").replace('\n', " "));
    }
    Ok(lack.is_none())
}

/// Tells the same to a test that does without the feature.
///
/// # Errors
///
/// As for [`require`].
pub fn has(feature: Feature) -> Result<bool> {
    Ok(lack(feature)?.is_none())
}

/// Why the running kernel lacks a feature, which must be no surprise.
fn lack(feature: Feature) -> Result<Option<anyhow::Error>> {
    let Err(why) = feature.probe() else { return Ok(None) };
    match series_under_test()? {
        Some(series) if series >= feature.expected_since() => {
            Err(why.context(format!("Linux {}.{} is expected to have {feature}", series.0, series.1)))
        }
        _ => Ok(Some(why)),
    }
}

/// The series that the matrix says is running; `None` outside of it.
fn series_under_test() -> Result<Option<Series>> {
    let Ok(text) = env::var(KERNEL_VARIABLE) else { return Ok(None) };
    let series = series_of(&text).with_context(|| format!("{KERNEL_VARIABLE}={text} is not like 6.1"))?;
    Ok(Some(series))
}

fn series_of(release: &str) -> Option<Series> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

impl Feature {
    fn expected_since(self) -> Series {
        let row = EXPECTED.iter().find(|(feature, _)| *feature == self);
        row.map_or((u32::MAX, 0), |(_, series)| *series)
    }

    /// Looks whether the running kernel has it.
    fn probe(self) -> Result<()> {
        match self.kind() {
            Probe::Ip(words) => {
                let ns = NetNs::new("probe")?;
                ns.ip("link add under type veth peer name other")?;
                ns.ip(words).map(drop)
            }
            Probe::Tcx if tcx::is_available(&NetNs::new("probe")?)? => Ok(()),
            Probe::Tcx => bail!("BPF_PROG_QUERY knows no TCX"),
            Probe::Nftables => nat::masquerade(&NetNs::new("probe")?),
            Probe::Ipvs => {
                let service = "192.0.2.1:80".parse()?;
                ipvs::add_service(&NetNs::new("probe")?, service, service, Forwarding::Masquerading)
            }
            Probe::Version => {
                let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
                let series = series_of(&release).with_context(|| format!("what version is {release}?"))?;
                let (major, minor) = self.expected_since();
                if series < (major, minor) {
                    bail!("it is older than {major}.{minor}");
                }
                Ok(())
            }
        }
    }

    const fn kind(self) -> Probe {
        Probe::Ip(match self {
            Self::Tcx => return Probe::Tcx,
            Self::Nftables => return Probe::Nftables,
            Self::Ipvs => return Probe::Ipvs,
            Self::TestRunIngressIfindex | Self::LoadWithoutPerfmon => return Probe::Version,
            Self::Vlan => "link add probed link under type vlan id 7",
            Self::Macvlan => "link add probed link under type macvlan mode bridge",
            Self::Macvtap => "link add probed link under type macvtap mode bridge",
            Self::Ipvlan => "link add probed link under type ipvlan mode l2",
            Self::Bond => "link add probed type bond mode active-backup",
            Self::Team => "link add probed type team",
            Self::Vrf => "link add probed type vrf table 7",
            Self::Dummy => "link add probed type dummy",
            Self::Tun => "tuntap add dev probed mode tun",
            Self::Ipip => "link add probed type ipip local 192.0.2.1 remote 192.0.2.2",
            Self::Gre => "link add probed type gre local 192.0.2.1 remote 192.0.2.2",
            Self::Sit => "link add probed type sit local 192.0.2.1 remote 192.0.2.2",
            Self::Ip6Tunnel => "link add probed type ip6tnl mode any local 2001:db8::1 remote 2001:db8::2",
            Self::XfrmInterface => "link add probed type xfrm dev under if_id 7",
            Self::GreTap => "link add probed type gretap local 192.0.2.1 remote 192.0.2.2",
            Self::WireGuard => "link add probed type wireguard",
            Self::Vxlan => "link add probed type vxlan id 7 local 192.0.2.1 remote 192.0.2.2 dstport 4789",
            Self::Esp => {
                "xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 7 mode tunnel \
                 aead rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f10111213 128"
            }
        })
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcx => "TCX",
            Self::Vlan => "VLAN interfaces",
            Self::Macvlan => "macvlan interfaces",
            Self::Macvtap => "macvtap interfaces",
            Self::Ipvlan => "ipvlan interfaces",
            Self::Bond => "bonds",
            Self::Team => "teams",
            Self::Vrf => "VRF interfaces",
            Self::Dummy => "dummy interfaces",
            Self::Tun => "tun interfaces",
            Self::Ipip => "IPIP tunnels",
            Self::Gre => "GRE tunnels",
            Self::Sit => "tunnels of IPv6 in IPv4",
            Self::Ip6Tunnel => "tunnels in IPv6",
            Self::XfrmInterface => "xfrm interfaces",
            Self::WireGuard => "WireGuard",
            Self::Vxlan => "VXLAN",
            Self::GreTap => "GRE tunnels for Ethernet",
            Self::Esp => "IPsec ESP",
            Self::Nftables => "nf_tables",
            Self::Ipvs => "IPVS",
            Self::TestRunIngressIfindex => "test runs with an ingress interface",
            Self::LoadWithoutPerfmon => "loading of the programs without CAP_PERFMON",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_the_names_of_series_and_releases() {
        assert_eq!(series_of("5.10"), Some((5, 10)));
        assert_eq!(series_of("6.18.15+deb13-cloud-amd64"), Some((6, 18)));
        assert_eq!(series_of("6"), None);
        assert!((5, 10) < (6, 1) && (6, 6) < (6, 12));
    }

    #[test]
    fn every_feature_is_in_the_table_once() {
        for (number, (feature, since)) in EXPECTED.iter().enumerate() {
            assert_eq!(feature.expected_since(), *since);
            assert!(EXPECTED[..number].iter().all(|(other, _)| other != feature), "{feature} twice");
        }
    }
}
