//! Finds the tool chain that builds the eBPF programs, and says what is wrong where it cannot.
//!
//! Included by the tasks and by the build script of `mhebpf`, so that both always agree; therefore it uses nothing
//! but the standard library. It looks at files where it can and runs `rustc` and `bpf-linker` only to learn versions.

use std::{
    env::{self, consts::ARCH},
    ffi::OsStr,
    fmt, fs, io,
    io::Read as _,
    path::{Path, PathBuf},
    process::Command,
};

/// Names the compiler to use instead of the candidates below: a rustup toolchain, or empty for the `rustc` on `PATH`.
pub(crate) const TOOLCHAIN_VARIABLE: &str = "MHEBPF_EBPF_TOOLCHAIN";

/// The last nightly known to build the eBPF programs with this workspace's lock file (rustc 1.97.0, LLVM 22.1.4).
pub(crate) const PINNED_NIGHTLY: &str = "nightly-2026-05-20";

/// The name under which `cargo xtask setup` links Debian's compiler into rustup.
pub(crate) const DEBIAN_TOOLCHAIN: &str = "mhebpf-debian";

/// `rust-version` of the workspace, which cargo refuses to build with anything older.
const OLDEST_RUST: Version = Version::new(1, 95, 0);

/// The first bpf-linker that is built with LLVM 22, the LLVM of Rust 1.95 and later.
pub(crate) const OLDEST_LINKER: Version = Version::new(0, 13, 0);

/// The LLVM major version of the bpf-linker that `cargo xtask setup` builds.
pub(crate) const LINKER_LLVM: u32 = 22;

/// The target that the programs are compiled for; its byte order is the host's.
pub(crate) const TARGET: &str =
    if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };

/// A dotted version; what follows the third number is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) patch: u32,
}

impl Version {
    pub(crate) const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Parses the version at the start of `text`: `1.97.0-nightly`, `22.1.8`, `6.18.44-arch1`, `5.10`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let mut numbers = text[..end].split('.').filter(|part| !part.is_empty());
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?.parse().ok()?;
        let patch = numbers.next().map_or(Ok(0), str::parse).ok()?;
        Some(Self { major, minor, patch })
    }

    /// Parses the version that follows the first occurrence of `label`.
    pub(crate) fn parse_after(text: &str, label: &str) -> Option<Self> {
        let (_, rest) = text.split_once(label)?;
        Self::parse(rest.trim_start())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// How a compiler is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selector {
    /// By `rustup run NAME`.
    Rustup(String),
    /// As the `rustc` on `PATH` that is not rustup's.
    Path,
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rustup(name) => write!(f, "rustup toolchain {name}"),
            Self::Path => f.write_str("rustc on PATH"),
        }
    }
}

/// How `core` for the eBPF target is had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Core {
    /// Built from the `rust-src` component, which takes a nightly compiler.
    Source,
    /// Installed beside the compiler, already compiled.
    Precompiled,
}

/// A compiler that can build the eBPF programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compiler {
    pub(crate) selector: Selector,
    pub(crate) rustc: PathBuf,
    /// The first line of `rustc -vV`.
    pub(crate) name: String,
    pub(crate) llvm: Version,
    pub(crate) core: Core,
}

/// Why a candidate cannot build the eBPF programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CompilerProblem {
    NotInstalled,
    DoesNotRun(String),
    TooOld(Version),
    NoRustSrc,
    NoCore,
    CoreOfAnotherCompiler(PathBuf),
}

impl fmt::Display for CompilerProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInstalled => f.write_str("is not installed"),
            Self::DoesNotRun(why) => write!(f, "does not run: {why}"),
            Self::TooOld(release) => write!(f, "is Rust {release}, older than {OLDEST_RUST}"),
            Self::NoRustSrc => f.write_str("has no rust-src component to build core from"),
            Self::NoCore => write!(f, "is not a nightly and has no core compiled for {TARGET}"),
            Self::CoreOfAnotherCompiler(file) => {
                write!(f, "is not the compiler that {} was made by", file.display())
            }
        }
    }
}

/// The `bpf-linker` that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Linker {
    pub(crate) path: PathBuf,
    pub(crate) version: Version,
    pub(crate) llvm: Version,
}

/// Why bpf-linker cannot link the eBPF programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LinkerProblem {
    NotInstalled,
    DoesNotRun(PathBuf, String),
    TooOld(PathBuf, Version),
    UnknownLlvm(PathBuf),
}

