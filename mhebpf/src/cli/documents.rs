//! What packages make of the command line: manual pages and completions.

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Cli;
use crate::console;

/// Prints the manual page of mhebpf, or of one of its commands.
///
/// # Errors
///
/// When there is no such command, or it can't be printed.
pub fn manual(command: Option<&str>) -> Result<()> {
    let mut page = Vec::new();
    render(command, &mut page)?;
    console::print(&String::from_utf8_lossy(&page)).context("printing the manual page")
}

fn render(command: Option<&str>, page: &mut Vec<u8>) -> Result<()> {
    let mut root = Cli::command();
    root.build();
    // Once built, each command is called as git's are: mhebpf-run.
    let wanted = match command {
        None => &root,
        Some(name) => root.find_subcommand(name).with_context(|| format!("mhebpf has no command {name}"))?,
    };
    clap_mangen::Man::new(wanted.clone()).render(page).context("writing the manual page")
}

/// Prints completions for a shell.
///
/// # Errors
///
/// When they can't be printed.
pub fn completions(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "mhebpf", &mut script);
    console::print(&String::from_utf8_lossy(&script)).context("printing the completions")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_each_command() {
        let mut page = Vec::new();
        render(None, &mut page).expect("a page");
        assert!(String::from_utf8_lossy(&page).contains("mhebpf\\-status"), "the others are named");
        for command in ["run", "status", "monitor"] {
            let mut page = Vec::new();
            render(Some(command), &mut page).expect("a page");
            let page = String::from_utf8_lossy(&page);
            assert!(page.starts_with(".ie") && page.contains(&format!("mhebpf-{command} 1")), "{page:.300}");
        }
        assert!(render(Some("reboot"), &mut Vec::new()).is_err());
    }
}
