//! Commands that say what they do, how long they took, and how to run them by hand when they fail.

use std::{ffi::OsStr, process::Command, time::Instant};

/// Something went wrong and has been reported.
#[derive(Debug)]
pub(crate) struct Failed;

/// Runs a command of a task, with its output on the terminal.
///
/// # Errors
///
/// The command does not start or fails; the report names it.
pub(crate) fn run(task: &str, what: &str, command: &mut Command) -> Result<(), Failed> {
    let shown = show(command);
    println!("{task}: {what}: {shown}");
    let start = Instant::now();
    let problem = match command.status() {
        Ok(status) if status.success() => {
            println!("{task}: {what}: done in {:.1} s", start.elapsed().as_secs_f64());
            return Ok(());
        }
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    eprintln!(
        "{task}: {what}: failed after {:.1} s ({problem}). The command to run by hand:\n    {shown}",
        start.elapsed().as_secs_f64()
    );
    Err(Failed)
}

/// Returns the command as one types it into a shell.
pub(crate) fn show(command: &Command) -> String {
    let variables = command
        .get_envs()
        .filter_map(|(name, value)| value.map(|value| format!("{}={}", name.display(), quote(value))));
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(quote);
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_one_types_it() {
        let mut command = Command::new("cargo");
        command.env("LLVM_PREFIX", "/usr/lib/llvm-22").args(["install", "a b", "", "it's"]);
        assert_eq!(show(&command), r"LLVM_PREFIX=/usr/lib/llvm-22 cargo install 'a b' '' 'it'\''s'");
    }

    #[test]
    fn a_command_that_fails_or_does_not_start_is_an_error() {
        assert!(run("test", "succeeds", &mut Command::new("true")).is_ok());
        assert!(run("test", "fails", &mut Command::new("false")).is_err());
        assert!(run("test", "does not start", &mut Command::new("/nonexistent")).is_err());
    }
}
