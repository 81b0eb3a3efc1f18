//! `cargo xtask vm`: the tests on other kernels, each booted in an emulated machine.
//!
//! The kernels are Debian's, pinned in [`kernels`]; they and the emulator are fetched by an apt whose state is its own
//! ([`archive`]). A guest's root file system holds statically linked tests, the modules that they need and an init, which
//! is `tests/src/bin/guest_init`. Nothing of the machine is changed, and no root is needed.

mod archive;
mod emulator;
mod guest;
mod initramfs;
mod kernels;
mod modules;
mod options;
mod output;
mod packages;
mod programs;
mod quietly;
mod report;
mod sources;

use std::{
    collections::VecDeque,
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use crate::{setup, step::Failed, summary::Summary};
use emulator::Emulator;
use guest::Run;
use kernels::{KERNELS, Kernel, SHORT_ROUND};
use options::Options;
use programs::Programs;
use report::Entry;

/// How long a guest may take for all tests, and for the short round: several times as long as on a machine that does
/// nothing else.
const LIMIT: Duration = Duration::from_secs(40 * 60);
const SHORT_LIMIT: Duration = Duration::from_secs(12 * 60);

/// Runs the task from its command line.
pub(crate) fn task(arguments: &[OsString]) -> ExitCode {
    let options = match Options::parse(arguments) {
        Ok(options) => options,
        Err(problem) => return crate::usage(&format!("vm: {problem}")),
    };
    if options.list {
        list();
        return ExitCode::SUCCESS;
    }
    let sum = match setup::ensure(None) {
        Ok(()) => {
            let tests: Vec<_> = options.tests.iter().map(String::as_str).collect();
            match round(&options.kernels, &tests, &options.to_tests, LIMIT) {
                Ok(entries) => entries.iter().fold(Summary::default(), add),
                Err(why) => {
                    eprintln!("vm: {why}");
                    Summary::of_check(false)
                }
            }
        }
        Err(Failed) => Summary::of_check(false),
    };
    println!("{sum}");
    if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the tests that depend most on the kernel on some others. What is not to be had is not a failure here.
pub(crate) fn short_round() -> Summary {
    let mut sum = Summary::default();
    for (series, tests) in SHORT_ROUND {
        let kernels: Vec<_> = Kernel::find(series).into_iter().collect();
        match round(&kernels, tests, &[], SHORT_LIMIT) {
            Ok(entries) => {
                sum = entries.iter().filter(|entry| entry.verdict.is_ok()).fold(sum, add);
            }
            Err(why) => println!("vm: no tests on Linux {series}: {why}"),
        }
    }
    sum
}

fn add(mut sum: Summary, entry: &Entry) -> Summary {
    sum += entry.sum();
    sum
}

fn list() {
    println!("{:<8} {:<20} {:<20} packages", "kernel", "version", "suite");
    for Kernel { series, suite, abi, version, packages } in KERNELS {
        let names: Vec<_> = packages.iter().map(|package| package.name(abi)).collect();
        println!("{series:<8} {version:<20} {suite:<20} {}", names.join(" "));
    }
}

/// Runs tests on kernels, as many side by side as there are processors, and prints what became of them.
fn round(
    kernels: &[Kernel],
    tests: &[&str],
    arguments: &[String],
    limit: Duration,
) -> Result<Vec<Entry>, String> {
    let cache = cache()?;
    let emulator = Emulator::find(&cache)?;
    // One after the other: they share directories.
    let fetched: Vec<_> = kernels.iter().map(|kernel| (*kernel, packages::fetch(kernel, &cache))).collect();
    let can_run = fetched.iter().any(|(_, files)| files.is_ok());
    let programs = if can_run { Programs::collect(tests, &cache)? } else { Programs::default() };
    let run = Run { emulator: &emulator, programs: &programs, arguments, limit, cache: &cache };
    let boot = |(kernel, files): (Kernel, Result<packages::KernelFiles, String>)| Entry {
        series: kernel.series,
        verdict: files.and_then(|files| run.boot(&kernel, &files)),
    };
    let entries = side_by_side(fetched, boot);
    for entry in &entries {
        entry.print_failures();
    }
    print!("{}", report::table(&entries));
    Ok(entries)
}

/// Works on each item on one of as many threads as there are processors, and keeps the order.
fn side_by_side<T: Send, U: Send>(items: Vec<T>, work: impl Fn(T) -> U + Sync) -> Vec<U> {
    let at_once = thread::available_parallelism().map_or(1, usize::from).min(items.len());
    let queue = Mutex::new(items.into_iter().enumerate().collect::<VecDeque<_>>());
    let done = Mutex::new(Vec::new());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some((number, item)) = next() {
                    let result = work(item);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((number, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Returns where packages and logs are kept: beside what cargo builds.
fn cache() -> Result<PathBuf, String> {
    let this = env::current_exe().map_err(|error| format!("cannot tell where this program is: {error}"))?;
    let target = this.parent().and_then(Path::parent);
    target.map(|target| target.join("vm")).ok_or_else(|| "this program is in no target directory".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_done_side_by_side_keeps_its_order() {
        assert_eq!(
            side_by_side((0..100).collect(), |number: i32| number * 2),
            (0..200).step_by(2).collect::<Vec<_>>()
        );
        assert_eq!(side_by_side(Vec::new(), |number: i32| number), []);
    }
}
