//! `mhebpf unload`: takes off what outlives the daemon.

use anyhow::{Context as _, Result, bail};

use crate::{
    cli::UnloadOptions,
    console,
    datapath::{expedited, remove_leftovers},
    instance::{Instance, Taken},
    netlink::{Dumper, Snapshot},
    pins::{self, Pins},
    steering::Steerer,
};

/// Takes the pinned programs of this network namespace off its interfaces, and removes their maps.
///
/// # Errors
///
/// While a daemon runs in this namespace; when something can't be removed.
pub async fn run(options: &UnloadOptions) -> Result<()> {
    // No daemon can start meanwhile.
    let _instance = match Instance::claim().await {
        Ok(instance) => Some(instance),
        Err(error) => match error.downcast_ref::<Taken>() {
            Some(Taken { holder, is_trusted: true }) => bail!(
                "mhebpf ({holder}) is running in this network namespace, and would put everything back: stop it first"
            ),
            // The lock of the directory keeps a daemon away as well.
            Some(_) => {
                console::say(&format!("note: {error:#}\n"));
                None
            }
            None => return Err(error),
        },
    };
    let steered = remove_steering()? + &remove_filters()?;
    let directory = pins::directory(options.pin.as_deref());
    let text = match Pins::find(&directory)? {
        None => {
            pins::remove_dead_in(&directory);
            format!("nothing of this network namespace is pinned in {}\n", directory.display())
        }
        Some(found) => {
            let pins = Pins::open(&directory)?;
            let links = pins.links()?.len();
            expedited(|| pins.remove_all())?;
            pins.remove_dead_neighbours();
            format!("took {links} programs off, and removed {}\n", found.path().display())
        }
    };
    console::print(&(steered + &text)).context("printing what was done")
}

/// Removes filters of clsact that a killed daemon has left, and says so.
fn remove_filters() -> Result<String> {
    let host = Dumper::connect()?.snapshot()?.host;
    let mut filters = 0;
    for link in host.links.values() {
        filters += remove_leftovers(link.index, &link.name)?;
    }
    Ok(if filters == 0 { String::new() } else { format!("removed {filters} filters of clsact qdiscs\n") })
}

/// Removes policy routing that a killed daemon has left, and says so.
fn remove_steering() -> Result<String> {
    let Snapshot { host, placed, exact, .. } = Dumper::connect()?.snapshot()?;
    let mut steerer = Steerer::connect()?;
    let rules = steerer.leftovers()?;
    steerer.remove_all(&host, &placed, exact).context("removing policy routing that mhebpf has left")?;
    Ok(if rules == 0 {
        String::new()
    } else {
        format!("removed {rules} rules of policy routing, and their tables\n")
    })
}
