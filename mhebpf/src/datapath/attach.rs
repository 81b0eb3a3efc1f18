//! Attaching the programs to interfaces, and taking them off again.

use std::{
    collections::BTreeMap,
    fmt,
    os::fd::{AsFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::programs::{SchedClassifier, links::PinnedLink};
use tracing::{info, warn};

use super::{
    chain::{Place, Strangers},
    clsact::{self, Filter, program_name},
    grace_period::Expedited,
    load::Programs,
    pinned,
    standing::{Moves, Standing},
    tcx::{self, NoTcx},
};
use crate::{
    pins::{Directory, Pinned, Side, id_of_link},
    stop,
};

/// How the programs hang on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// TCX where the kernel has it, else clsact.
    Auto,
    /// TCX (Linux 6.6): links that go away with the process, in a chain with those of others.
    Tcx,
    /// Filters of a clsact qdisc, as `tc filter` shows them.
    Clsact,
}

impl Hook {
    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "TCX or clsact",
            Self::Tcx => "TCX",
            Self::Clsact => "clsact",
        })
    }
}

/// An interface with the programs on it.
pub(super) struct Attachment {
    pub(super) name: String,
    // In the order in which they are taken off: the receive filter is never on without the egress program.
    pub(super) ingress: Held,
    pub(super) egress: Held,
    hook: Hook,
    /// The clsact qdisc was not there before.
    added_qdisc: bool,
    /// Others come before, and nothing is done about it.
    is_behind: bool,
}

/// A program on an interface.
pub(super) struct Held {
    pub(super) link: Link,
    /// By which the kernel lists the link, which no other has later. None of a filter.
    pub(super) id: Option<u32>,
    /// It was not taken over from an earlier run.
    is_new: bool,
}

/// What holds a program on an interface.
pub(super) enum Link {
    /// It ends with the process.
    Own(OwnedFd),
    /// It outlives the process.
    Pinned(PinnedLink),
    /// A filter of clsact.
    Filter(Filter),
}

impl Attachment {
    /// Where the programs are on the interface of this network namespace that has the index; the worse of both.
    fn standing(&self, ifindex: u32) -> Standing {
        let standing = |held: &Held, side| match self.hook {
            Hook::Clsact => Standing::of_filter(ifindex, side),
            Hook::Auto | Hook::Tcx => Standing::of_link(ifindex, side, held.id),
        };
        standing(&self.ingress, Side::Ingress).max(standing(&self.egress, Side::Egress))
    }

    /// Says what has become of it.
    fn note_whether_behind(&mut self, is_behind: bool) {
        if is_behind == self.is_behind {
            return;
        }
        self.is_behind = is_behind;
        let name = &self.name;
        if !is_behind {
            info!("no programs of others come before those of mhebpf on {name} any more");
        } else if self.hook == Hook::Clsact {
            warn!(
                "others come before the filters of mhebpf on {name}, by TCX or by a priority above {}: packets whose way \
                 those end are not judged; give them a priority of {} or more",
                clsact::PRIORITY,
                clsact::PRIORITY + 1
            );
        } else {
            warn!(
                "programs of others come before those of mhebpf on {name}, and insist: packets whose way those end are not \
                 judged; in a minute mhebpf will be first again"
            );
        }
    }
}

/// The interfaces that the programs are attached to.
pub struct Attachments {
    wanted: Hook,
    /// The same, or what the kernel turned out to have.
    hook: Hook,
    /// Where links are pinned, if they are.
    pub(super) pins: Option<Directory>,
    pub(super) attached: BTreeMap<u32, Attachment>,
    /// A link of an earlier run has come to run one of these programs.
    has_replaced: bool,
    moves: Moves,
    /// Somebody may have changed filters since they were looked at.
    are_filters_doubtful: bool,
}

impl Attachments {
    /// Nothing is attached yet.
    pub fn new(hook: Hook) -> Self {
        Self {
            wanted: hook,
            hook,
            pins: None,
            attached: BTreeMap::new(),
            has_replaced: false,
            moves: Moves::default(),
            are_filters_doubtful: false,
        }
    }

    /// Nothing is attached yet. Links will be pinned in a directory, and those that are pinned there taken over.
    pub fn pinned(hook: Hook, directory: Directory) -> Self {
        Self { pins: Some(directory), ..Self::new(hook) }
    }

    /// The interfaces by ifindex, with the name that each had when the programs were attached.
    pub fn names(&self) -> impl Iterator<Item = (u32, &str)> {
        self.attached.iter().map(|(ifindex, attachment)| (*ifindex, attachment.name.as_str()))
    }

