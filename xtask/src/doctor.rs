//! `cargo xtask doctor`: shows the tool chain and the kernel, what is wrong with them, and what to do about it.

use std::{
    env,
    fmt::Write as _,
    process::{Command, ExitCode},
};

use crate::{
    machine::{self, CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN},
    setup,
    toolchain::{self, Compiler, Core, LINKER_LLVM, Selector, ToolChain, Version, find_program},
};

/// Since 5.10 there is `bpf_redirect_neigh` with an explicit next hop.
const OLDEST_KERNEL: Version = Version::new(5, 10, 0);

/// Since 6.6 programs are attached by TCX; before, by the clsact qdisc.
const FIRST_TCX_KERNEL: Version = Version::new(6, 6, 0);

const SETUP: &str = "run `cargo xtask setup`";

/// How a finding is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Ok,
    /// Something works less well, or only in part.
    Note,
    Wrong,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    subject: &'static str,
    mark: Mark,
    found: String,
    remedy: Option<String>,
}

impl Finding {
    fn ok(subject: &'static str, found: impl Into<String>) -> Self {
        Self { subject, mark: Mark::Ok, found: found.into(), remedy: None }
    }

    fn note(subject: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject, mark: Mark::Note, found: found.into(), remedy: Some(remedy.into()) }
    }

    fn wrong(subject: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject, mark: Mark::Wrong, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// Prints the report; fails where something that is needed is wrong.
pub(crate) fn task() -> ExitCode {
    let mut findings = vec![host_compiler()];
    findings.extend(tool_chain(&ToolChain::detect()));
    let (release, version) = machine::kernel();
    findings.extend(kernel(&release, version));
    findings.push(btf(machine::has_btf()));
    findings.push(jit(machine::has_jit()));
    findings
        .push(capabilities(machine::capabilities(), !machine::is_root() && find_program("sudo").is_some()));
    findings.push(bpffs(machine::bpffs()));
    findings.push(tools(&setup::missing_tools().map(|(name, _)| name).collect::<Vec<_>>()));
    print!("{}", report(&findings));
    if findings.iter().any(|finding| finding.mark == Mark::Wrong) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn report(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { subject, mark, found, remedy } in findings {
        let mark = match mark {
            Mark::Ok => "ok",
            Mark::Note => "note",
            Mark::Wrong => "WRONG",
        };
        // Writing into a string cannot fail.
        let _ = writeln!(text, "{subject:<14} {mark:<5}  {found}");
        if let Some(remedy) = remedy {
            let _ = writeln!(text, "{:<20}  -> {remedy}", "");
        }
    }
    text
}

fn host_compiler() -> Finding {
    let subject = "host compiler";
    match toolchain::output_of(Command::new("rustc").arg("-vV")) {
        Ok(told) => {
            let llvm =
                Version::parse_after(&told, "LLVM version:").map_or("unknown".into(), |v| v.to_string());
            Finding::ok(subject, format!("{}, LLVM {llvm}", told.lines().next().unwrap_or_default()))
        }
        Err(why) => Finding::wrong(subject, format!("rustc does not run: {why}"), "see https://rustup.rs"),
    }
}

fn tool_chain(tool_chain: &ToolChain) -> Vec<Finding> {
    let linker = match &tool_chain.linker {
        Ok(linker) => {
            let found = format!("{}, LLVM {}, {}", linker.version, linker.llvm, linker.path.display());
            Finding::ok("bpf-linker", found)
        }
        Err(problem) => Finding::wrong("bpf-linker", problem.to_string(), SETUP),
    };
    let llvm = tool_chain.linker.as_ref().map_or(LINKER_LLVM, |linker| linker.llvm.major);
    let mut findings = Vec::new();
    match tool_chain.compiler_for(llvm) {
        Some(compiler) => findings.extend(compiler_findings(compiler)),
        None => {
            let linker_is_right = tool_chain.linker.is_ok();
            let all = tool_chain.usable().err().unwrap_or_default();
            // Where the linker is wrong, that comes first in the list, and has its own line here.
            let found = all[usize::from(!linker_is_right).min(all.len())..].join("; ");
            findings.push(Finding::wrong("eBPF compiler", found, SETUP));
        }
    }
    if let Ok(name) = env::var(toolchain::TOOLCHAIN_VARIABLE) {
        let found = format!("{}={name:?} allows no other compiler", toolchain::TOOLCHAIN_VARIABLE);
        findings.push(Finding::ok("environment", found));
    }
    findings.push(linker);
    findings
}

fn compiler_findings(compiler: &Compiler) -> [Finding; 2] {
    let Compiler { selector, name, llvm, core, rustc } = compiler;
    let how = match selector {
        Selector::Rustup(toolchain) => format!("rustup toolchain {toolchain}"),
        Selector::Path => rustc.display().to_string(),
    };
    let core = match core {
        Core::Source => "built from rust-src".to_owned(),
        Core::Precompiled => format!("precompiled for {}", toolchain::TARGET),
    };
    [Finding::ok("eBPF compiler", format!("{name}, LLVM {llvm}, {how}")), Finding::ok("core for eBPF", core)]
}

fn kernel(release: &str, version: Option<Version>) -> [Finding; 2] {
    let too_old = format!("boot Linux {}.{} or later", OLDEST_KERNEL.major, OLDEST_KERNEL.minor);
    let kernel = match version {
        Some(version) if version >= OLDEST_KERNEL => Finding::ok("kernel", release),
        Some(_) => {
            Finding::wrong("kernel", format!("{release} has no bpf_redirect_neigh with a next hop"), too_old)
        }
        None => Finding::wrong("kernel", format!("cannot read a version in {release:?}"), too_old),
    };
    let attachment = if version.is_some_and(|version| version >= FIRST_TCX_KERNEL) {
        Finding::ok("attachment", "TCX")
    } else {
        Finding::note("attachment", "clsact, as TCX comes with Linux 6.6", "nothing needs to be done")
    };
    [kernel, attachment]
}

fn btf(there: bool) -> Finding {
    if there {
        Finding::ok("kernel BTF", "/sys/kernel/btf/vmlinux")
    } else {
        Finding::wrong(
            "kernel BTF",
            "no /sys/kernel/btf/vmlinux",
            "use a kernel with CONFIG_DEBUG_INFO_BTF=y",
        )
    }
}

fn jit(on: bool) -> Finding {
    if on {
        Finding::ok("JIT", "on")
    } else {
        Finding::note("JIT", "off: programs are interpreted, slowly", "sysctl net.core.bpf_jit_enable=1")
    }
}

/// `sudo`: the process is not root, but can be.
fn capabilities(effective: u64, sudo: bool) -> Finding {
    let wanted = [("CAP_BPF", CAP_BPF), ("CAP_NET_ADMIN", CAP_NET_ADMIN), ("CAP_SYS_ADMIN", CAP_SYS_ADMIN)];
    let (have, lack): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|(_, bit)| effective >> bit & 1 == 1);
    let names =
        |list: Vec<(&str, u32)>| list.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
    if lack.is_empty() {
        return Finding::ok("capabilities", names(have));
    }
    let lacking = names(lack);
    let found =
        format!("no {lacking} (mhebpf needs the first two of {}, demo and tests all)", names(wanted.into()));
    if sudo {
        Finding::note("capabilities", found, "demo and test use sudo; run mhebpf with sudo as well")
    } else {
        Finding::wrong("capabilities", found, "run as root")
    }
}

fn bpffs(mounted: Option<String>) -> Finding {
    match mounted {
        Some(path) => Finding::ok("bpffs", path),
        None => Finding::note(
            "bpffs",
            "not mounted: nothing can be pinned",
            "mount -t bpf -o mode=0700 bpf /sys/fs/bpf",
        ),
    }
}

fn tools(missing: &[&str]) -> Finding {
    if missing.is_empty() {
        let names = setup::TOOLS.map(|(name, _)| name);
        Finding::ok("tools", names.join(", "))
    } else {
        Finding::wrong("tools", format!("no {}", missing.join(", ")), SETUP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(findings: &[Finding]) -> Vec<Mark> {
        findings.iter().map(|finding| finding.mark).collect()
    }

    #[test]
    fn kernels_are_judged_by_their_version() {
        let judge = |release| marks(&kernel(release, Version::parse(release)));
        assert_eq!(judge("6.18.44-arch1"), [Mark::Ok, Mark::Ok]);
        assert_eq!(judge("5.10.0-28-amd64"), [Mark::Ok, Mark::Note]);
        assert_eq!(judge("5.4.0"), [Mark::Wrong, Mark::Note]);
        assert_eq!(judge("unknown"), [Mark::Wrong, Mark::Note]);
    }

    #[test]
    fn missing_capabilities_are_wrong_unless_sudo_gives_them() {
        let all = 1 << CAP_BPF | 1 << CAP_NET_ADMIN | 1 << CAP_SYS_ADMIN;
        assert_eq!(capabilities(all, false).mark, Mark::Ok);
        assert_eq!(capabilities(all & !(1 << CAP_BPF), false).mark, Mark::Wrong);
        assert_eq!(capabilities(0, true).mark, Mark::Note);
    }

    #[test]
    fn what_is_wrong_comes_with_a_remedy() {
        let text = report(&[Finding::ok("JIT", "on"), tools(&["tc"])]);
        assert_eq!(
            text,
            "JIT            ok     on\ntools          WRONG  no tc\n                      -> run `cargo xtask setup`\n"
        );
    }
}