impl fmt::Display for LinkerProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInstalled => f.write_str("bpf-linker is not installed"),
            Self::DoesNotRun(path, why) => write!(f, "{} does not run: {why}", path.display()),
            Self::TooOld(path, version) => {
                write!(f, "{} is version {version}, older than {OLDEST_LINKER}", path.display())
            }
            Self::UnknownLlvm(path) => write!(f, "{} does not tell which LLVM it uses", path.display()),
        }
    }
}

/// What the machine has.
#[derive(Clone, Debug)]
pub(crate) struct ToolChain {
    pub(crate) compilers: Vec<(Selector, Result<Compiler, CompilerProblem>)>,
    pub(crate) linker: Result<Linker, LinkerProblem>,
}

impl ToolChain {
    /// Examines the linker, and the compilers in the order of preference until one fits.
    pub(crate) fn detect() -> Self {
        let linker = find_linker();
        let llvm = linker.as_ref().map_or(LINKER_LLVM, |linker| linker.llvm.major);
        let mut compilers = Vec::new();
        for selector in candidates(env::var(TOOLCHAIN_VARIABLE).ok(), find_program("rustup").is_some()) {
            let compiler = examine(&selector);
            let fits = compiler.as_ref().is_ok_and(|compiler| compiler.llvm.major <= llvm);
            compilers.push((selector, compiler));
            if fits {
                break;
            }
        }
        Self { compilers, linker }
    }

    /// Returns the first compiler whose bitcode a linker with LLVM `major` can read.
    pub(crate) fn compiler_for(&self, major: u32) -> Option<&Compiler> {
        self.compilers
            .iter()
            .find_map(|(_, compiler)| compiler.as_ref().ok().filter(|compiler| compiler.llvm.major <= major))
    }

    /// Returns the compiler and the linker to build with.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, where they do not exist or do not fit together.
    pub(crate) fn usable(&self) -> Result<(&Compiler, &Linker), Vec<String>> {
        let mut wrong = Vec::new();
        let llvm = match &self.linker {
            Ok(linker) => linker.llvm.major,
            Err(problem) => {
                wrong.push(problem.to_string());
                LINKER_LLVM
            }
        };
        let compiler = self.compiler_for(llvm);
        if compiler.is_none() {
            wrong.extend(self.compiler_problems(llvm));
        }
        match (compiler, &self.linker) {
            (Some(compiler), Ok(linker)) => Ok((compiler, linker)),
            _ => Err(wrong),
        }
    }

    fn compiler_problems(&self, llvm: u32) -> Vec<String> {
        let absent = |found: &Result<_, _>| matches!(found, Err(CompilerProblem::NotInstalled));
        if self.compilers.iter().all(|(_, found)| absent(found)) {
            let names: Vec<_> = self.compilers.iter().map(|(selector, _)| selector.to_string()).collect();
            return vec![format!("no compiler for the eBPF programs is installed ({})", names.join(", "))];
        }
        let present = self.compilers.iter().filter(|(_, found)| !absent(found));
        present
            .map(|(selector, found)| match found {
                Err(problem) => format!("{selector} {problem}"),
                Ok(compiler) => format!("{selector} uses LLVM {}, bpf-linker only {llvm}", compiler.llvm),
            })
            .collect()
    }
}

/// Lists the compilers to try, best first.
pub(crate) fn candidates(forced: Option<String>, rustup: bool) -> Vec<Selector> {
    match forced {
        Some(name) if name.is_empty() => vec![Selector::Path],
        Some(name) => vec![Selector::Rustup(name)],
        None if rustup => {
            [PINNED_NIGHTLY, "nightly", DEBIAN_TOOLCHAIN].map(|name| Selector::Rustup(name.to_owned())).into()
        }
        None => vec![Selector::Path],
    }
}

/// Finds out whether a candidate can build the eBPF programs.
pub(crate) fn examine(selector: &Selector) -> Result<Compiler, CompilerProblem> {
    let rustc = match selector {
        Selector::Rustup(name) => toolchain_directory(name).map(|directory| directory.join("bin/rustc")),
        Selector::Path => program_directories().map(|directory| directory.join("rustc")).find(|path| {
            // In rustup's own directory every program is rustup.
            path.is_file() && !path.with_file_name("rustup").exists()
        }),
    };
    let rustc = rustc.filter(|path| path.is_file()).ok_or(CompilerProblem::NotInstalled)?;
    let told = output_of(Command::new(&rustc).arg("-vV")).map_err(CompilerProblem::DoesNotRun)?;
    let name = told.lines().next().unwrap_or_default().to_owned();
    let (release, llvm) =
        match (Version::parse_after(&told, "release:"), Version::parse_after(&told, "LLVM version:")) {
            (Some(release), Some(llvm)) => (release, llvm),
            _ => return Err(CompilerProblem::DoesNotRun(format!("`rustc -vV` says {told:?}"))),
        };
    if release < OLDEST_RUST {
        return Err(CompilerProblem::TooOld(release));
    }
    let core = find_core(&rustc, &name)?;
    Ok(Compiler { selector: selector.clone(), rustc, name, llvm, core })
}