    /// Where the programs are on each interface that they were attached to: another one may have its index now, or somebody has
    /// taken them off or put others before them, which is said where nothing can be done about it. Takes two system calls for
    /// each interface, or two dumps of the filters of clsact where those are doubtful.
    pub fn look(&mut self) -> Vec<(u32, Standing)> {
        let standing =
            |(ifindex, attachment): (&u32, &Attachment)| (*ifindex, self.standing_of(*ifindex, attachment));
        let standings: Vec<(u32, Standing)> = self.attached.iter().map(standing).collect();
        for (ifindex, standing) in &standings {
            let is_behind = *standing == Standing::Behind && !self.can_move(*ifindex);
            if let Some(attachment) = self.attached.get_mut(ifindex) {
                attachment.note_whether_behind(is_behind);
            }
        }
        standings
    }

    fn standing_of(&self, ifindex: u32, attachment: &Attachment) -> Standing {
        // Programs of TCX come before filters, and nothing tells of them.
        let is_alone = || {
            [Side::Ingress, Side::Egress]
                .into_iter()
                .all(|side| !tcx::links(ifindex, side).is_ok_and(|links| !links.is_empty()))
        };
        if attachment.hook == Hook::Clsact
            && !self.are_filters_doubtful
            && !attachment.is_behind
            && clsact::is_there(ifindex, &attachment.name)
            && is_alone()
        {
            return Standing::InPlace;
        }
        attachment.standing(ifindex)
    }

    /// Whether programs that others are before can be put first: the priority of a filter is what it is.
    fn can_move(&self, ifindex: u32) -> bool {
        self.hook_of(ifindex) != Some(Hook::Clsact) && self.moves.may_move(ifindex)
    }

    /// Whether programs of others come before those on the interface and stay there, as it was last seen.
    pub fn is_behind(&self, ifindex: u32) -> bool {
        self.attached.get(&ifindex).is_some_and(|attachment| attachment.is_behind)
    }

    /// Whether programs of another mhebpf are on an interface as well.
    pub fn strangers(&self, ifindex: u32) -> Strangers {
        let attachment = self.attached.get(&ifindex);
        attachment.map_or(Strangers::None, |attachment| Strangers::on(ifindex, attachment.egress.id))
    }

    /// The place of the program for a side of an interface among those of others; `None` where it can't be told.
    pub fn place(&self, ifindex: u32, side: Side) -> Option<Place> {
        let attachment = self.attached.get(&ifindex)?;
        if attachment.hook == Hook::Clsact {
            return clsact::place(ifindex, side).ok()?;
        }
        let held = match side {
            Side::Ingress => &attachment.ingress,
            Side::Egress => &attachment.egress,
        };
        let links = tcx::links(ifindex, side).ok()?;
        let before = links.iter().position(|link| Some(*link) == held.id)?;
        Some(Place { place: before + 1, programs: links.len() })
    }

    /// Has filters be looked at the next time.
    pub fn doubt(&mut self) {
        self.are_filters_doubtful = true;
    }

    /// What could be done about all that was disturbed is done.
    pub fn trust(&mut self) {
        self.are_filters_doubtful = false;
    }

    /// Whether an interface had another name when the programs were attached.
    pub fn is_called_otherwise(&self, ifindex: u32, name: &str) -> bool {
        self.attached.get(&ifindex).is_some_and(|attachment| attachment.name != name)
    }

    /// Whether something is to be done about where the programs are anywhere.
    pub fn are_disturbed(&mut self) -> bool {
        let standings = self.look();
        let is_disturbed = |(ifindex, standing): &(u32, Standing)| match standing {
            Standing::InPlace => false,
            Standing::Behind => self.can_move(*ifindex),
            Standing::Gone => true,
        };
        let are_disturbed = standings.iter().any(is_disturbed);
        if !are_disturbed {
            self.trust();
        }
        are_disturbed
    }

    /// Takes the programs off an interface where others are before them, for them to be put first again. They stay where that
    /// was tried often enough. Says what is done.
    pub fn move_up(&mut self, ifindex: u32) -> bool {
        if !self.can_move(ifindex) {
            return false;
        }
        let is_last = self.moves.note(ifindex);
        if let Some(attachment) = self.attached.get(&ifindex) {
            let name = &attachment.name;
            warn!(
                "programs of others were put before those of mhebpf on {name}, and could bypass them: being first again"
            );
            if is_last {
                warn!("whoever wants to be first on {name} will stay so for a minute, if that happens again");
            }
        }
        self.detach(&[ifindex]);
        true
    }

