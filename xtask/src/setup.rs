//! `cargo xtask setup`: installs what building, demo and tests need and the machine lacks.
//!
//! Where nothing is missing it only looks, in well under a second. What it installs is pinned, and checked afterwards:
//! the LLVM in bpf-linker must be at least as new as the LLVM of the compiler, or it cannot read its bitcode.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Instant,
};

use crate::{
    apt,
    plan::{Action, Attempt, DEBIAN_PACKAGES, Facts, Way, attempts},
    step::{Failed, run},
    toolchain::{
        self, CompilerProblem, DEBIAN_TOOLCHAIN, LINKER_LLVM, OLDEST_LINKER, PINNED_NIGHTLY, Selector,
        TOOLCHAIN_VARIABLE, ToolChain, find_program,
    },
};

/// Programs that demo and tests run, and their Debian packages.
pub(crate) const TOOLS: [(&str, &str); 2] = [("ip", "iproute2"), ("tc", "iproute2")];

/// Where Debian's package `llvm-22-dev` puts LLVM.
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
const LLVM_PACKAGE: &str = "llvm-22-dev";

/// Runs the task from its command line.
pub(crate) fn task(arguments: &[OsString]) -> ExitCode {
    let way = match arguments {
        [] => None,
        [flag, way] if flag == "--way" => match Way::parse(way) {
            Some(way) => Some(way),
            None => return crate::usage("setup: --way takes rustup or debian"),
        },
        _ => return crate::usage("setup takes nothing but --way rustup or --way debian"),
    };
    match ensure(way) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed) => ExitCode::FAILURE,
    }
}

/// Installs what is missing.
///
/// # Errors
///
/// Something is still missing; what to do by hand has been reported.
pub(crate) fn ensure(way: Option<Way>) -> Result<(), Failed> {
    let start = Instant::now();
    let mut tool_chain = ToolChain::detect();
    let mut changed = install_packages(&tool_chain)?;
    if changed {
        // A bpf-linker that lacked its LLVM may run now.
        tool_chain = ToolChain::detect();
    }
    changed |= ensure_compiler(way, &tool_chain)?;
    changed |= ensure_linker(&tool_chain)?;
    changed |= ensure_host_components()?;
    if changed {
        tool_chain = ToolChain::detect();
    }
    let seconds = start.elapsed().as_secs_f64();
    match tool_chain.usable() {
        Ok((compiler, _)) if changed => {
            println!(
                "setup: done in {seconds:.1} s; the eBPF programs are built by the {}",
                compiler.selector
            );
        }
        Ok(_) => println!("setup: nothing is missing ({seconds:.2} s)"),
        Err(wrong) => {
            eprintln!("setup: still wrong after {seconds:.1} s: {}", wrong.join("; "));
            return Err(Failed);
        }
    }
    Ok(())
}

/// Installs the packages whose files are missing, and tells whether there were any.
fn install_packages(tool_chain: &ToolChain) -> Result<bool, Failed> {
    let mut packages = Vec::new();
    if find_program("cc").is_none() {
        packages.extend(["gcc", "libc6-dev"]);
    }
    if !linker_fits(tool_chain) && !Path::new(LLVM_PREFIX).join("lib/libLLVM.so").exists() {
        packages.push(LLVM_PACKAGE);
    }
    packages.extend(missing_among(&TOOLS));
    packages.dedup();
    if !packages.is_empty() {
        apt::install("setup", &packages)?;
    }
    Ok(!packages.is_empty())
}

/// Lists the programs that demo and tests run and that are not installed.
pub(crate) fn missing_tools() -> impl Iterator<Item = (&'static str, &'static str)> {
    TOOLS.into_iter().filter(|(name, _)| !is_installed(name))
}