/// Finds `core` for the compiler `rustc` in its `bin/../lib/rustlib`.
fn find_core(rustc: &Path, name: &str) -> Result<Core, CompilerProblem> {
    let prefix = rustc.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    let rustlib = prefix.join("lib/rustlib");
    if name.contains("-nightly") || name.contains("-dev") {
        let source = rustlib.join("src/rust/library/core/src/lib.rs");
        return if source.is_file() { Ok(Core::Source) } else { Err(CompilerProblem::NoRustSrc) };
    }
    let library = files_in(&rustlib.join(TARGET).join("lib")).find(|file| {
        let name = file.file_name().and_then(OsStr::to_str).unwrap_or_default();
        name.starts_with("libcore-") && name.ends_with(".rmeta")
    });
    let library = library.ok_or(CompilerProblem::NoCore)?;
    // The metadata begins with the name of the compiler that wrote it. Debian's package of core does not depend on
    // the compiler's, so an upgrade can leave two that do not fit.
    let mut head = Vec::new();
    let read = fs::File::open(&library).and_then(|file| file.take(256).read_to_end(&mut head));
    if read.is_ok() && head.windows(name.len()).any(|window| window == name.as_bytes()) {
        Ok(Core::Precompiled)
    } else {
        Err(CompilerProblem::CoreOfAnotherCompiler(library))
    }
}

/// Finds the linker that cargo is configured to use, or that is installed.
fn find_linker() -> Result<Linker, LinkerProblem> {
    let path = env::var_os(linker_variable())
        .map(PathBuf::from)
        .or_else(|| find_program("bpf-linker"))
        .or_else(|| Some(cargo_home()?.join("bin/bpf-linker")).filter(|path| path.is_file()))
        .ok_or(LinkerProblem::NotInstalled)?;
    let failed = |why| LinkerProblem::DoesNotRun(path.clone(), why);
    let told = output_of(Command::new(&path).arg("--version")).map_err(failed)?;
    let version = Version::parse_after(&told, "bpf-linker")
        .ok_or_else(|| failed(format!("`bpf-linker --version` says {told:?}")))?;
    if version < OLDEST_LINKER {
        return Err(LinkerProblem::TooOld(path, version));
    }
    // LLVM itself answers, however it is linked; it then exits before the linker opens a file.
    let mut ask = Command::new(&path);
    ask.args(["--llvm-args=--version", "--output", "/dev/null", "/dev/null"]);
    let llvm = output_of(&mut ask).ok().and_then(|told| Version::parse_after(&told, "LLVM version"));
    let llvm = llvm.ok_or_else(|| LinkerProblem::UnknownLlvm(path.clone()))?;
    Ok(Linker { path, version, llvm })
}

/// The environment variable by which cargo is told the linker of the eBPF target.
pub(crate) fn linker_variable() -> String {
    format!("CARGO_TARGET_{}_LINKER", TARGET.to_uppercase().replace('-', "_"))
}

/// Returns the directory of an installed rustup toolchain; `name` may lack the host triple.
pub(crate) fn toolchain_directory(name: &str) -> Option<PathBuf> {
    let home =
        env::var_os("RUSTUP_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".rustup")))?;
    files_in(&home.join("toolchains")).find(|path| {
        let rest = path.file_name().and_then(OsStr::to_str).and_then(|file| file.strip_prefix(name));
        rest.is_some_and(|rest| {
            rest.is_empty() || rest.strip_prefix('-').is_some_and(|t| t.starts_with(ARCH))
        })
    })
}

/// Returns cargo's home directory, whose `bin` holds what `cargo install` installs.
pub(crate) fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")))
}

/// Finds a program on `PATH`.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    program_directories().map(|directory| directory.join(name)).find(|path| path.is_file())
}

fn program_directories() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).collect::<Vec<_>>().into_iter()
}

fn files_in(directory: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Runs a command and returns its standard output.
///
/// # Errors
///
/// What went wrong, for a human reader.
pub(crate) fn output_of(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error: io::Error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}, {}", output.status, said.lines().next().unwrap_or("no message")))
}

// The path is given because rustfmt also comes here from the build script, and would look beside this file.
#[cfg(test)]
#[path = "toolchain/tests.rs"]
mod tests;
