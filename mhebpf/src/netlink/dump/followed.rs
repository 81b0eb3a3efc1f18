//! Dumps of hosts with very many routes, which are followed instead.

use std::{io, time::Duration};

use anyhow::Result;

use super::Dumper;
use crate::{
    model::Leaves,
    netlink::{
        events::Events,
        following::{Following, Part},
    },
};

/// More routes than this are followed: a dump takes longer than what is waited for may.
const MANY: usize = 10_000;

impl Dumper {
    /// The same, which leaves more routes than [`MANY`] out of its snapshots, and follows them by their events instead: they are
    /// in [`Dumper::leaves`] then.
    ///
    /// # Errors
    ///
    /// As for [`Dumper::connect`].
    pub fn following() -> Result<Self> {
        Self::following_from(MANY)
    }

    /// The same for more routes than `many`.
    ///
    /// # Errors
    ///
    /// As for [`Dumper::connect`].
    pub fn following_from(many: usize) -> Result<Self> {
        Ok(Self { follows_from: Some(many), ..Self::connect()? })
    }

    /// The routes that are followed.
    pub fn leaves(&mut self) -> Option<&mut Leaves> {
        self.following.as_mut().map(|following| &mut following.fib.leaves)
    }

    /// How many routes are followed, how long ago they were last compared with all that there are, and whether some may be wrong.
    pub fn followed(&self) -> Option<(usize, Duration, bool)> {
        let following = self.following.as_ref()?;
        let (ago, in_doubt) = following.checked();
        Some((following.fib.len(), ago, in_doubt))
    }

    /// Whether a dump is running that compares all routes with what is followed.
    pub fn is_comparing(&self) -> bool {
        self.following.as_ref().is_some_and(Following::is_comparing)
    }

    /// Follows the events of routes that are waiting. Whether a snapshot is to be taken.
    ///
    /// # Errors
    ///
    /// When their socket fails.
    pub fn follow(&mut self, events: &mut Events) -> io::Result<bool> {
        events.follow_routes(self.following.is_some());
        let Some(following) = &mut self.following else { return Ok(true) };
        following.follow(events)?;
        Ok(self.needs_snapshot())
    }

    /// Something has happened that may change routes without an event.
    pub fn doubt_routes(&mut self) {
        if let Some(following) = &mut self.following {
            following.doubt();
        }
    }

    /// Waits for a part of the routes that are dumped for comparison, where they are followed.
    pub async fn part(&mut self) -> Part {
        match &mut self.following {
            Some(following) => following.part().await,
            None => std::future::pending().await,
        }
    }

    /// Compares a part of the routes with what is known. Whether a snapshot is to be taken.
    pub fn compare(&mut self, part: Part) -> bool {
        let Some(following) = &mut self.following else { return true };
        following.take(part) && self.needs_snapshot()
    }

    fn needs_snapshot(&mut self) -> bool {
        let Some(following) = &mut self.following else { return true };
        following.fib.take_others_have_changed() || following.fib.leaves.interfaces() != self.last.leaves
    }
}
