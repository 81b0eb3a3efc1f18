//! The fewest prefixes that say which source is steered where.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{LeftOut, Object, SteeringRule, TABLE_BASE, Why, sources::Source};
use crate::model::host::prefix;

/// Rules for sources, which are in the order of their prefixes.
///
/// The kernel tries rules one after the other, so there are as few as can be: a prefix for all sources in it, where they have
/// the same owner. It does not reach beyond a subnet of that owner, and is as long as its sources allow: /32 or /128
/// for a single address. Addresses of other hosts in it are no sources of packets of local origin,
/// but for those of transparent proxies (`IP_TRANSPARENT`), which are steered with the prefix.
///
/// Takes O(n log n) time for n sources, times the length of an address at worst.
pub(super) fn of(
    sources: &[Source],
    subnets: &BTreeSet<(u32, IpNet)>,
    left_out: &mut Vec<LeftOut>,
) -> BTreeSet<SteeringRule> {
    let lengths: BTreeSet<u8> = subnets.iter().map(|(_, subnet)| subnet.prefix_len()).collect();
    let mut cover =
        Cover { sources, runs: runs(sources), subnets, lengths, rules: BTreeSet::new(), left_out };
    let ipv6 = sources.partition_point(|(prefix, _)| prefix.addr().is_ipv4());
    for (from, to) in [(0, ipv6), (ipv6, sources.len())] {
        cover.add(from, to);
    }
    cover.rules
}

struct Cover<'a> {
    sources: &'a [Source],
    /// For each source the end of the row of sources with the same owner that it is in.
    runs: Vec<usize>,
    subnets: &'a BTreeSet<(u32, IpNet)>,
    lengths: BTreeSet<u8>,
    rules: BTreeSet<SteeringRule>,
    left_out: &'a mut Vec<LeftOut>,
}

impl Cover<'_> {
    /// Adds the rules for the sources from one place to before another, all of one family.
    fn add(&mut self, from: usize, to: usize) {
        let mut rest = vec![(from, to)];
        while let Some((from, to)) = rest.pop() {
            let Some([(first, owner), ..]) = self.sources.get(from..to) else { continue };
            let around = common(*first, self.sources[to - 1].0);
            if self.runs[from] >= to {
                let Some(owner) = owner else { continue };
                if from + 1 == to || self.is_in_subnet(*owner, around) {
                    self.rules.insert(SteeringRule { source: around, table: TABLE_BASE + owner });
                    continue;
                }
            }
            if around == *first {
                // A prefix around others, and of another owner than they.
                if owner.is_some() {
                    let left_out = LeftOut { what: Object::Source(*first), why: Why::Overlapped };
                    self.left_out.push(left_out);
                }
                rest.push((from + 1, to));
                continue;
            }
            let half = self.sources[from..to].partition_point(|(source, _)| {
                let in_half = prefix(source.addr(), around.prefix_len() + 1);
                in_half.addr() == around.addr()
            });
            rest.extend([(from, from + half), (from + half, to)]);
        }
    }

    fn is_in_subnet(&self, owner: u32, inner: IpNet) -> bool {
        let mut lengths = self.lengths.range(..=inner.prefix_len());
        lengths.any(|length| self.subnets.contains(&(owner, prefix(inner.addr(), *length))))
    }
}

fn runs(sources: &[Source]) -> Vec<usize> {
    let mut runs = vec![sources.len(); sources.len()];
    for place in (1..sources.len()).rev() {
        let same = sources[place - 1].1 == sources[place].1;
        runs[place - 1] = if same { runs[place] } else { place };
    }
    runs
}

/// The longest prefix that holds both.
fn common(one: IpNet, other: IpNet) -> IpNet {
    let shared = match (one, other) {
        (IpNet::V4(one), IpNet::V4(other)) => {
            (u32::from(one.addr()) ^ u32::from(other.addr())).leading_zeros()
        }
        (IpNet::V6(one), IpNet::V6(other)) => {
            (u128::from(one.addr()) ^ u128::from(other.addr())).leading_zeros()
        }
        _ => 0,
    };
    prefix(one.addr(), one.prefix_len().min(other.prefix_len()).min(shared as u8))
}
