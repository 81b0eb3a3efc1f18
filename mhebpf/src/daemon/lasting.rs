//! What outlives the daemon, where the operator wants that.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use tracing::{debug, info, warn};

use crate::{
    datapath::{Attachments, Datapath, Hook, Sizes, StateMap, expedited, load_into, reports},
    model::Host,
    pins::{self, Generation, Pinned, Pins},
    settings::Fixed,
    usage::UsageError,
};

/// The pins of this daemon; none where everything ends with it.
pub(super) struct Lasting {
    pinned: Option<(Pins, Generation)>,
    /// All is taken off at the end, whatever ends the daemon.
    is_trial: bool,
    /// There were programs in force.
    takes_over: bool,
    /// Nothing of an earlier start is left.
    settled: bool,
    /// It was noted when the maps were written.
    noted: bool,
}

impl Lasting {
    /// Loads the programs, with maps of these sizes. What is in force, of an earlier start, stays so: the links that it has.
    ///
    /// # Errors
    ///
    /// When the kernel refuses them, or there is no BPF file system to pin them in. [`UsageError`] for a hook that can't be
    /// pinned.
    pub(super) fn load(fixed: &Fixed, sizes: Sizes) -> Result<(Self, Datapath, Attachments, Vec<Pinned>)> {
        let (hook, is_trial) = (fixed.hook, fixed.run_for.is_some());
        let reporting = reports::are_shown();
        let Some(directory) = &fixed.pin else {
            refuse_leftovers()?;
            let lasting = Self { pinned: None, is_trial, takes_over: false, settled: true, noted: false };
            let datapath = load_into(reporting, None, Some(sizes))?;
            return Ok((lasting, datapath, Attachments::new(hook), Vec::new()));
        };
        if hook == Hook::Clsact {
            return Err(UsageError::new(
                "--pin goes with TCX, and --hook clsact excludes that: leave one of them out",
            )
            .into());
        }
        let pins = Pins::open(directory)?;
        pins.remove_dead_neighbours();
        let generation = pins.begin()?;
        let inherited = pins.links()?;
        let taken_over = inherited.len();
        if taken_over > 0 {
            info!("{taken_over} pinned links of an earlier run are in force: taking them over");
        }
        let attachments = Attachments::pinned(hook, pins.directory().clone());
        let loaded = load_into(reporting, Some(&generation), Some(sizes));
        let takes_over = taken_over > 0;
        let lasting =
            Self { pinned: Some((pins, generation)), is_trial, takes_over, settled: false, noted: false };
        match loaded {
            Ok(datapath) => Ok((lasting, datapath, attachments, inherited)),
            Err(error) => {
                lasting.give_up(&attachments);
                Err(error)
            }
        }
    }

    /// Loads the programs once more, with maps of other sizes. Those that are in force stay so until [`Larger::take_place`].
    ///
    /// # Errors
    ///
    /// When the kernel refuses them.
    pub(super) fn load_again(&self, sizes: Sizes) -> Result<Larger> {
        let reporting = reports::are_shown();
        let Some((pins, _)) = &self.pinned else {
            return Ok(Larger { datapath: load_into(reporting, None, Some(sizes))?, generation: None });
        };
        let generation = pins.begin()?;
        match load_into(reporting, Some(&generation), Some(sizes)) {
            Ok(datapath) => Ok(Larger { datapath, generation: Some(generation) }),
            Err(error) => {
                remove(&generation);
                Err(error)
            }
        }
    }

    /// Whether what is counted goes on by itself where other maps come to be in force.
    pub(super) fn keeps_counters(&self) -> bool {
        self.pinned.is_some()
    }

    /// Where this namespace's pins are.
    pub(super) fn place(&self) -> Option<String> {
        self.pinned.as_ref().map(|(pins, _)| pins.directory().path().display().to_string())
    }

    /// Whether programs of an earlier start may still be in force. They are not replaced by what has less than they.
    pub(super) fn takes_over(&self) -> bool {
        self.takes_over && !self.settled
    }

    /// Notes that the maps are in step with the host now. The first time it is noted even if they are not quite: that they are
    /// in force is told by it.
    pub(super) fn note(&mut self, state: &mut StateMap, in_step: bool) {
        if self.pinned.is_none() || self.noted && !in_step {
            return;
        }
        match state.note() {
            Ok(()) => self.noted = true,
            Err(error) => warn!("`mhebpf status` will not know when the maps were written: {error:#}"),
        }
    }

