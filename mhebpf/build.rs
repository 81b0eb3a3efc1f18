//! Compiles the eBPF programs of `mhebpf-ebpf` and leaves them in `OUT_DIR`.

use std::{env, path::Path, process::exit};

use aya_build::{Package, Toolchain, build_ebpf};

#[allow(dead_code, reason = "shared with the tasks, which use all of it")]
#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use toolchain::{Selector, TOOLCHAIN_VARIABLE, ToolChain};

/// The crates that use unstable features, which a stable compiler allows only where they are named. It must not be
/// `1`: aya-build would then build `core` from a source that the stable compiler does not have.
const UNSTABLE_CRATES: &str = "aya_ebpf,mhebpf_ebpf,mhebpf_bpf";

fn main() {
    println!("cargo::rerun-if-env-changed={TOOLCHAIN_VARIABLE}");
    let tool_chain = ToolChain::detect();
    let (compiler, linker) = match tool_chain.usable() {
        Ok(found) => found,
        Err(wrong) => stop(&format!(
            "the eBPF programs cannot be built: {}. Run `cargo xtask setup`, which installs what is missing; \
             `cargo xtask doctor` shows what there is.",
            wrong.join("; ")
        )),
    };
    println!("cargo::rerun-if-changed={}", compiler.rustc.display());
    println!("cargo::rerun-if-changed={}", linker.path.display());

    // SAFETY: a build script has a single thread until it starts one, and this one has not yet.
    unsafe {
        env::set_var("RUSTC_BOOTSTRAP", UNSTABLE_CRATES);
        env::set_var(toolchain::linker_variable(), &linker.path);
        // aya-build turns all that cargo prints into warnings; this leaves the compiler's.
        env::set_var("CARGO_TERM_QUIET", "true");
        if compiler.selector == Selector::Path {
            // aya-build prefers rustup where it finds it.
            env::set_var("PATH", path_without_rustup());
        }
    }
    let toolchain = match &compiler.selector {
        Selector::Rustup(name) => Toolchain::Custom(name),
        Selector::Path => Toolchain::default(),
    };

    let manifest = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let workspace = Path::new(&manifest).parent().unwrap_or(Path::new(".."));
    // Versions of the programs' dependencies and their profile live here; cargo sees only what the host build uses.
    for file in ["Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(file).display());
    }
    let root_dir = workspace.join("mhebpf-ebpf");
    let package =
        Package { name: "mhebpf-ebpf", root_dir: &root_dir.to_string_lossy(), ..Package::default() };
    if let Err(error) = build_ebpf([package], toolchain) {
        stop(&format!("the eBPF programs were not built by the {}: {error:#}", compiler.selector));
    }
}

/// Returns `PATH` without the directories that hold rustup and its proxies.
fn path_without_rustup() -> std::ffi::OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let rest = env::split_paths(&path).filter(|directory| !directory.join("rustup").exists());
    env::join_paths(rest).unwrap_or_default()
}

/// Ends the build with one message. The status says success because cargo fails on the message alone, and with any
/// other status would print the script's whole output below it.
fn stop(message: &str) -> ! {
    println!("cargo::error={message}");
    exit(0)
}
