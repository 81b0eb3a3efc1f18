//! The command line.

use std::{ffi::OsString, path::PathBuf};

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// The parts to run; all if there are none.
    pub(crate) parts: Vec<Part>,
    /// Whether to see only that everything works.
    pub(crate) quick: bool,
    /// Where to write all figures.
    pub(crate) json: Option<PathBuf>,
    /// Where to write the plot.
    pub(crate) svg: Option<PathBuf>,
    /// How many routes the hosts have on which the daemon is measured, and nothing else of it is; the usual ones and all if there
    /// are none.
    pub(crate) routes: Vec<u32>,
}

/// One of the benchmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The programs alone.
    Datapath,
    /// Traffic between namespaces, with mhebpf and others.
    Peers,
    /// The daemon.
    Control,
}

/// How it is used.
pub(crate) const USAGE: &str =
    "usage: bench [datapath] [peers] [control] [--routes NUMBER]... [--quick] [--json FILE] [--svg FILE]";

impl Options {
    /// Reads the arguments.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut options = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = |what| arguments.next().ok_or_else(|| format!("{what} is missing"));
            let mut file = || value("a file name").map(PathBuf::from);
            match argument.to_str() {
                Some("datapath") => options.parts.push(Part::Datapath),
                Some("peers") => options.parts.push(Part::Peers),
                Some("control") => options.parts.push(Part::Control),
                Some("--routes") => {
                    let number = value("a number of routes")?;
                    let number = number.to_str().and_then(|text| text.parse().ok());
                    options.routes.push(number.ok_or("--routes takes a number")?);
                }
                Some("--quick") => options.quick = true,
                Some("--json") => options.json = Some(file()?),
                Some("--svg") => options.svg = Some(file()?),
                _ => return Err(format!("what is {}?", argument.display())),
            }
        }
        if options.svg.is_some() && !options.wants(Part::Peers) {
            return Err("the plot shows the peers, which are left out".to_owned());
        }
        if !options.routes.is_empty() && !options.wants(Part::Control) {
            return Err("the routes are of the daemon's hosts, which is left out".to_owned());
        }
        Ok(options)
    }

    /// Whether a part is to run.
    pub(crate) fn wants(&self, part: Part) -> bool {
        self.parts.is_empty() || self.parts.contains(&part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Options, String> {
        Options::parse(words.split_whitespace().map(OsString::from))
    }

    #[test]
    fn without_names_all_parts_run() {
        let all = parse("--quick").unwrap();
        assert!(all.quick && all.wants(Part::Datapath) && all.wants(Part::Control));
        let one = parse("peers --json out.json").unwrap();
        assert!(one.wants(Part::Peers) && !one.wants(Part::Datapath));
        assert_eq!(one.json, Some(PathBuf::from("out.json")));
        assert_eq!(parse("control --routes 5 --routes 1000").unwrap().routes, [5, 1000]);
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        assert!(parse("everything").is_err() && parse("--svg").is_err());
        assert!(parse("control --routes many").is_err() && parse("peers --routes 5").is_err());
        assert!(parse("datapath --svg plot.svg").is_err() && parse("peers --svg plot.svg").is_ok());
    }
}
