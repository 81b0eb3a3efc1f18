//! Where the programs under test are.

use std::{env, path::PathBuf};

use anyhow::{Context as _, Result, bail};

/// The daemon: `$MHEBPF_BIN`, else `mhebpf` in the target directory that the calling program was built into.
///
/// # Errors
///
/// When it has not been built.
pub fn mhebpf() -> Result<PathBuf> {
    if let Some(path) = env::var_os("MHEBPF_BIN") {
        let path = PathBuf::from(path);
        return path.canonicalize().with_context(|| format!("MHEBPF_BIN={}", path.display()));
    }
    let this = env::current_exe().context("finding the running program")?;
    let mut directory = this.parent().context("the running program has no directory")?;
    if directory.ends_with("deps") {
        directory = directory.parent().unwrap_or(directory);
    }
    let path = directory.join("mhebpf");
    if !path.is_file() {
        let release = if directory.ends_with("release") { " --release" } else { "" };
        bail!(
            "there is no {}: build it with `cargo build{release} -p mhebpf`, or name another with MHEBPF_BIN",
            path.display()
        );
    }
    Ok(path)
}
