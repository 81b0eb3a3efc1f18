//! Which interfaces have the programs, and which have not.

use std::collections::BTreeSet;

use anyhow::Result;
use mhebpf_ebpf::{Announce, Send};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{Daemon, LOOK};
use crate::{
    datapath::{Standing, Strangers, clear_leftovers, expedited, is_there},
    model::{
        Host, Selection,
        steering::Object,
        uplinks::{self, DOWNLINK},
    },
    steering::Wanted,
};

impl Daemon<'_> {
    /// Takes the programs off interfaces that are not selected any more, and forgets those that are others by now: an index can
    /// be given again between two dumps.
    pub(super) fn let_go(&mut self, host: &Host, enforced: &BTreeSet<u32>) {
        let standings = self.attachments.look();
        let is_disturbed = |(_, standing): &&(u32, Standing)| *standing != Standing::InPlace;
        // Taking a program off waits for a grace period.
        if standings.iter().filter(is_disturbed).nth(1).is_some() {
            expedited(|| self.let_go_one_by_one(host, enforced, &standings));
        } else {
            self.let_go_one_by_one(host, enforced, &standings);
        }
    }

    fn let_go_one_by_one(&mut self, host: &Host, enforced: &BTreeSet<u32>, standings: &[(u32, Standing)]) {
        let mut unwanted = Vec::new();
        for (ifindex, standing) in standings.iter().copied() {
            let Some(link) = host.links.get(&ifindex) else {
                self.attachments.forget(ifindex);
                self.gone.note(ifindex);
                continue;
            };
            if self.is_let_go(ifindex, &link.name, standing) {
                continue;
            }
            self.attachments.rename(ifindex, &link.name);
            if !enforced.contains(&ifindex) {
                info!("letting go of {}", link.name);
                unwanted.push(ifindex);
            }
        }
        self.attachments.trust();
        self.attachments.detach(&unwanted);
    }

    /// Lets go of programs that are not where they belong, for them to be attached again; `false` where they stay.
    fn is_let_go(&mut self, ifindex: u32, name: &str, standing: Standing) -> bool {
        let is_restored = match standing {
            Standing::InPlace => return false,
            Standing::Behind if !self.attachments.move_up(ifindex) => return false,
            Standing::Behind => true,
            // It was deleted since, or another one has the index now.
            Standing::Gone
                if !is_there(ifindex, name) || self.attachments.is_called_otherwise(ifindex, name) =>
            {
                self.attachments.forget(ifindex);
                self.gone.note(ifindex);
                false
            }
            Standing::Gone => {
                self.attachments.lose(ifindex);
                true
            }
        };
        self.history.restored += u64::from(is_restored);
        true
    }

    /// Has programs on all selected interfaces, and remembers their names: the interfaces that are new, and the last
    /// failure, after all the rest was done.
    pub(super) fn attach(&mut self, host: &Host, selection: &Selection) -> (Vec<u32>, Result<()>) {
        let named = |ifindex: &u32| (*ifindex, host.name_of(*ifindex));
        let (attached, new): (Vec<_>, Vec<_>) = selection
            .enforced
            .iter()
            .map(named)
            .partition(|(ifindex, _)| self.attachments.contains(*ifindex));
        self.begin_at_zero(&new);
        let results = self.attachments.attach(&mut self.datapath.programs, &new);
        let mut result = Ok(());
        let mut enforced = Vec::new();
        for ((ifindex, name), attached) in new.iter().zip(results) {
            match attached {
                Ok(()) => {
                    info!("{} on {name}", if self.settings.observes() { "observing" } else { "enforcing" });
                    self.unproven.insert(*ifindex, Instant::now());
                    enforced.push(*ifindex);
                }
                // What has become of it is in the events that wait.
                Err(error) if !is_there(*ifindex, name) => debug!("{name} is gone already: {error:#}"),
                Err(error) => result = Err(error.context(format!("enforcing on {name}"))),
            }
        }
        self.note_names(attached.into_iter().chain(new));
        (enforced, result)
    }

    /// Filters of clsact that an earlier run has left, of which those on enforced interfaces are replaced.
    pub(super) fn remove_leftovers(&self, host: &Host) {
        for link in host.links.values().filter(|link| !self.attachments.contains(link.index)) {
            clear_leftovers(link.index, &link.name);
        }
    }

    /// Two programs on one interface judge by different tables, of which those of a daemon that is gone grow old. An interface
    /// that has come from another network namespace may have those of the daemon there for a moment: each is looked at when it
    /// has had a while.
    pub(super) fn warn_of_strangers(&mut self) {
        let is_due = |_: &u32, since: &mut Instant| since.elapsed() >= LOOK;
        for (ifindex, _) in self.unproven.extract_if(.., is_due) {
            let strangers = self.attachments.strangers(ifindex);
            let Some(name) = self.names.get(&ifindex) else { continue };
            match strangers {
                Strangers::None => {}
                Strangers::There => warn!(
                    "programs of another `mhebpf run --pin` are in force on {name} as well, and judge by other tables: take them \
                     off with `mhebpf unload --pin DIR`, where DIR is the directory that they are pinned in"
                ),
                Strangers::Unknown => info!(
                    "programs of others are on {name} as well; whether they are of another mhebpf only CAP_SYS_ADMIN may know: \
                     `sudo mhebpf audit` says it"
                ),
            }
        }
    }

    /// Warns of sysctls by which the kernel itself keeps to its routes, where these lead through another interface than the owner:
    /// answers to a redirected packet come back through the owner, and its addresses are asked for there.
    pub(super) fn warn_of_sysctls(&self, host: &Host, ifindex: u32) {
        // With rules for the source, the kernel looks up the way back by them too.
        let mut left_out = self.steerer.kept().left_out.iter();
        let is_steered = self.wants() == Wanted::Rules
            && !left_out.any(|left_out| left_out.what == Object::Interface(ifindex));
        let Some(link) = host.links.get(&ifindex).filter(|_| !is_steered) else { return };
        let Some(policy) = self.policies.get(&ifindex) else { return };
        let name = &link.name;
        if link.strict_reverse_path && policy.send == Send::Redirect {
            warn!(
                "rp_filter is strict on {name}: the kernel will discard answers to redirected packets there; set \
                 net.ipv4.conf.{name}.rp_filter to 2 (loose), which holds whatever net.ipv4.conf.all.rp_filter is"
            );
        }
        let shares_subnet = || uplinks::shared_subnets(host).values().any(|all| all.contains(&ifindex));
        if link.arp_filter && policy.announce == Announce::Enforce && shares_subnet() {
            warn!(
                "arp_filter is on for {name}: the kernel does not answer there for an address whose route leads through \
                 another interface, and mhebpf has no other interface answer for it; set net.ipv4.conf.{name}.arp_filter and \
                 net.ipv4.conf.all.arp_filter to 0, or run with --steer rules"
            );
        }
    }

    /// Says which gateways are used that no table knows any more.
    pub(super) fn log_remembered(&mut self, host: &Host) {
        for route in host.remembered.iter().filter(|route| !self.remembered.contains(route)) {
            for hop in &route.hops {
                let (name, gateway) = (host.name_of(hop.ifindex), hop.gateway.map(|g| g.to_string()));
                let gateway = gateway.unwrap_or_default();
                let family = if route.destination.addr().is_ipv4() { "" } else { "-6 " };
                warn!(
                    "the gateway {gateway} of {name} was known only to the table {} of a rule, which is gone; mhebpf goes on \
                     using it until it ends. To keep it: ip {family}route add default via {gateway} dev {name} metric 4096",
                    route.table
                );
            }
        }
        self.remembered.clone_from(&host.remembered);
    }

    /// Says which interfaces are left out, or judged as a router's, that were not before. What was enforced until now is worth a
    /// warning: somebody else has changed the routes, or turned forwarding on.
    pub(super) fn log_selection(&mut self, host: &Host, selection: Selection) {
        let before = self.selection.replace(selection);
        let Some(now) = &self.selection else { return };
        let was_enforced =
            |ifindex: &u32| before.as_ref().is_some_and(|before| before.enforced.contains(ifindex));
        for (ifindex, why) in &now.left_out {
            if before.as_ref().is_none_or(|before| before.left_out.get(ifindex) != Some(why)) {
                let name = host.name_of(*ifindex);
                let why = uplinks::with_remedy(&name, why);
                if was_enforced(ifindex) {
                    warn!("nothing is enforced on {name} any more: {why}");
                } else {
                    info!("leaving out {name}: {why}");
                }
            }
        }
        if self.settings.binds_downlinks() {
            return;
        }
        let is_new = |ifindex: &&u32| {
            now.enforced.contains(ifindex)
                && before.as_ref().is_none_or(|before| !before.host.downlinks.contains(ifindex))
        };
        for ifindex in now.host.downlinks.iter().filter(is_new) {
            let said = format!(
                "{} is {DOWNLINK}: datagrams with any address of this host pass there, and its addresses are every \
                 interface's; --downlinks holds it to its own",
                host.name_of(*ifindex)
            );
            if was_enforced(ifindex) {
                warn!("{said}");
            } else {
                info!("{said}");
            }
        }
    }
}
