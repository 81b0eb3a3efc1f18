//! The command line of `cargo xtask vm`.

use std::ffi::OsString;

use super::kernels::{KERNELS, Kernel};

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) kernels: Vec<Kernel>,
    /// The test files; all, if none is named.
    pub(crate) tests: Vec<String>,
    pub(crate) list: bool,
    /// What goes to the programs of tests.
    pub(crate) to_tests: Vec<String>,
}

impl Options {
    /// Reads the arguments behind the task's name.
    ///
    /// # Errors
    ///
    /// They make no sense.
    pub(crate) fn parse(arguments: &[OsString]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut arguments = arguments.iter().map(|argument| argument.to_string_lossy().into_owned());
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} takes a value"));
            match argument.as_str() {
                "--kernel" => {
                    let series = value()?;
                    options.kernels.push(Kernel::find(&series).ok_or_else(|| {
                        format!("there is no kernel {series} in the matrix: {}", Kernel::all_series())
                    })?);
                }
                "--test" => options.tests.push(value()?),
                "--list" => options.list = true,
                "--" => options.to_tests.extend(arguments.by_ref()),
                other => {
                    return Err(format!("no such option: {other}; what the tests take must come after --"));
                }
            }
        }
        if options.kernels.is_empty() {
            options.kernels.extend(KERNELS);
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Options, String> {
        Options::parse(&words.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn without_options_all_tests_run_on_all_kernels() {
        let options = parse("").unwrap_or_default();
        assert_eq!(options.kernels.len(), KERNELS.len());
        assert!(options.tests.is_empty() && options.to_tests.is_empty() && !options.list);
    }

    #[test]
    fn kernels_test_files_and_filters_are_taken() {
        let options = parse("--kernel 6.1 --test mtu --kernel 5.10 -- --list tcp").unwrap_or_default();
        let series: Vec<_> = options.kernels.iter().map(|kernel| kernel.series).collect();
        assert_eq!(series, ["6.1", "5.10"]);
        assert_eq!(options.tests, ["mtu"]);
        assert_eq!(options.to_tests, ["--list", "tcp"]);
        assert!(!options.list);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in ["--kernel", "--kernel 2.4", "--tests mtu", "mtu"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
