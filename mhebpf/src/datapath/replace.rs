//! Having other programs run where programs are attached.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result, bail};
use tracing::{debug, warn};

use super::{
    Attachments, Programs,
    attach::{Held, Link},
    clsact::{self, program_name},
    pinned, tcx,
};
use crate::pins::{Directory, Pinned, Side};

impl Attachments {
    /// Has these programs take the place of those that are attached, at each place at once: no packet passes between the two. Where
    /// that fails the programs are taken off, for new ones to be attached, unless the interface is gone.
    pub fn replace(&mut self, programs: &mut Programs) {
        let mut failed = Vec::new();
        for (ifindex, attachment) in &mut self.attached {
            let name = attachment.name.clone();
            let mut replace = |held: &mut Held, side| {
                replace_one(programs, held, (*ifindex, side), self.pins.as_ref())
                    .with_context(|| format!("replacing {} on {name}", program_name(side)))
            };
            let replaced = replace(&mut attachment.egress, Side::Egress)
                .and_then(|()| replace(&mut attachment.ingress, Side::Ingress));
            match replaced {
                Ok(()) => {}
                // What has become of it is in the events that wait.
                Err(error) if !clsact::is_there(*ifindex, &name) => {
                    debug!("{name} is gone already: {error:#}");
                }
                Err(error) => {
                    warn!("{error:#}; attaching anew");
                    failed.push(*ifindex);
                }
            }
        }
        self.detach(&failed);
    }
}

fn replace_one(
    programs: &mut Programs,
    held: &mut Held,
    (ifindex, side): (u32, Side),
    pins: Option<&Directory>,
) -> Result<()> {
    let program = match side {
        Side::Ingress => programs.ingress()?,
        Side::Egress => programs.egress()?,
    };
    match &held.link {
        Link::Own(link) => tcx::update(link.as_fd(), program.fd()?.as_fd())?,
        Link::Filter(_) => clsact::replace(program.fd()?.as_fd(), ifindex, side)?,
        Link::Pinned(_) => {
            let pin = pins.map(|directory| Pinned::new(directory, ifindex, side));
            let Some((link, id)) =
                pin.and_then(|pin| pinned::take_over(program, &pin).transpose()).transpose()?
            else {
                bail!("its pin is gone");
            };
            (held.link, held.id) = (Link::Pinned(link), id);
        }
    }
    Ok(())
}
