//! Which interfaces reach a gateway directly.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::model::host::{Route, is_link_local};

/// The owners that reach a gateway without another one: those with a subnet that holds it. A default route without a
/// gateway says nothing about which gateways are near, and does not count.
pub(super) struct Nearby {
    /// Subnets that can be reached without a gateway, and the owners among the interfaces that they are on.
    on_link: HashMap<IpNet, Vec<u32>>,
    /// The prefix lengths of these subnets.
    lengths: BTreeSet<u8>,
    /// The subnets of each interface, link-local ones left out.
    subnets: HashMap<u32, BTreeSet<IpNet>>,
    /// Sets of owners, each once.
    sets: Vec<Vec<u32>>,
    places: HashMap<Vec<u32>, usize>,
    known: HashMap<Neighbourhood, usize>,
}

/// Where a gateway is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Neighbourhood {
    /// In the subnets that hold it.
    Of(IpAddr),
    /// On the link of an interface. A link-local address means a neighbour on one link only (RFC 4007), so it is near
    /// where both interfaces are on the same link, which a common subnet shows.
    LinkOf(u32),
}

impl Nearby {
    pub(super) fn new(routes: &[&Route], owners: &BTreeSet<u32>) -> Self {
        let mut nearby = Self {
            on_link: HashMap::new(),
            lengths: BTreeSet::new(),
            subnets: HashMap::new(),
            sets: Vec::new(),
            places: HashMap::new(),
            known: HashMap::new(),
        };
        for route in routes.iter().filter(|route| route.destination.prefix_len() > 0) {
            for hop in route.hops.iter().filter(|hop| hop.gateway.is_none()) {
                nearby.lengths.insert(route.destination.prefix_len());
                let interfaces = nearby.on_link.entry(route.destination).or_default();
                if owners.contains(&hop.ifindex) {
                    interfaces.push(hop.ifindex);
                }
                if !is_link_local(route.destination.addr()) {
                    nearby.subnets.entry(hop.ifindex).or_default().insert(route.destination);
                }
            }
        }
        nearby
    }

    /// The place of the set of owners that a gateway is near to, which is known on the interface `known_on`.
    pub(super) fn of(&mut self, gateway: IpAddr, known_on: u32) -> usize {
        let neighbourhood =
            if is_link_local(gateway) { Neighbourhood::LinkOf(known_on) } else { Neighbourhood::Of(gateway) };
        if let Some(place) = self.known.get(&neighbourhood) {
            return *place;
        }
        let place = self.place_of(self.find(neighbourhood));
        self.known.insert(neighbourhood, place);
        place
    }

    pub(super) fn interfaces(&self, place: usize) -> &[u32] {
        self.sets.get(place).map_or(&[], Vec::as_slice)
    }

    fn find(&self, neighbourhood: Neighbourhood) -> Vec<u32> {
        let subnets: Vec<IpNet> = match neighbourhood {
            Neighbourhood::Of(gateway) => {
                self.lengths.iter().filter_map(|length| IpNet::new(gateway, *length).ok()).collect()
            }
            Neighbourhood::LinkOf(known_on) => {
                self.subnets.get(&known_on).into_iter().flatten().copied().collect()
            }
        };
        let mut interfaces: Vec<u32> = subnets
            .iter()
            .filter_map(|subnet| self.on_link.get(&subnet.trunc()))
            .flatten()
            .copied()
            .collect();
        interfaces.sort_unstable();
        interfaces.dedup();
        interfaces
    }

    fn place_of(&mut self, set: Vec<u32>) -> usize {
        *self.places.entry(set).or_insert_with_key(|set| {
            self.sets.push(set.clone());
            self.sets.len() - 1
        })
    }
}
