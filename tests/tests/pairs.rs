//! A host with cards, and pairs that are no way out: both ends here, or the other one in a pod.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use mhebpf_tests::{
    FAR, Lab, NetNs, PATIENCE, PEER, device,
    features::{self, Feature},
    tcx,
    traffic::{ARTICLE_PORT, icmp, tcp},
    wire,
};

/// A pod, and the host's address towards it, on a pair with both ends on the host.
const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 9);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 228);
/// A pod, and its host's address, in a subnet of their own.
const SECOND_POD: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 2);
const SECOND_ROUTER: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 1);

/// Two links in one subnet, both with a default route, and a bridge with a card.
struct Node {
    lab: Lab,
    _elsewhere: NetNs,
}

fn node() -> Result<Option<Node>> {
    if !features::require(Feature::Macvlan)? {
        return Ok(None);
    }
    let lab = Lab::builder().links(2).build()?;
    let elsewhere = NetNs::new("elsewhere")?;
    wire::add(&lab.host, &elsewhere, "card")?;
    lab.host.ip_batch(&format!(
        "link add nic type bridge stp_state 0 forward_delay 0\n\
         link set card master nic\n\
         address add 10.7.0.5/24 dev nic\n\
         link set nic up\n\
         route add default via 10.7.0.1 metric 900\n\
         route add default via {PEER} dev eth0_int\n\
         route add default via {PEER} dev eth1_int metric 500"
    ))?;
    lab.host.sysctl("net.ipv4.ip_forward", "1")?;
    lab.switch.ip(&format!("route add 10.244.0.0/16 via {} src {PEER}", lab.address(0)))?;
    Ok(Some(Node { lab, _elsewhere: elsewhere }))
}

/// A pair with both ends on the host, over which the way to the pod leads, as Cilium has it. What Cilium's programs do, a rule
/// does here for what comes out of the pair.
fn add_pod_behind_pair(lab: &Lab) -> Result<NetNs> {
    let pod = NetNs::new("pod")?;
    lab.host.ip_batch(&format!(
        "link add inner type veth peer name outer\n\
         link set inner address 02:00:00:00:00:77 arp off\n\
         link set outer address 02:00:00:00:00:77 arp off\n\
         link set inner up\n\
         link set outer up\n\
         link add lxc1 type veth peer name eth0 netns {}\n\
         link set lxc1 up\n\
         address add {ROUTER}/32 dev inner\n\
         route add {ROUTER}/32 dev inner\n\
         route add 10.244.0.0/24 via {ROUTER} dev inner src {ROUTER}\n\
         rule add iif outer lookup 77 pref 50\n\
         route add {POD}/32 dev lxc1 table 77",
        pod.path()
    ))?;
    lab.host.sysctl("net.ipv4.conf.lxc1.proxy_arp", "1")?;
    lab.host.sysctl("net.ipv4.conf.outer.accept_local", "1")?;
    pod.ip_batch(&format!(
        "address add {POD}/32 dev eth0\n\
         link set eth0 up\n\
         route add {ROUTER}/32 dev eth0\n\
         route add default via {ROUTER}"
    ))?;
    let mac = device::mac_of(&pod, "eth0")?;
    lab.host.ip(&format!("neighbour add {POD} dev lxc1 lladdr {mac}"))?;
    Ok(pod)
}

/// A pair whose host's end has the gateway's address in the subnet of the pods.
fn add_pod_in_subnet(lab: &Lab) -> Result<NetNs> {
    let pod = NetNs::new("pod")?;
    lab.host.ip_batch(&format!(
        "link add lxc2 type veth peer name eth0 netns {}\n\
         address add {SECOND_ROUTER}/28 dev lxc2\n\
         link set lxc2 up",
        pod.path()
    ))?;
    pod.ip_batch(&format!(
        "address add {SECOND_POD}/28 dev eth0\n\
         link set eth0 up\n\
         route add default via {SECOND_ROUTER}"
    ))?;
    Ok(pod)
}

/// Node, pod and world reach each other by each of the node's addresses.
fn try_out(lab: &Lab, pod: &NetNs, (own, router): (Ipv4Addr, Ipv4Addr)) -> Result<()> {
    let server = tcp::EchoServer::start(&lab.host, Ipv4Addr::UNSPECIFIED, ARTICLE_PORT)?;
    icmp::ping(&lab.host, router, own, PATIENCE).context("node to pod")?;
    for address in [lab.address(0), lab.address(1), router] {
        let to = (address, server.address().port());
        let stream =
            tcp::connect(pod, own, std::net::SocketAddr::from(to)).with_context(|| address.to_string())?;
        tcp::echo_bulk(&stream, 100_000)?;
        tcp::close(stream)?;
    }
    icmp::ping(pod, own, FAR, PATIENCE).context("pod to the world")?;
    icmp::ping(&lab.switch, PEER, own, PATIENCE).context("the world to the pod")?;
    icmp::ping(&lab.switch, PEER, router, PATIENCE).context("the world to the pair's address")
}

#[test]
fn pairs_are_left_out_and_their_pods_reach_the_node() -> Result<()> {
    for mode in ["redirect", "drop"] {
        let Some(Node { lab, _elsewhere }) = node()? else { return Ok(()) };
        let (pod, second) = (add_pod_behind_pair(&lab)?, add_pod_in_subnet(&lab)?);
        let daemon = lab.run_mhebpf(&["run", "--all", "--mode", mode, "--no-announce"])?;
        let said = daemon.stderr();
        for name in ["eth0_int", "eth1_int", "nic"] {
            assert!(said.contains(&format!("enforcing on {name}\n")), "{said}");
        }
        assert_eq!(said.matches("enforcing on").count(), 3, "{said}");
        for (name, why) in [
            ("inner", "both ends of the pair are in this network namespace"),
            ("outer", "both ends of the pair are in this network namespace"),
            ("lxc1", "its other end is in another network namespace"),
            ("lxc2", "its other end is in another network namespace"),
        ] {
            assert!(said.contains(&format!("leaving out {name}: {why}")), "{said}");
            for hook in [tcx::Hook::Ingress, tcx::Hook::Egress] {
                assert_eq!(tcx::programs(&lab.host, name, hook)?, []);
            }
        }
        try_out(&lab, &pod, (POD, ROUTER)).with_context(|| format!("over the pair, mode {mode}"))?;
        try_out(&lab, &second, (SECOND_POD, SECOND_ROUTER)).with_context(|| format!("mode {mode}"))?;
        assert_eq!(daemon.stop()?.summary.counts(), [], "mode {mode}");
        lab.finish()?;
    }
    Ok(())
}