    /// Whether the programs were attached to the interface.
    pub fn contains(&self, ifindex: u32) -> bool {
        self.attached.contains_key(&ifindex)
    }

    /// The hook that was asked for.
    pub fn wanted_hook(&self) -> Hook {
        self.wanted
    }

    /// The hook that is in use, once something is attached.
    pub fn hook(&self) -> Option<Hook> {
        self.attached.values().next().map(|attachment| attachment.hook)
    }

    /// The hook that is in use on the interface.
    pub fn hook_of(&self, ifindex: u32) -> Option<Hook> {
        self.attached.get(&ifindex).map(|attachment| attachment.hook)
    }

    /// Whether packets may be judged by these programs: they are attached somewhere, or a link of an earlier run was taken over,
    /// be it only one of an interface's two.
    pub fn are_in_use(&self) -> bool {
        self.has_replaced || !self.attached.is_empty()
    }

    /// Attaches both programs to each of these interfaces, and says of each, in the same order, how it went. It ends with the first
    /// one that was given up, as the daemon is told to end.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, or the interface was renamed or replaced meanwhile; nothing is left attached to it then, except
    /// by links of an earlier run.
    pub fn attach(&mut self, programs: &mut Programs, interfaces: &[(u32, String)]) -> Vec<Result<()>> {
        let _expedited = self.expedite(interfaces.len());
        let mut results = Vec::new();
        for (ifindex, name) in interfaces {
            if let Err(stopped) = stop::check() {
                results.push(Err(stopped.into()));
                break;
            }
            results.push(self.attach_to(programs, *ifindex, name));
        }
        results
    }

    /// For one interface a machine-wide switch is not worth its price, and filters wait for nothing.
    fn expedite(&self, interfaces: usize) -> Option<Expedited> {
        if interfaces > 1 && self.hook != Hook::Clsact { Expedited::begin() } else { None }
    }

    /// Egress first.
    fn attach_to(&mut self, programs: &mut Programs, ifindex: u32, name: &str) -> Result<()> {
        // Another interface can have the index by now.
        if !clsact::is_there(ifindex, name) {
            bail!("the interface {name} was renamed or replaced while it was being attached to");
        }
        let (hook, added_qdisc) = match self.hook {
            Hook::Clsact => (Hook::Clsact, clsact::add(ifindex, name)?),
            Hook::Tcx | Hook::Auto => {
                // They would judge beside these programs, by tables that nobody keeps in step.
                clsact::clear_leftovers(ifindex, name);
                (Hook::Tcx, false)
            }
        };
        let attachment = match self.attach_by(programs, (ifindex, name), hook, added_qdisc) {
            Err(error) if self.pins.is_some() && error.is::<NoTcx>() => {
                return Err(error
                    .context("--pin needs TCX (Linux 6.6), which this kernel does not have: leave it out"));
            }
            Err(error) if self.hook == Hook::Auto && error.is::<NoTcx>() => {
                info!("this kernel has no TCX: using a clsact qdisc and filters");
                self.hook = Hook::Clsact;
                return self.attach_to(programs, ifindex, name);
            }
            result => result,
        };
        let attachment = attachment.inspect_err(|_| {
            if added_qdisc {
                clsact::remove_if_empty(ifindex, name);
            }
        })?;
        if !clsact::is_there(ifindex, name) {
            detach(ifindex, attachment);
            bail!("the interface {name} was renamed or replaced while it was being attached to");
        }
        // Filters of others may have been there before.
        self.are_filters_doubtful |= hook == Hook::Clsact;
        self.attached.insert(ifindex, attachment);
        Ok(())
    }

    fn attach_by(
        &mut self,
        programs: &mut Programs,
        (ifindex, name): (u32, &str),
        hook: Hook,
        added_qdisc: bool,
    ) -> Result<Attachment> {
        let mut attach = |program: &mut SchedClassifier, side| {
            let pin = self.pins.as_ref().map(|directory| Pinned::new(directory, ifindex, side));
            if let Some(pin) = &pin
                && let Some((link, id)) = pinned::take_over(program, pin)?
            {
                self.has_replaced = true;
                return Ok(Held { link: Link::Pinned(link), id, is_new: false });
            }
            let link = attach_one(program, (ifindex, name), side, hook)?;
            let Link::Own(descriptor) = &link else { return Ok(Held { link, id: None, is_new: true }) };
            let id = id_of_link(descriptor);
            let link = match pin {
                Some(pin) => Link::Pinned(pinned::pin(descriptor, &pin)?),
                None => link,
            };
            Ok(Held { link, id, is_new: true })
        };
        let egress = attach(programs.egress()?, Side::Egress)?;
        let ingress = match attach(programs.ingress()?, Side::Ingress) {
            Ok(ingress) => ingress,
            Err(error) => {
                // What an earlier run has attached stays: its receive filter may be on, which must not be without it.
                if egress.is_new {
                    detach_one(egress, name, Side::Egress);
                }
                return Err(error);
            }
        };
        Ok(Attachment { name: name.to_owned(), ingress, egress, hook, added_qdisc, is_behind: false })
    }

