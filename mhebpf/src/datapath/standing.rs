//! Where programs are, as the kernel says: anybody with the rights can take them off, or put others before them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{clsact, tcx};
use crate::pins::Side;

/// Where a program is on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// No other comes before.
    InPlace,
    /// Others run first, and can end the chain.
    Behind,
    /// Not there any more.
    Gone,
}

impl Standing {
    /// Of a link in its chain, by its id. What can't be asked is taken to be in place.
    pub(super) fn of_link(ifindex: u32, side: Side, id: Option<u32>) -> Self {
        let (Some(id), Ok(links)) = (id, tcx::links(ifindex, side)) else { return Self::InPlace };
        match links.iter().position(|link| *link == id) {
            Some(0) => Self::InPlace,
            Some(_) => Self::Behind,
            None => Self::Gone,
        }
    }

    /// Of a filter of clsact.
    pub(super) fn of_filter(ifindex: u32, side: Side) -> Self {
        match clsact::place(ifindex, side) {
            Ok(None) => Self::Gone,
            Ok(Some(place)) if place.place > 1 => Self::Behind,
            // What can't be asked is taken to be in place.
            Ok(Some(_)) | Err(_) => Self::InPlace,
        }
    }
}

/// How often programs are put first again on an interface while somebody else wants to be first too.
const MOVES: u32 = 3;
/// After how long it is tried again.
const TRUCE: Duration = Duration::from_secs(60);

/// Attempts to be first again, by interface.
#[derive(Debug, Default)]
pub(super) struct Moves(BTreeMap<u32, (u32, Instant)>);

impl Moves {
    /// Whether another attempt makes sense.
    pub(super) fn may_move(&self, ifindex: u32) -> bool {
        let attempt = self.0.get(&ifindex);
        attempt.is_none_or(|(count, last)| *count < MOVES || last.elapsed() > TRUCE)
    }

    /// Notes an attempt; `true` for the last one before it is given up.
    pub(super) fn note(&mut self, ifindex: u32) -> bool {
        let (count, last) = self.0.entry(ifindex).or_insert((0, Instant::now()));
        if last.elapsed() > TRUCE {
            *count = 0;
        }
        (*count, *last) = (*count + 1, Instant::now());
        *count == MOVES
    }

    /// Forgets an interface.
    pub(super) fn forget(&mut self, ifindex: u32) {
        self.0.remove(&ifindex);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_not_fought_for_ever() {
        let mut moves = Moves::default();
        let last: Vec<bool> = (0..MOVES).map(|_| moves.note(7)).collect();
        assert_eq!(last, [false, false, true]);
        assert!(!moves.may_move(7) && moves.may_move(8));
        moves.forget(7);
        assert!(moves.may_move(7));
    }
}
