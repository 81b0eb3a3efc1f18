//! Capabilities of containers that are newer than the engine.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{Engine, IMAGE};

/// A runtime in front of runc that every engine of these tests knows.
const RUNTIME: &str = "translating";

/// What an engine that does not know `CAP_BPF` and `CAP_PERFMON` (Linux 5.8) is told instead, and what the runtime in between turns
/// into the newer ones. `CAP_SYS_ADMIN` has such an engine let bpf(2) through its filter of system calls; the other one stands for
/// nothing.
const STAND_INS: [(&str, &str); 2] = [("BPF", "SYS_ADMIN"), ("PERFMON", "SYS_PTRACE")];

/// The option by which `dockerd` gets to know the runtime, whose program is put into this directory.
pub(super) fn runtime(directory: &Path) -> Result<String> {
    let path: PathBuf = directory.join("runtime");
    let changes: String =
        STAND_INS.iter().map(|(new, old)| format!(" -e 's/\"CAP_{old}\"/\"CAP_{new}\"/g'")).collect();
    let script = format!(
        "#!/bin/sh\n\
         for word; do\n\
         \x20 if [ \"$before\" = --bundle ]; then sed -i{changes} \"$word/config.json\"; fi\n\
         \x20 before=$word\n\
         done\n\
         exec runc \"$@\"\n"
    );
    fs::write(&path, script).with_context(|| format!("writing {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(format!("--add-runtime={RUNTIME}={}", path.display()))
}

impl Engine {
    /// The options of `docker run` that give a container these capabilities, without `CAP_`, and no others.
    pub fn only(&self, capabilities: &[&str]) -> Vec<String> {
        let (mut options, mut translated) = (vec!["--cap-drop=ALL".to_owned()], false);
        for capability in capabilities {
            let stand_in = STAND_INS.iter().find(|(new, _)| new == capability && !self.knows(capability));
            translated |= stand_in.is_some();
            options.push(format!("--cap-add={}", stand_in.map_or(*capability, |(_, old)| old)));
        }
        options.extend(translated.then(|| format!("--runtime={RUNTIME}")));
        options
    }

    fn knows(&self, capability: &str) -> bool {
        // Only made, never started; it goes with the engine.
        let made = self.docker(&["create", "--cap-add", capability, IMAGE, "true"]);
        !made.is_err_and(|error| format!("{error:#}").contains("unknown capability"))
    }
}
