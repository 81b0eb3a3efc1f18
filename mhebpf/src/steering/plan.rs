//! The difference between the rules and routes that are wanted and those that are there.

use std::collections::{BTreeSet, HashMap, HashSet};

use ipnet::IpNet;

use crate::{
    model::{
        Steering,
        steering::{SteeringRoute, SteeringRule},
    },
    netlink::{PlacedRoute, PlacedRule},
};

/// What is to be done, in this order.
#[derive(Debug, Default)]
pub(super) struct Plan<'a> {
    /// Routes to be added, or to replace those with the same destination and metric: what leads to main first, then what
    /// gateways are found by.
    pub(super) set_routes: Vec<(u32, IpNet, &'a SteeringRoute)>,
    pub(super) add_rules: Vec<SteeringRule>,
    pub(super) remove_rules: Vec<&'a PlacedRule>,
    /// The other way round.
    pub(super) remove_routes: Vec<&'a PlacedRoute>,
}

impl<'a> Plan<'a> {
    /// `left_alone` are rules that are not to be added now. What is not ours is never removed.
    pub(super) fn new(
        steering: &'a Steering,
        left_alone: &BTreeSet<SteeringRule>,
        routes: &'a [PlacedRoute],
        rules: &'a [PlacedRule],
    ) -> Self {
        let mut plan = Self::default();
        let mut there: HashMap<(u32, IpNet, u32), &PlacedRoute> = HashMap::new();
        for placed in routes.iter().filter(|placed| placed.is_ours()) {
            there.insert((placed.table, placed.destination, placed.metric), placed);
        }
        for (table, wanted) in &steering.tables {
            for (destination, route) in wanted {
                let placed = there.remove(&(*table, *destination, route.metric(destination)));
                if placed.is_none_or(|placed| !placed.says(route)) {
                    plan.set_routes.push((*table, *destination, route));
                }
            }
        }
        plan.set_routes.sort_by_key(|(_, _, route)| rank(route));
        plan.remove_routes = there.into_values().collect();
        plan.remove_routes.sort_by_key(|placed| {
            (std::cmp::Reverse(placed.route.as_ref().map(rank)), placed.table, placed.destination)
        });
        let mut kept: HashSet<SteeringRule> = HashSet::new();
        for placed in rules.iter().filter(|placed| placed.is_ours()) {
            match placed.rule.filter(|rule| steering.rules.contains(rule)) {
                // The same twice, which the kernel does not allow today.
                Some(rule) if !kept.insert(rule) => plan.remove_rules.push(placed),
                Some(_) => {}
                None => plan.remove_rules.push(placed),
            }
        }
        let missing = steering.rules.iter().filter(|rule| !kept.contains(rule) && !left_alone.contains(rule));
        plan.add_rules = missing.copied().collect();
        plan
    }

    pub(super) fn is_empty(&self) -> bool {
        self.set_routes.is_empty()
            && self.add_rules.is_empty()
            && self.remove_rules.is_empty()
            && self.remove_routes.is_empty()
    }

    /// Whether something that is there is not wanted.
    pub(super) fn removes(&self) -> bool {
        !self.remove_rules.is_empty() || !self.remove_routes.is_empty()
    }

    pub(super) fn describe(&self) -> String {
        format!(
            "{} routes added, {} rules added, {} rules removed, {} routes removed",
            self.set_routes.len(),
            self.add_rules.len(),
            self.remove_rules.len(),
            self.remove_routes.len()
        )
    }
}

/// A throw keeps a packet from a shorter prefix's way. A gateway needs its subnet.
fn rank(route: &SteeringRoute) -> u8 {
    match route {
        SteeringRoute::Throw => 0,
        SteeringRoute::Through(way) if way.is_on_link() => 1,
        SteeringRoute::Through(_) => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Metrics,
        steering::{PROTOCOL, TABLE_BASE, Way},
        testing::{ip, net},
    };

    const TABLE: u32 = TABLE_BASE + 3;

    fn through(gateway: Option<&str>) -> SteeringRoute {
        let gateways = vec![crate::model::steering::Gateway::new(gateway.map(ip))];
        SteeringRoute::Through(Way {
            ifindex: 3,
            gateways,
            on_link: false,
            metric: 0,
            metrics: Metrics::default(),
        })
    }

    fn wanted() -> Steering {
        let routes = [
            (net("0.0.0.0/0"), through(Some("192.168.0.1"))),
            (net("192.168.0.0/21"), through(None)),
            (net("192.168.1.0/24"), SteeringRoute::Throw),
        ];
        let rule = SteeringRule { source: net("192.168.0.101/32"), table: TABLE };
        Steering { tables: [(TABLE, routes.into())].into(), rules: [rule].into(), left_out: Vec::new() }
    }

    fn placed(destination: &str, route: SteeringRoute, protocol: u8) -> PlacedRoute {
        PlacedRoute { table: TABLE, destination: net(destination), metric: 0, protocol, route: Some(route) }
    }

    #[test]
    fn what_gateways_need_comes_before_them() {
        let steering = wanted();
        let plan = Plan::new(&steering, &BTreeSet::new(), &[], &[]);
        let order: Vec<String> = plan.set_routes.iter().map(|(_, to, _)| to.to_string()).collect();
        assert_eq!(order, ["192.168.1.0/24", "192.168.0.0/21", "0.0.0.0/0"]);
        assert_eq!(plan.add_rules.len(), 1);
    }

    #[test]
    fn only_the_difference_is_done_and_what_is_not_ours_stays() {
        let steering = wanted();
        let there = [
            placed("0.0.0.0/0", through(Some("192.168.0.2")), PROTOCOL),
            placed("192.168.0.0/21", through(None), PROTOCOL),
            placed("192.168.1.0/24", SteeringRoute::Throw, PROTOCOL),
            placed("10.0.0.0/8", through(None), PROTOCOL),
            placed("10.1.0.0/16", through(None), 4),
        ];
        let plan = Plan::new(&steering, &steering.rules, &there, &[]);
        assert_eq!(plan.set_routes, [(TABLE, net("0.0.0.0/0"), &through(Some("192.168.0.1")))]);
        assert_eq!(plan.remove_routes, [&there[3]]);
        assert_eq!(plan.add_rules, [], "they are to be left alone");
        let nothing = Steering::default();
        assert_eq!(Plan::new(&nothing, &BTreeSet::new(), &there, &[]).remove_routes.len(), 4);
    }
}
