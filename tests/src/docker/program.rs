//! Programs: where they are, what they need, and which process is whose child.

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

/// `PATH` with the directories of the administrator's programs, which it lacks for many users.
pub(super) fn search_path() -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::join_paths(env::split_paths(&path).chain(sbin)).context("PATH")
}

/// Where a program is.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = search_path().ok()?;
    env::split_paths(&path).map(|directory| directory.join(name)).find(|program| program.is_file())
}

/// The libraries that a program is linked with, its loader included; none if it is static.
///
/// # Errors
///
/// When there is no `ldd`.
pub fn shared_libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("starting ldd")?;
    // Of a static program it says so, and fails.
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(library).collect())
}

/// Reads `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f…)`, or the same without an arrow.
fn library(line: &str) -> Option<PathBuf> {
    let file = line.split("=>").last()?.split_whitespace().next()?;
    file.starts_with('/').then(|| PathBuf::from(file))
}

/// Puts a program that goes by many names into the directory that will be a container's root.
pub(super) fn stage(name: &str, root: &Path, other_names: &[&str]) -> Result<()> {
    let program = find(name).with_context(|| format!("{name} is not installed"))?;
    let bin = root.join("bin");
    fs::create_dir_all(&bin)?;
    fs::copy(&program, bin.join(name)).with_context(|| format!("copying {}", program.display()))?;
    for other in other_names {
        symlink(name, bin.join(other))?;
    }
    for library in shared_libraries(&program)? {
        let there = root.join(library.strip_prefix("/")?);
        fs::create_dir_all(there.parent().context("a library is in a directory")?)?;
        fs::copy(&library, there).with_context(|| format!("copying {}", library.display()))?;
    }
    Ok(())
}

/// The only child of a process.
pub(super) fn child_of(process: u32) -> Option<libc::pid_t> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_says() {
        let read = |line| library(line).map(|path| path.display().to_string());
        assert_eq!(read("\tlibc.so.6 => /lib/libc.so.6 (0x1)").as_deref(), Some("/lib/libc.so.6"));
        assert_eq!(read("\t/lib64/ld-linux.so.2 (0x1)").as_deref(), Some("/lib64/ld-linux.so.2"));
        assert_eq!(read("\tlinux-vdso.so.1 (0x1)"), None);
        assert_eq!(read("\tstatically linked"), None);
    }
}
