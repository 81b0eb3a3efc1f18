//! How quickly counters grow.

use std::time::Duration;

use crate::control::protocol::{Counter, Status};

/// Adds to the counters of enforced interfaces how quickly they have grown since an earlier look.
pub(super) fn add(status: &mut Status, before: &Status, elapsed: Duration) {
    let seconds = elapsed.as_secs_f64();
    // Another daemon counts from 0 again.
    if seconds <= 0.0 || status.pid != before.pid {
        return;
    }
    for interface in &mut status.interfaces {
        let earlier = before.interfaces.iter().find(|earlier| earlier.ifindex == interface.ifindex);
        for counter in &mut interface.counters {
            let counted =
                earlier.and_then(|earlier| earlier.counters.iter().find(|each| is_same(each, counter)));
            let grown = counter.packets.saturating_sub(counted.map_or(0, |counted| counted.packets));
            counter.rate = Some(grown as f64 / seconds);
        }
    }
}

fn is_same(one: &Counter, other: &Counter) -> bool {
    let key = |counter: &Counter| {
        (counter.direction.clone(), counter.family.clone(), counter.reason.clone(), counter.observed)
    };
    key(one) == key(other)
}