/// Lists the packages of programs that are not installed.
pub(crate) fn missing_among(tools: &[(&str, &'static str)]) -> Vec<&'static str> {
    tools.iter().filter(|(name, _)| !is_installed(name)).map(|(_, package)| *package).collect()
}

/// Users other than root often have no sbin on their PATH, and need none: the programs are run as root.
fn is_installed(name: &str) -> bool {
    find_program(name).is_some()
        || ["/usr/sbin", "/sbin"].iter().any(|sbin| Path::new(sbin).join(name).exists())
}

/// Sees to a compiler that fits the linker, and tells whether anything had to be done.
fn ensure_compiler(way: Option<Way>, tool_chain: &ToolChain) -> Result<bool, Failed> {
    let llvm = tool_chain.linker.as_ref().map_or(LINKER_LLVM, |linker| linker.llvm.major.max(LINKER_LLVM));
    let fits =
        |selector: &Selector| toolchain::examine(selector).is_ok_and(|compiler| compiler.llvm.major <= llvm);
    let there = match way {
        None => tool_chain.compiler_for(llvm).map(|compiler| compiler.selector.clone()),
        Some(way) => selectors_of(way).into_iter().find(fits),
    };
    if let Some(selector) = there {
        explain_choice(way, &selector);
        return Ok(false);
    }
    let forced = env::var(TOOLCHAIN_VARIABLE).ok();
    let attempts = attempts(way, forced.as_deref(), &facts());
    if attempts.is_empty() {
        eprintln!(
            "setup: no way to a compiler for the eBPF programs: way rustup takes rustup (https://rustup.rs), way debian takes apt-get"
        );
    }
    for (index, attempt) in attempts.iter().enumerate() {
        if index > 0 {
            println!("setup: trying another way: {}", attempt.way);
        }
        if perform(attempt).is_ok() {
            match toolchain::examine(&attempt.selector) {
                Ok(compiler) if compiler.llvm.major <= llvm => {
                    explain_choice(way, &attempt.selector);
                    return Ok(true);
                }
                Ok(compiler) => {
                    println!("setup: {} uses LLVM {}, bpf-linker {llvm}", attempt.selector, compiler.llvm);
                }
                Err(problem) => println!("setup: {} {problem}", attempt.selector),
            }
        }
    }
    Err(Failed)
}

/// Lists the compilers that a way can lead to, best first.
fn selectors_of(way: Way) -> Vec<Selector> {
    let names: &[&str] = match way {
        Way::Rustup => &[PINNED_NIGHTLY, "nightly"],
        Way::Debian if find_program("rustup").is_some() => &[DEBIAN_TOOLCHAIN],
        Way::Debian => return vec![Selector::Path],
    };
    names.iter().map(|name| Selector::Rustup((*name).to_owned())).collect()
}

/// A way that was asked for may not be the one that a build would choose: says how to choose it.
fn explain_choice(way: Option<Way>, selector: &Selector) {
    if let (Some(_), Selector::Rustup(name)) = (way, selector)
        && ToolChain::detect().compiler_for(LINKER_LLVM).is_some_and(|chosen| chosen.selector != *selector)
    {
        println!("setup: {selector} is ready; builds prefer another one unless {TOOLCHAIN_VARIABLE}={name}");
    }
}

fn facts() -> Facts {
    let rustup = find_program("rustup").is_some();
    let forced = env::var(TOOLCHAIN_VARIABLE).ok();
    let names = forced.as_deref().into_iter().chain([PINNED_NIGHTLY, "nightly"]);
    let lacks_source = |name: &&str| {
        toolchain::examine(&Selector::Rustup((*name).to_owned())) == Err(CompilerProblem::NoRustSrc)
    };
    Facts {
        rustup,
        apt: apt::available(),
        without_source: names.filter(lacks_source).map(str::to_owned).collect(),
        debian_unlinked: toolchain::examine(&Selector::Path)
            .is_ok_and(|c| c.rustc == Path::new("/usr/bin/rustc")),
    }
}

fn perform(attempt: &Attempt) -> Result<(), Failed> {
    attempt.actions.iter().try_for_each(|action| match action {
        Action::AddSource(name) => {
            let arguments = ["component", "add", "rust-src", "--toolchain", name];
            run("setup", "adding the source of core", Command::new("rustup").args(arguments))
        }
        Action::InstallToolchain(name) => {
            let arguments = [
                "toolchain",
                "install",
                name,
                "--profile=minimal",
                "--component=rust-src",
                "--no-self-update",
            ];
            run(
                "setup",
                "installing a compiler for the eBPF programs",
                Command::new("rustup").args(arguments),
            )
        }
        Action::InstallDebianPackages => apt::install("setup", &DEBIAN_PACKAGES),
        Action::LinkDebian => {
            let arguments = ["toolchain", "link", DEBIAN_TOOLCHAIN, "/usr"];
            run("setup", "making Debian's compiler known to rustup", Command::new("rustup").args(arguments))
        }
    })
}

fn linker_fits(tool_chain: &ToolChain) -> bool {
    tool_chain.linker.as_ref().is_ok_and(|linker| linker.llvm.major >= LINKER_LLVM)
}

/// Sees to a linker with a recent LLVM, and tells whether it had to be built.
fn ensure_linker(tool_chain: &ToolChain) -> Result<bool, Failed> {
    if linker_fits(tool_chain) {
        return Ok(false);
    }
    if let Err(problem) = &tool_chain.linker {
        println!("setup: {problem}");
    }
    let mut command = Command::new("cargo");
    // Its work is done by LLVM, which is compiled already: optimizing the rest takes minutes and gains nothing.
    command.env("CARGO_PROFILE_RELEASE_DEBUG", "false").env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0");
    command.env("LLVM_PREFIX", LLVM_PREFIX).args(["install", "bpf-linker", "--version"]);
    command.arg(OLDEST_LINKER.to_string()).args(["--no-default-features", "--features"]);
    // `--force` replaces one that is too old or does not run, and is harmless otherwise.
    command.arg(format!("llvm-{LINKER_LLVM}")).args(["--locked", "--force"]);
    run("setup", "building bpf-linker", &mut command)?;
    Ok(true)
}

/// Sees to `cargo fmt` and `cargo clippy` for the toolchain that runs this, and tells whether anything was missing.
fn ensure_host_components() -> Result<bool, Failed> {
    // cargo says where it is; its companions are beside it, in a toolchain of rustup as in /usr/bin.
    let beside = env::var_os("CARGO").map(PathBuf::from);
    let has = |name: &str| beside.as_ref().is_some_and(|cargo| cargo.with_file_name(name).is_file());
    let missing = |name: &&[&'static str; 3]| !has(name[0]);
    // The program, the component of rustup, the package of Debian.
    let all = [["cargo-fmt", "rustfmt", "rustfmt-web"], ["cargo-clippy", "clippy", "rust-web-clippy"]];
    let missing: Vec<_> = all.iter().filter(missing).collect();
    if missing.is_empty() {
        return Ok(false);
    }
    match env::var("RUSTUP_TOOLCHAIN") {
        Ok(toolchain) => {
            let components = missing.iter().map(|names| names[1]);
            let mut command = Command::new("rustup");
            command.args(["component", "add", "--toolchain", &toolchain]).args(components);
            run("setup", "adding the formatter and the linter", &mut command)?;
        }
        Err(_) => apt::install("setup", &missing.iter().map(|names| names[2]).collect::<Vec<_>>())?,
    }
    Ok(true)
}
