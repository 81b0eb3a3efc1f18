//! Maps that are too small.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use tokio::time::{Duration, Instant};
use tracing::{debug, error, info, warn};

use super::{Daemon, lasting::Larger, reports};
use crate::{
    datapath::{Sizes, wait_for_grace_period},
    model::{
        Host, Tables,
        tables::{Entries, LeftOut, fit},
    },
    netlink::Dumper,
    stop,
};

/// After how long it is tried again to make larger maps.
const AGAIN: Duration = Duration::from_secs(30);

/// What is known of maps that are too small.
#[derive(Default)]
pub(super) struct Growing {
    /// When larger ones could not be made.
    failed: Option<Instant>,
    /// What there is no room for.
    pub(super) left_out: LeftOut,
}

impl Daemon<'_> {
    /// Has room for `tables` where that can be had: programs with larger maps, in which all is written, take the place of those that
    /// are attached. Gives what there is room for.
    ///
    /// # Errors
    ///
    /// When the daemon is told to end.
    pub(super) fn make_room(&mut self, host: &Host, dumper: &mut Dumper, tables: Tables) -> Result<Tables> {
        let written = self.datapath.maps.written();
        let room = self.datapath.capacities.room();
        // Which is more than there can be, and found more quickly.
        let most = Entries::of(written).with(Entries::of(&tables), usize::saturating_add);
        let sizes = Sizes::larger(room, most).and_then(|_| {
            let for_a_moment = Entries::of_change(written, &tables);
            Sizes::larger(room, for_a_moment)
        });
        let may_try = self.growing.failed.is_none_or(|failed| failed.elapsed() >= AGAIN);
        if let Some(sizes) = sizes.filter(|_| may_try) {
            self.growing.failed = None;
            match self.grow(dumper, &tables, sizes) {
                Err(error) if stop::has_caused(&error) => return Err(error),
                Err(error) => {
                    self.growing.failed = Some(Instant::now());
                    error!(
                        "the BPF maps are nearly full, and can't be made larger: {error:#}; they stay as they are. If memory is \
                         short, free some, or raise the limit of the control group (MemoryMax= of the unit)"
                    );
                }
                Ok(()) => {}
            }
        }
        let enforced: BTreeSet<u32> = self.policies.keys().copied().collect();
        let (tables, left_out) = fit(tables, self.datapath.capacities.room(), &enforced);
        self.note_left_out(host, left_out);
        Ok(tables)
    }

    fn grow(&mut self, dumper: &mut Dumper, tables: &Tables, sizes: Sizes) -> Result<()> {
        let started = Instant::now();
        // What is followed is repeated below as it is in the maps.
        self.follow_routes(dumper)?;
        let mut larger = self.lasting.load_again(sizes)?;
        match self.fill(&mut larger, dumper, tables) {
            Ok(()) => {}
            Err(error) => {
                larger.give_up();
                return Err(error);
            }
        }
        self.attachments.replace(&mut larger.datapath.programs);
        let larger = larger.take_place(&mut self.lasting);
        let before = std::mem::replace(&mut self.datapath, larger);
        if !self.lasting.keeps_counters() {
            // A program that has begun may still count.
            if let Err(error) = wait_for_grace_period() {
                debug!("not waiting for programs that were replaced: {error}");
            }
            if let Err(error) = self.datapath.counters.go_on_from(&before.counters) {
                warn!("counting from 0: {error:#}");
            }
        }
        info!(
            "the BPF maps were nearly full: larger ones are in force, which took {} ms",
            started.elapsed().as_millis()
        );
        Ok(())
    }

    fn fill(&mut self, larger: &mut Larger, dumper: &mut Dumper, tables: &Tables) -> Result<()> {
        let datapath = &mut larger.datapath;
        let (fitting, _) =
            fit(tables.clone(), datapath.capacities.room(), &self.policies.keys().copied().collect());
        datapath.maps.write(&fitting)?;
        if let Some(leaves) = dumper.leaves() {
            datapath.maps.write_next_hops(|write| self.next_hops.repeat(leaves, write))?;
        }
        datapath.samples.go_on_from(&self.datapath.samples)?;
        let reporter = datapath.reports.take().map(reports::follow).transpose()?;
        self.watch.turn_to(&mut datapath.samples).context("turning to the samples of larger maps")?;
        if let Some(before) = std::mem::replace(&mut self.reporter, reporter) {
            before.abort();
        }
        Ok(())
    }

    /// Says what there is no room for where that is news.
    fn note_left_out(&mut self, host: &Host, left_out: LeftOut) {
        if left_out == self.growing.left_out {
            return;
        }
        let before = std::mem::replace(&mut self.growing.left_out, left_out);
        let now = &self.growing.left_out;
        if now.is_empty() {
            info!("the BPF maps have room for all again");
        }
        let new = now.iter().filter(|(ifindex, missing)| before.get(ifindex) != Some(missing));
        for (ifindex, missing) in new.take(NAMED) {
            error!("{}", super::answers::no_room(host, *ifindex, *missing).why);
        }
        if let Some(more @ 1..) = now.len().checked_sub(NAMED) {
            error!("the BPF maps have no room for {more} interfaces more: `mhebpf status` names them");
        }
    }
}

/// How many interfaces are named in the log.
const NAMED: usize = 8;