    /// Removes what an earlier start has left: links on interfaces that are not enforced any more, and, once no program
    /// uses them, its maps.
    pub(super) fn settle(&mut self, host: &Host, enforced: &BTreeSet<u32>, attachments: &Attachments) {
        let Some((pins, generation)) = self.pinned.as_ref().filter(|_| !self.settled) else { return };
        match settle(pins, generation, (host, enforced), attachments) {
            Ok(settled) => self.settled = settled,
            Err(error) => warn!("what an earlier run has left is removed later: {error:#}"),
        }
    }

    /// Takes everything off, or leaves it in force.
    pub(super) fn end(&self, attachments: &mut Attachments, hung_up: bool) {
        match &self.pinned {
            Some((pins, _)) if self.is_trial || hung_up => {
                attachments.detach_all();
                if let Err(error) = expedited(|| pins.remove_all()) {
                    warn!("{error:#}");
                }
            }
            Some(_) => {
                info!("the programs stay in force with the tables of now: `mhebpf unload` takes them off");
            }
            None => attachments.detach_all(),
        }
    }

    /// Removes what a start that has failed has made; what was in force before stays so. Maps stay that the program of a link
    /// uses already.
    pub(super) fn give_up(&self, attachments: &Attachments) {
        let Some((pins, generation)) = &self.pinned else { return };
        let removed = match pins.links() {
            Ok(links) if links.is_empty() => pins.remove_all(),
            _ if attachments.are_in_use() => Ok(()),
            _ => generation.remove(),
        };
        if let Err(error) = removed {
            debug!("cleaning up after a start that has failed: {error:#}");
        }
    }
}

/// Programs with larger maps, that are not in force yet.
pub(super) struct Larger {
    pub(super) datapath: Datapath,
    generation: Option<Generation>,
}

impl Larger {
    /// The programs are those in force from now on, and the maps before are to go.
    pub(super) fn take_place(self, lasting: &mut Lasting) -> Datapath {
        if let (Some((_, generation)), Some(larger)) = (&mut lasting.pinned, self.generation) {
            *generation = larger;
            // What is still to be taken over of an earlier start is so from these.
            lasting.takes_over = lasting.takes_over();
            (lasting.settled, lasting.noted) = (false, false);
        }
        self.datapath
    }

    /// They never are.
    pub(super) fn give_up(self) {
        if let Some(generation) = &self.generation {
            remove(generation);
        }
    }
}

fn remove(generation: &Generation) {
    if let Err(error) = generation.remove() {
        debug!("removing maps that were not needed: {error:#}");
    }
}

fn settle(
    pins: &Pins,
    generation: &Generation,
    (host, enforced): (&Host, &BTreeSet<u32>),
    attachments: &Attachments,
) -> Result<bool> {
    let links = pins.links()?;
    let (wanted, unwanted): (Vec<_>, Vec<_>) =
        links.into_iter().partition(|link| enforced.contains(&link.ifindex));
    expedited(|| {
        for link in unwanted {
            info!("letting go of {} on {}, of an earlier run", link.side, host.name_of(link.ifindex));
            link.remove().with_context(|| format!("removing the pin {}", link.place().path().display()))?;
        }
        anyhow::Ok(())
    })?;
    let settled = wanted.iter().all(|link| attachments.contains(link.ifindex));
    if settled {
        pins.keep_only(generation)?;
    }
    Ok(settled)
}

/// Two daemons' programs on one interface would judge by different tables.
fn refuse_leftovers() -> Result<()> {
    let found = match Pins::find(&pins::directory(None)) {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(()),
        Err(error) => {
            // What others may have put there is none of mhebpf's. Without the right to look there is nothing to tell.
            if pins::is_distrust(&error) {
                warn!("not looking for programs of an earlier run: {error:#}");
            }
            return Ok(());
        }
    };
    if pins::links(&found).is_ok_and(|links| links.iter().any(|link| link.is_in_force().unwrap_or(true))) {
        bail!(
            "programs of an earlier `mhebpf run --pin` are in force in this network namespace ({}): take them over with \
             --pin, or take them off with `mhebpf unload`",
            found.path().display()
        );
    }
    Ok(())
}
