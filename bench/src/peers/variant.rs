//! What is installed on a host.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::Ipv4Addr,
    os::fd::OwnedFd,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use mhebpf_tests::{
    Daemon, NetNs,
    tcx::{self, Answer, Hook},
};

use super::lab::{COUNTS, FEW, GATEWAYS, INTERFACES, addresses_of};

/// What is installed on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// A weak end system.
    Nothing,
    /// A program that passes everything, on both directions of both interfaces.
    EmptyTcx,
    /// `mhebpf run`.
    Mhebpf,
    /// `mhebpf run --steer rules`.
    MhebpfSteering,
    /// Two rules of nftables that ask the routing table whose an address is.
    NftablesFib,
    /// Two rules of nftables with a set of interfaces and addresses.
    NftablesSet,
    /// Two rules of iptables for each address.
    Iptables,
    /// A rule and a table of routes for each address (`ip rule add from`).
    PolicyRouting,
}

/// What keeps a variant in force.
#[derive(Debug, Default)]
pub(crate) struct Installed {
    _daemon: Option<Daemon>,
    _programs: Vec<OwnedFd>,
}

/// All variants, each with its number of addresses.
pub(crate) fn all() -> Vec<(Variant, u32)> {
    let with_addresses = [
        Variant::Mhebpf,
        Variant::MhebpfSteering,
        Variant::NftablesFib,
        Variant::NftablesSet,
        Variant::Iptables,
        Variant::PolicyRouting,
    ];
    let mut all = vec![(Variant::Nothing, FEW), (Variant::EmptyTcx, FEW)];
    all.extend(with_addresses.into_iter().flat_map(|variant| COUNTS.map(|count| (variant, count))));
    all
}

impl Variant {
    /// What it is called.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Nothing => "nothing, once more",
            Self::EmptyTcx => "empty TCX program",
            Self::Mhebpf => "mhebpf",
            Self::MhebpfSteering => "mhebpf, steering",
            Self::NftablesFib => "nftables fib",
            Self::NftablesSet => "nftables set",
            Self::Iptables => "iptables",
            Self::PolicyRouting => "ip rule",
        }
    }

    /// What stands in the tables.
    pub(crate) fn name(self, count: u32) -> String {
        match self {
            Self::Nothing | Self::EmptyTcx => self.kind().to_owned(),
            _ => format!("{}, {count} addresses", self.kind()),
        }
    }

    /// Whether a packet with the source of eth1 that is routed to eth0 gets out, or why not.
    pub(crate) const fn redirects(self) -> Result<(), &'static str> {
        match self {
            Self::Nothing | Self::EmptyTcx | Self::Mhebpf | Self::MhebpfSteering | Self::PolicyRouting => {
                Ok(())
            }
            Self::NftablesFib | Self::NftablesSet | Self::Iptables => {
                Err("it can only drop what is routed to the wrong interface")
            }
        }
    }

    /// The interface by which it gets out.
    pub(crate) const fn way_of_eth1(self) -> usize {
        match self {
            Self::Mhebpf | Self::MhebpfSteering | Self::PolicyRouting => 1,
            _ => 0,
        }
    }

    /// Installs it on a host with so many addresses.
    ///
    /// # Errors
    ///
    /// When the machine or the kernel lacks it.
    pub(crate) fn install(self, host: &NetNs, count: u32) -> Result<Installed> {
        match self {
            Self::Nothing => Ok(Installed::default()),
            Self::EmptyTcx => {
                let mut programs = Vec::new();
                for interface in INTERFACES {
                    for hook in [Hook::Egress, Hook::Ingress] {
                        programs.push(tcx::attach(host, interface, hook, Answer::Next)?);
                    }
                }
                Ok(Installed { _programs: programs, ..Installed::default() })
            }
            Self::Mhebpf | Self::MhebpfSteering => {
                let steer = if self == Self::Mhebpf { "none" } else { "rules" };
                let daemon = Daemon::spawn(host, &["run", "--interface", "eth*", "--steer", steer])?;
                daemon.wait_ready()?;
                Ok(Installed { _daemon: Some(daemon), ..Installed::default() })
            }
            Self::NftablesFib => feed(host, "nft", &["-f", "-"], NFTABLES_FIB),
            Self::NftablesSet => feed(host, "nft", &["-f", "-"], &nftables_set(count)),
            Self::Iptables => feed(host, "iptables-restore", &[], &iptables(count)),
            Self::PolicyRouting => {
                host.ip_batch(&policy_routing(count))?;
                Ok(Installed::default())
            }
        }
    }
}

const NFTABLES_FIB: &str = "
table ip strong {
    chain output {
        type filter hook output priority filter; policy accept;
        fib saddr . oif type != local drop
    }
    chain input {
        type filter hook input priority filter; policy accept;
        fib daddr . iif type != { local, broadcast, multicast } drop
    }
}
";

fn nftables_set(count: u32) -> String {
    let elements = owned(count).map(|(port, address)| format!("{} . {address}", INTERFACES[port]));
    let elements = elements.collect::<Vec<_>>().join(", ");
    format!(
        "
table ip strong {{
    set own {{
        type iface_index . ipv4_addr
        elements = {{ {elements} }}
    }}
    chain output {{
        type filter hook output priority filter; policy drop;
        oif . ip saddr @own accept
    }}
    chain input {{
        type filter hook input priority filter; policy drop;
        iif . ip daddr @own accept
    }}
}}
"
    )
}

fn iptables(count: u32) -> String {
    let mut text = "*filter\n:INPUT DROP\n:OUTPUT DROP\n:FORWARD ACCEPT\n".to_owned();
    for (port, address) in owned(count) {
        let interface = INTERFACES[port];
        // Writing into a string cannot fail.
        let _ = writeln!(text, "-A OUTPUT -o {interface} -s {address} -j ACCEPT");
        let _ = writeln!(text, "-A INPUT -i {interface} -d {address} -j ACCEPT");
    }
    text + "COMMIT\n"
}

fn policy_routing(count: u32) -> String {
    let mut script = String::new();
    for (port, (interface, gateway)) in INTERFACES.iter().zip(GATEWAYS).enumerate() {
        let _ = writeln!(script, "route add default via {gateway} dev {interface} table {}", 100 + port);
    }
    for (number, (port, address)) in owned(count).enumerate() {
        let _ = writeln!(script, "rule add from {address} lookup {} pref {}", 100 + port, 1000 + number);
    }
    script
}

/// The addresses with their interfaces, those that traffic uses last: what looks through a list has to go to its end.
fn owned(count: u32) -> impl Iterator<Item = (usize, Ipv4Addr)> {
    let pairs = addresses_of(0, count).zip(addresses_of(1, count));
    pairs.flat_map(|(of_eth0, of_eth1)| [(0, of_eth0), (1, of_eth1)])
}

/// Runs a program that reads its rules from standard input.
fn feed(host: &NetNs, program: &str, arguments: &[&str], input: &str) -> Result<Installed> {
    let mut command: Command = host.command(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {program}: is it installed?"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A child that fails early closes the pipe; its exit status tells more than EPIPE.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().next().unwrap_or_default();
    ensure!(output.status.success(), "{program}: {}: {first}", output.status);
    Ok(Installed::default())
}
