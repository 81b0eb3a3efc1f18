//! What an audit finds.

use serde::Serialize;

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind of thing.
    pub id: Id,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about, the most important first.
    pub objects: Vec<Object>,
    /// One line.
    pub summary: String,
    /// What follows from it.
    pub consequence: String,
    /// What to do about it.
    pub remedy: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The host behaves wrongly now.
    Error,
    /// Something can go wrong, now or once mhebpf enforces.
    Warning,
    /// Good to know.
    Note,
}

impl Severity {
    /// The name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// What a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Object {
    /// What sort of thing.
    pub kind: Kind,
    /// Its name or address.
    pub name: String,
}

/// Sorts of things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A network interface, by its name.
    Interface,
    /// An address.
    Address,
    /// A prefix.
    Subnet,
    /// A rule of policy routing, as `ip rule` writes it.
    Rule,
    /// A program or filter, by its name.
    Program,
    /// A socket: protocol, local address, and peer where there is one.
    Socket,
    /// A published port: protocol, address where it is published at certain ones only, and port.
    Port,
    /// A sysctl.
    Sysctl,
}

impl Object {
    /// An object.
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }
}

macro_rules! ids {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal),+ $(,)?) => {
        /// The kinds of findings. Their names do not change.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        pub enum Id {
            $($(#[doc = $doc])+ #[serde(rename = $name)] $variant),+
        }

        impl Id {
            /// All of them, in the order in which they are reported.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }
        }
    };
}

ids! {
    /// All packets to a subnet leave by the first route's interface, whatever their source.
    FirstRouteWins = "first-route-wins",
    /// Interfaces answer ARP requests for addresses of others, with their own hardware address.
    ArpWrongMac = "arp-wrong-mac",
    /// Interfaces ask by ARP in the name of addresses of others.
    ArpWrongSender = "arp-wrong-sender",
    /// The route that wins leads to an interface without carrier.
    RouteWithoutCarrier = "route-without-carrier",
    /// Packets to far destinations leave by another interface than their source's; mhebpf knows the right gateway.
    AsymmetricGateway = "asymmetric-gateway",
    /// The same, and there is no gateway that the owner of the source could use.
    NoNextHop = "no-next-hop",
    /// Datagrams for an interface's address are taken on others.
    WeakReceive = "weak-receive",
    /// An interface does not answer ARP requests for its own addresses.
    ArpUnanswered = "arp-unanswered",
    /// `rp_filter` would discard the answers to redirected packets.
    StrictReversePath = "strict-reverse-path",
    /// Addresses that only the weak model makes reachable.
    UnreachableAddress = "unreachable-address",
    /// Connected sockets whose packets leave by another interface than their source's.
    SocketsLeaveElsewhere = "sockets-leave-elsewhere",
    /// Services on an address whose owner has no next hop for far peers.
    ServiceWithoutNextHop = "service-without-next-hop",
    /// Translated answers that the owner of their source would have no next hop for.
    TranslatedAnswersLost = "translated-answers-lost",
    /// An unnumbered interface sends with an address that another one owns.
    BorrowedAddress = "borrowed-address",
    /// Translated answers leave by another interface than the owner of their source.
    TranslatedAnswers = "translated-answers",
    /// Connections of the host itself whose destination is translated after their source was chosen.
    OutputTranslated = "output-translated",
    /// Multipath TCP does not announce every interface's address.
    MptcpEndpoints = "mptcp-endpoints",
    /// Interfaces in one subnet with different MTUs.
    MtuMismatch = "mtu-mismatch",
    /// Interfaces with addresses in the same subnet.
    SharedSubnet = "shared-subnet",
    /// Rules of policy routing that look at the source.
    SourceRules = "source-rules",
    /// Rules for unmarked packets that do not look at the source, and which those of `--steer rules` come before.
    ShadowedRules = "shadowed-rules",
    /// The table local is looked up after where those of `--steer rules` would be.
    LocalTableLate = "local-table-late",
    /// Rules of others with the priority of those of `--steer rules`.
    SteeringClash = "steering-clash",
    /// Rules of `--steer rules` without a daemon that keeps them.
    SteeringLeftBehind = "steering-left-behind",
    /// systemd-networkd would remove the rules and routes of `--steer rules`.
    NetworkdRemovesRules = "networkd-removes-rules",
    /// Programs or filters of others see packets before mhebpf's, and can end their way.
    BehindOthers = "behind-others",
    /// Filters or programs of an mhebpf that does not run any more.
    LeftInForce = "left-in-force",
    /// Routes stay in use when their interface loses its carrier.
    LinkdownRoutes = "linkdown-routes",
    /// Addresses of loopback may cross the wire.
    RouteLocalnet = "route-localnet",
    /// Other programs or filters see the same packets.
    ForeignProgram = "foreign-program",
    /// mhebpf is running in this network namespace.
    DaemonRunning = "daemon-running",
}

impl Id {
    /// Whether only a weak end system does such a thing.
    pub const fn shows_weakness(self) -> bool {
        matches!(
            self,
            Self::FirstRouteWins
                | Self::ArpWrongMac
                | Self::ArpWrongSender
                | Self::RouteWithoutCarrier
                | Self::AsymmetricGateway
                | Self::NoNextHop
                | Self::WeakReceive
                | Self::SocketsLeaveElsewhere
        )
    }
}
