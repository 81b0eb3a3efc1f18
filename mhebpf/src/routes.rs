//! `mhebpf routes`: the rules and tables that `mhebpf run --steer rules` would keep on this host.
//!
//! [`document`] holds them by their names, [`report`] and [`commands`] say them.

pub mod commands;
pub mod document;
pub mod report;

use std::rc::Rc;

use anyhow::{Context as _, Result};

use self::document::Document;
use crate::{
    audit,
    cli::{RoutesFormat, RoutesOptions},
    console::{self, Colours},
    model::steering::Steering,
    netlink::Dumper,
    settings::Settings,
    usage::UsageError,
};

/// Prints the rules and tables for the host of this network namespace.
///
/// # Errors
///
/// When links, addresses or routes can't be read; [`UsageError`] when the patterns match no interface, or the
/// configuration file has a mistake.
pub fn run(options: &RoutesOptions) -> Result<()> {
    let (settings, _) =
        Settings::load(&options.as_for_run()).map_err(|error| UsageError::new(format!("{error:#}")))?;
    let host = Rc::unwrap_or_clone(Dumper::connect()?.snapshot()?.host);
    if let Some(selector) = &settings.selector {
        audit::check_selection(&host, selector, &options.interfaces)?;
    }
    let policies = settings.policies(&host, &settings.selection(&host));
    let steering = Steering::new(&host, &policies);
    let colours = Colours::of_stdout();
    let text = match options.output {
        RoutesFormat::Text => colours.printable(&report::text(&Document::new(&host, &steering), colours)),
        RoutesFormat::Json => Document::new(&host, &steering).to_json()?,
        RoutesFormat::Ip => commands::text(&host, &steering),
    };
    console::print(&text).context("printing rules and tables")
}
