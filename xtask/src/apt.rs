//! Packages of the distribution.

use std::{fs, process::Command};

use crate::{
    machine,
    step::{Failed, run},
    toolchain::find_program,
};

/// Tells whether packages can be installed by this module.
pub(crate) fn available() -> bool {
    find_program("apt-get").is_some()
}

/// Installs packages; refreshes the package lists first where there are none, or where they turn out to be too old.
///
/// # Errors
///
/// The packages cannot be installed, which has been reported.
pub(crate) fn install(task: &str, packages: &[&str]) -> Result<(), Failed> {
    let names = packages.join(" ");
    if !available() {
        eprintln!("{task}: there is no apt-get here; install what this distribution calls {names} by hand");
        return Err(Failed);
    }
    let refreshed = !have_lists();
    if refreshed {
        update(task)?;
    }
    let first = run(task, &format!("installing {names}"), &mut install_command(packages));
    if first.is_ok() || refreshed {
        return first;
    }
    println!("{task}: trying again with new package lists");
    update(task)?;
    run(task, &format!("installing {names}"), &mut install_command(packages))
}

fn update(task: &str) -> Result<(), Failed> {
    run(
        task,
        "refreshing the package lists",
        as_root(&["apt-get", "update", "-qq"]).arg("-o=DPkg::Lock::Timeout=120"),
    )
}

fn install_command(packages: &[&str]) -> Command {
    let mut command = as_root(&["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install"]);
    // Debian's compiler conflicts with other packages of compilers; nothing that is installed may vanish for it.
    command.args([
        "-qq",
        "-o=Dpkg::Use-Pty=0",
        "-o=DPkg::Lock::Timeout=120",
        "--yes",
        "--no-remove",
        "--no-install-recommends",
    ]);
    command.args(packages);
    command
}

fn as_root(words: &[&str]) -> Command {
    let prefix: &[&str] = if machine::is_root() { &[] } else { &["sudo"] };
    let mut words = prefix.iter().chain(words);
    let mut command = Command::new(words.next().copied().unwrap_or("false"));
    command.args(words);
    command
}

fn have_lists() -> bool {
    let lists = fs::read_dir("/var/lib/apt/lists").into_iter().flatten().flatten();
    lists.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().contains("_Packages"))
}
