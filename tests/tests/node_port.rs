//! A node of a cluster, with kube-proxy's rules for a port that is on each of its addresses.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use mhebpf_tests::{Lab, NetNs, PEER, Service, nat, traffic::ARTICLE_PORT};

const NODE_PORT: u16 = 30_080;
/// A pod on this node, and what it knows of the node.
const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// Another node, on the first interface's side by the routes.
const OTHER_NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 50);

/// Where the service's only endpoint is, and whether it sees the client (`externalTrafficPolicy`).
#[derive(Clone, Copy, Debug)]
enum Endpoint {
    /// `Local`: the pod on this node sees the client's address.
    Local,
    /// `Cluster`: the pod on this node sees an address of the node.
    MasqueradedLocal,
    /// `Cluster`: the pod on another node does.
    MasqueradedRemote,
}

impl Endpoint {
    const ALL: [Self; 3] = [Self::Local, Self::MasqueradedLocal, Self::MasqueradedRemote];

    fn address(self) -> Ipv4Addr {
        match self {
            Self::Local | Self::MasqueradedLocal => POD,
            Self::MasqueradedRemote => OTHER_NODE,
        }
    }

    /// The rules that kube-proxy makes in its mode `nftables`, under its own names.
    fn rules(self) -> String {
        let mark = if matches!(self, Self::Local) { "" } else { "jump mark-for-masquerade" };
        let endpoint = SocketAddr::new(self.address().into(), ARTICLE_PORT);
        format!(
            "table ip kube-proxy {{
                chain mark-for-masquerade {{ meta mark set meta mark or 0x4000; }}
                chain endpoint {{ meta l4proto {{ tcp, udp }} dnat to {endpoint}; }}
                chain external {{ {mark}
                    goto endpoint; }}
                map service-nodeports {{
                    type inet_proto . inet_service : verdict
                    elements = {{ tcp . {NODE_PORT} : goto external, udp . {NODE_PORT} : goto external }}
                }}
                chain services {{ fib daddr type local meta l4proto . th dport vmap @service-nodeports; }}
                chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
                chain masquerading {{
                    meta mark and 0x4000 == 0 return
                    meta mark set meta mark xor 0x4000
                    masquerade fully-random
                }}
                chain nat-postrouting {{ type nat hook postrouting priority srcnat; jump masquerading; }}
            }}\n"
        )
    }
}

/// A node with two interfaces in one subnet, the service on it, and where the endpoint is.
fn node(endpoint: Endpoint) -> Result<(Lab, NetNs)> {
    let lab = Lab::builder().links(2).build()?;
    let server = match endpoint {
        Endpoint::Local | Endpoint::MasqueradedLocal => pod(&lab)?,
        Endpoint::MasqueradedRemote => lab.add_router(OTHER_NODE)?.ns,
    };
    lab.host.sysctl("net.ipv4.ip_forward", "1")?;
    lab.host.nft(&endpoint.rules())?;
    Ok((lab, server))
}

fn pod(lab: &Lab) -> Result<NetNs> {
    let pod = NetNs::new("pod")?;
    lab.host.ip_batch(&format!(
        "link add c0 type veth peer name eth0 netns {}\naddress add {GATEWAY}/32 dev c0\nlink set c0 up\n\
         route add {POD}/32 dev c0",
        pod.path()
    ))?;
    pod.ip_batch(&format!(
        "address add {POD}/32 dev eth0\nlink set eth0 up\nroute add {GATEWAY} dev eth0\n\
         route add default via {GATEWAY}"
    ))?;
    Ok(pod)
}

fn service<'lab>(lab: &'lab Lab, server: &'lab NetNs) -> Service<'lab> {
    let published = SocketAddr::new(lab.address(1).into(), NODE_PORT);
    Service { lab, client: PEER.into(), published, server, port: ARTICLE_PORT }
}

#[test]
fn a_node_port_answers_by_the_owner_of_its_address() -> Result<()> {
    if !nat::has_nft()? {
        return Ok(());
    }
    for endpoint in Endpoint::ALL {
        let (lab, server) = node(endpoint)?;
        let service = service(&lab, &server);
        service.is_answered_by(0).with_context(|| format!("{endpoint:?}, without mhebpf"))?;
        let daemon = lab.run_mhebpf(&["run", "--all"])?;
        service.is_answered_by(1).with_context(|| format!("{endpoint:?}"))?;
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}

#[test]
fn in_drop_mode_no_answer_of_a_node_port_leaves_by_another_interface() -> Result<()> {
    if !nat::has_nft()? {
        return Ok(());
    }
    for endpoint in Endpoint::ALL {
        let (lab, server) = node(endpoint)?;
        let service = service(&lab, &server);
        service.is_answered_by(0).with_context(|| format!("{endpoint:?}, without mhebpf"))?;
        let daemon = lab.run_mhebpf(&["run", "--all", "--mode", "drop"])?;
        service.is_not_answered().with_context(|| format!("{endpoint:?}"))?;
        daemon.stop()?;
        lab.finish()?;
    }
    Ok(())
}
