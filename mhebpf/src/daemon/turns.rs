//! The loop: what is waited for, and what is done then.

use std::io;

use anyhow::Result;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep};
use tracing::{debug, error};

use super::{
    CROSS_CHECK, Daemon, LOOK, QUIET, memory,
    pace::{self, Pace, RETRY},
    signals::{Request, Signals},
};
use crate::{
    control::Control,
    datapath::Hook,
    netlink::{Changed, Dumper, Events, FilterEvents},
    stop,
};

/// What is to be brought in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// All.
    Host,
    /// The next hops of routes that are followed.
    Routes,
}

/// What a change means; routes that are followed are followed at once.
fn work_of(changed: Changed, dumper: &mut Dumper, events: &mut Events) -> io::Result<Work> {
    match changed {
        Changed::Host => {
            dumper.doubt_routes();
            Ok(Work::Host)
        }
        Changed::Routes => Ok(if dumper.follow(events)? { Work::Host } else { Work::Routes }),
    }
}

impl Daemon<'_> {
    /// Keeps all in step until it is told to end.
    pub(super) async fn keep_in_step(
        &mut self,
        dumper: &mut Dumper,
        events: &mut Events,
        signals: &mut Signals,
        control: &mut Control,
        mut pace: Pace,
    ) -> Result<()> {
        let mut cross_check = interval_at(Instant::now() + CROSS_CHECK, CROSS_CHECK);
        cross_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut has_worked = true;
        let mut filters = FilterEvents::default();
        loop {
            if self.attachments.hook() == Some(Hook::Clsact) && !filters.are_followed() {
                match FilterEvents::subscribe() {
                    Ok(subscribed) => filters = subscribed,
                    // Without them the cross-check finds what has changed.
                    Err(error) => debug!("{error:#}"),
                }
            }
            let work = tokio::select! {
                request = signals.next() => match request {
                    Request::Stop => return Ok(()),
                    Request::Reload => {
                        self.reload();
                        Work::Host
                    }
                },
                _ = cross_check.tick() => {
                    self.attachments.doubt();
                    Work::Host
                }
                // Nothing tells of changes to chains of TCX; of those to filters netlink does.
                _ = look.tick() => {
                    self.warn_of_strangers();
                    if !self.attachments.are_disturbed() {
                        continue;
                    }
                    Work::Host
                }
                () = filters.changed() => {
                    // Looked at with the next look: others may change theirs all the time.
                    self.attachments.doubt();
                    continue;
                }
                () = pace.retry() => Work::Host,
                () = pace::at(self.expires) => Work::Host,
                () = self.neighbours.changed() => Work::Host,
                part = dumper.part() => if dumper.compare(part) { Work::Host } else { Work::Routes },
                question = control.next() => {
                    self.answer(question, dumper, events);
                    continue;
                }
                () = self.watch.ready() => {
                    self.show(dumper);
                    continue;
                }
                over = self.grace_period.over() => {
                    self.move_blocks(over);
                    continue;
                }
                () = pace::at(self.gone.due()) => {
                    self.free_some(dumper.last());
                    continue;
                }
                () = self.announcer.due() => {
                    // An address may have moved, which the next synchronisation knows.
                    if !events.is_pending() {
                        self.announcer.go_on();
                    }
                    continue;
                }
                () = sleep(QUIET), if has_worked => {
                    memory::give_back();
                    has_worked = false;
                    continue;
                }
                changed = events.changed() => match changed.and_then(|changed| work_of(changed, dumper, events)) {
                    Ok(work) => work,
                    Err(error) => {
                        error!("receiving netlink events: {error}; subscribing anew");
                        // Not at once: if it fails again, the log must not fill.
                        tokio::select! {
                            () = sleep(RETRY.0) => {}
                            request = signals.next() => match request {
                                Request::Stop => return Ok(()),
                                Request::Reload => self.reload(),
                            },
                        }
                        match Events::subscribe() {
                            Ok(anew) => {
                                self.history.keep(events);
                                *events = anew;
                            }
                            Err(error) => error!("{error:#}"),
                        }
                        dumper.doubt_routes();
                        Work::Host
                    }
                },
            };
            has_worked = true;
            let started = Instant::now();
            let result = match work {
                Work::Host => {
                    events.forget_pending();
                    if let Err(error) = dumper.follow(events) {
                        // The next event meets it again.
                        debug!("following routes: {error}");
                    }
                    Some(self.synchronise_and_note(dumper, events))
                }
                Work::Routes => match self.follow_routes(dumper) {
                    // What else may be behind is so still.
                    Ok(()) => None,
                    Err(error) => Some(Err(error)),
                },
            };
            // The signal is there, and is the next thing that is met with.
            if let Some(result) = result
                && !stop::is_asked()
            {
                pace.note(result);
            }
            self.have_blocks_moved();
            // At most half of the time is spent synchronising, however long a burst of changes is.
            let rest = sleep(started.elapsed());
            tokio::pin!(rest);
            loop {
                tokio::select! {
                    () = &mut rest => break,
                    question = control.next() => self.answer(question, dumper, events),
                    () = self.watch.ready() => self.show(dumper),
                    request = signals.next() => match request {
                        Request::Stop => return Ok(()),
                        Request::Reload => {
                            self.reload();
                            pace.at_once();
                        }
                    },
                }
            }
        }
    }
}
