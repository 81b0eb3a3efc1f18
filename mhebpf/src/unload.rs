//! `mhebpf unload`: takes off what outlives the daemon.

use anyhow::{Context as _, Result, bail};

use crate::{
    cli::UnloadOptions,
    console,
    datapath::expedited,
    instance::{Instance, Taken},
    pins::{self, Pins},
};

/// Takes the pinned programs of this network namespace off its interfaces, and removes their maps.
///
/// # Errors
///
/// While a daemon runs in this namespace; when something can't be removed.
pub async fn run(options: &UnloadOptions) -> Result<()> {
    // No daemon can start meanwhile.
    let _instance = match Instance::claim().await {
        Ok(instance) => instance,
        Err(error) => match error.downcast_ref::<Taken>() {
            Some(Taken { holder }) => bail!(
                "mhebpf ({holder}) is running in this network namespace, and would put everything back: stop it first"
            ),
            None => return Err(error),
        },
    };
    let directory = pins::directory(options.pin.as_deref());
    let text = match Pins::find(&directory)? {
        None => format!("nothing of this network namespace is pinned in {}\n", directory.display()),
        Some(found) => {
            let pins = Pins::open(&directory)?;
            let links = pins.links()?.len();
            expedited(|| pins.remove_all())?;
            pins.remove_dead_neighbours();
            format!("took {links} programs off, and removed {}\n", found.display())
        }
    };
    console::print(&text).context("printing what was done")
}