    /// Takes the programs off interfaces that are still there. Failures are logged, and the rest goes on.
    pub fn detach(&mut self, interfaces: &[u32]) {
        let _expedited = self.expedite(interfaces.len());
        for ifindex in interfaces {
            if let Some(attachment) = self.attached.remove(ifindex) {
                detach(*ifindex, attachment);
            }
        }
    }

    /// Takes the programs off everywhere.
    pub fn detach_all(&mut self) {
        let interfaces: Vec<u32> = self.attached.keys().copied().collect();
        self.detach(&interfaces);
    }

    /// Forgets an interface that no longer exists, or not with the programs on it; the kernel has taken them off with it.
    pub fn forget(&mut self, ifindex: u32) {
        self.moves.forget(ifindex);
        if let Some(attachment) = self.attached.get(&ifindex) {
            info!("{} is gone, and the programs with it", attachment.name);
        }
        self.let_go_of(ifindex);
    }

    /// Lets go of programs that somebody has taken off an interface, for them to be attached again.
    pub fn lose(&mut self, ifindex: u32) {
        let Some(attachment) = self.attached.get(&ifindex) else { return };
        let (name, added_qdisc) = (attachment.name.clone(), attachment.added_qdisc);
        warn!("somebody has taken programs off {name}, which was not enforced: attaching them again");
        self.let_go_of(ifindex);
        if added_qdisc {
            clsact::remove_if_empty(ifindex, &name);
        }
    }

    fn let_go_of(&mut self, ifindex: u32) {
        if let Some(Attachment { name, ingress, egress, .. }) = self.attached.remove(&ifindex) {
            for (held, side) in [(ingress, Side::Ingress), (egress, Side::Egress)] {
                // A pinned link would outlive the interface; of the two programs one may be there.
                if let Link::Pinned(_) = held.link {
                    detach_one(held, &name, side);
                }
            }
        }
    }

    /// Notes the new name of an interface.
    pub fn rename(&mut self, ifindex: u32, name: &str) {
        if let Some(attachment) = self.attached.get_mut(&ifindex)
            && attachment.name != name
        {
            info!("{} is now called {name}", attachment.name);
            name.clone_into(&mut attachment.name);
        }
    }
}

fn attach_one(
    program: &SchedClassifier,
    (ifindex, interface): (u32, &str),
    side: Side,
    hook: Hook,
) -> Result<Link> {
    let descriptor = program.fd()?.as_fd();
    let attached = match hook {
        Hook::Clsact => match clsact::attach(descriptor, ifindex, side) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                // There is one daemon for each namespace, so this filter is of one that was killed.
                let name = program_name(side);
                warn!("replacing the filter {name} that an earlier run has left on {interface}");
                clsact::remove(ifindex, side)
                    .with_context(|| format!("removing the filter {name} left on {interface}"))?;
                clsact::attach(descriptor, ifindex, side)
            }
            attached => attached,
        }
        .map(Link::Filter)
        .map_err(anyhow::Error::from),
        // First: no other program's verdict is taken before ours.
        Hook::Auto | Hook::Tcx => tcx::attach_first(descriptor, ifindex, side).map(Link::Own),
    };
    attached.with_context(|| format!("attaching {} to {interface} by {hook}", program_name(side)))
}

fn detach(ifindex: u32, attachment: Attachment) {
    let Attachment { name, ingress, egress, added_qdisc, .. } = attachment;
    detach_one(ingress, &name, Side::Ingress);
    detach_one(egress, &name, Side::Egress);
    if added_qdisc {
        clsact::remove_if_empty(ifindex, &name);
    }
}

fn detach_one(held: Held, interface: &str, side: Side) {
    let result = match held.link {
        // Closing it is enough.
        Link::Own(_) => Ok(()),
        // What was the last descriptor is closed then.
        Link::Pinned(link) => link.unpin().map(drop).map_err(|error| anyhow!(error)),
        Link::Filter(filter) => filter.remove().map_err(|error| anyhow!(error)),
    };
    if let Err(error) = result {
        warn!("detaching {} from {interface}: {error:#}", program_name(side));
    }
}
