//! Commands whose output matters only to the caller, or when they fail.

use std::process::Command;

use crate::step::show;

/// How many lines of what a command said when it failed are worth repeating.
const LAST_LINES: usize = 4;

/// Runs a command to its end and returns what it printed.
///
/// # Errors
///
/// It does not start or fails; the message names it and repeats the end of what it said.
pub(crate) fn quietly(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("`{}`: {error}", show(command)))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let end = lines[lines.len().saturating_sub(LAST_LINES)..].join("; ");
    Err(format!("`{}`: {}: {end}", show(command), output.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_what_it_said() {
        let error = quietly(Command::new("sh").args(["-c", "echo one; echo two >&2; exit 3"]));
        let error = error.err().unwrap_or_default();
        assert!(error.contains("sh -c") && error.contains("exit status: 3: one; two"), "{error}");
        assert!(quietly(&mut Command::new("/nonexistent")).is_err());
        assert_eq!(quietly(Command::new("echo").arg("three")), Ok("three\n".to_owned()));
    }
}
