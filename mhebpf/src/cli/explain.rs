//! The command line of `mhebpf explain`.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, ValueEnum};

use super::{AnnouncePolicy, Mode, ReceivePolicy, RunOptions, UnknownPolicy, format::Format};

const NOTES: &str = "\
The verdict is that of the code that runs in the kernel. Where mhebpf runs, it is made from its live
maps, for root and the user that it runs as, and where it has left pinned maps in force, from those.
Without either, or with --mode, --receive, --announce,
--unknown or --config (what if?), it is made from the host as it is now, and needs no root. Nothing
is sent.

Examples:
  What becomes of a datagram that the kernel has routed to eth0
    mhebpf explain --egress eth0 --src 192.168.0.101 --dst 192.168.0.1
  Is a datagram for 192.168.0.101 taken on eth0?
    mhebpf explain --ingress eth0 --src 192.168.0.1 --dst 192.168.0.101
  Who may ask, and who may answer
    mhebpf explain --arp request --ingress eth0 --sender 192.168.0.1 --target 192.168.0.101
    mhebpf explain --ndp advertisement --egress eth0 --target 2001:db8::101";

/// A packet, and the policy that it meets.
#[derive(Debug, Args)]
#[command(after_help = NOTES)]
pub struct ExplainOptions {
    /// The packet leaves by this interface, as the kernel has routed it
    #[arg(long, value_name = "INTERFACE", conflicts_with = "ingress")]
    pub egress: Option<String>,

    /// The packet arrives on this interface
    #[arg(long, value_name = "INTERFACE")]
    pub ingress: Option<String>,

    /// The source address of a datagram
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub src: Option<IpAddr>,

    /// The destination address of a datagram
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub dst: Option<IpAddr>,

    /// This host forwards the datagram, whose addresses are those behind address translation
    #[arg(long, requires = "egress", conflicts_with_all = ["arp", "ndp"])]
    pub forwarded: bool,

    /// It is an ARP packet, with --sender and --target
    #[arg(long, value_name = "OPERATION", conflicts_with_all = ["ndp", "src", "dst"])]
    pub arp: Option<ArpKind>,

    /// The sender protocol address of an ARP packet
    #[arg(long, value_name = "ADDRESS", value_parser = address, requires = "arp")]
    pub sender: Option<IpAddr>,

    /// It is a message of neighbour discovery about --target; --src and --dst are those that such messages have,
    /// unless they are given
    #[arg(long, value_name = "MESSAGE")]
    pub ndp: Option<NdpKind>,

    /// The target address of an ARP packet, or of a message of neighbour discovery
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub target: Option<IpAddr>,

    /// As for run [default: redirect]
    #[arg(long, env = "MHEBPF_MODE")]
    pub mode: Option<Mode>,

    /// As for run [default: drop]
    #[arg(long, env = "MHEBPF_RECEIVE")]
    pub receive: Option<ReceivePolicy>,

    /// As for run [default: enforce]
    #[arg(long, env = "MHEBPF_ANNOUNCE")]
    pub announce: Option<AnnouncePolicy>,

    /// As for run [default: pass]
    #[arg(long, env = "MHEBPF_UNKNOWN")]
    pub unknown: Option<UnknownPolicy>,

    /// As for run. Where neither says which interfaces, mhebpf is taken to enforce on every uplink and on this one
    #[arg(short, long, value_name = "FILE", env = "MHEBPF_CONFIG")]
    pub config: Option<PathBuf>,

    /// Where to look for what outlives mhebpf, if none is running [default: that of /etc/mhebpf.toml, else
    /// /sys/fs/bpf/mhebpf]
    #[arg(long, value_name = "DIRECTORY", env = "MHEBPF_PIN")]
    pub pin: Option<PathBuf>,

    /// How to say it
    #[arg(short, long, value_enum, default_value_t, env = "MHEBPF_OUTPUT")]
    pub output: Format,
}

/// What an ARP packet does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ArpKind {
    /// It asks for the target; gratuitous where sender and target are the same
    Request,
    /// It says where the sender is
    Reply,
}

/// What a message of neighbour discovery does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NdpKind {
    /// It asks for the target
    Solicitation,
    /// It says where the target is
    Advertisement,
}

impl ExplainOptions {
    /// Whether the question is about a policy of its own, and not about the one that is in force.
    pub fn names_a_policy(&self) -> bool {
        self.mode.is_some()
            || self.receive.is_some()
            || self.announce.is_some()
            || self.unknown.is_some()
            || self.config.is_some()
    }

    /// The options of `mhebpf run` with the same policy.
    pub fn as_for_run(&self) -> RunOptions {
        RunOptions {
            mode: self.mode,
            receive: self.receive,
            announce: self.announce,
            unknown: self.unknown,
            config: self.config.clone(),
            ..RunOptions::default()
        }
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| {
        "write an IPv4 or IPv6 address, such as 192.168.0.100 or 2001:db8::100, without a prefix length"
            .to_owned()
    })
}
