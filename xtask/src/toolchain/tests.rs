use std::process;

use super::*;

#[test]
fn versions_are_read_up_to_what_is_no_number() {
    assert_eq!(Version::parse("1.97.0-nightly"), Some(Version::new(1, 97, 0)));
    assert_eq!(Version::parse("6.18.44-arch1-1.2"), Some(Version::new(6, 18, 44)));
    assert_eq!(Version::parse("5.10"), Some(Version::new(5, 10, 0)));
    assert_eq!(Version::parse("5.10."), Some(Version::new(5, 10, 0)));
    for nonsense in ["", "6", "nightly", "-1.2", "99999999999.1"] {
        assert_eq!(Version::parse(nonsense), None, "{nonsense}");
    }
}

#[test]
fn versions_are_found_behind_their_label() {
    let rustc = "rustc 1.95.0 (59807616e 2026-04-14)\nrelease: 1.95.0\nLLVM version: 22.1.2\n";
    assert_eq!(Version::parse_after(rustc, "LLVM version:"), Some(Version::new(22, 1, 2)));
    let linker = "Debian LLVM version 22.1.8\n  Optimized build.\n";
    assert_eq!(Version::parse_after(linker, "LLVM version"), Some(Version::new(22, 1, 8)));
    assert_eq!(Version::parse_after(linker, "release:"), None);
}

#[test]
fn the_environment_decides_which_compilers_are_candidates() {
    let rustup = |name: &str| Selector::Rustup(name.to_owned());
    assert_eq!(
        candidates(None, true),
        [rustup("nightly-2026-05-20"), rustup("nightly"), rustup("mhebpf-debian")]
    );
    assert_eq!(candidates(None, false), [Selector::Path]);
    assert_eq!(candidates(Some(String::new()), true), [Selector::Path]);
    assert_eq!(candidates(Some("mine".to_owned()), true), [rustup("mine")]);
}

fn compiler(name: &str, llvm: u32) -> (Selector, Result<Compiler, CompilerProblem>) {
    let selector = Selector::Rustup(name.to_owned());
    let compiler = Compiler {
        selector: selector.clone(),
        rustc: PathBuf::new(),
        name: String::new(),
        llvm: Version::new(llvm, 1, 0),
        core: Core::Source,
    };
    (selector, Ok(compiler))
}

fn wrong(name: &str, problem: CompilerProblem) -> (Selector, Result<Compiler, CompilerProblem>) {
    (Selector::Rustup(name.to_owned()), Err(problem))
}

fn linker(llvm: u32) -> Result<Linker, LinkerProblem> {
    Ok(Linker { path: PathBuf::from("/l"), version: OLDEST_LINKER, llvm: Version::new(llvm, 1, 0) })
}

fn names(
    compilers: Vec<(Selector, Result<Compiler, CompilerProblem>)>,
    llvm: u32,
) -> Result<String, Vec<String>> {
    let tool_chain = ToolChain { compilers, linker: linker(llvm) };
    tool_chain.usable().map(|(compiler, _)| compiler.selector.to_string())
}

#[test]
fn the_first_compiler_that_fits_the_linker_is_used() {
    let compilers = vec![wrong("a", CompilerProblem::NoRustSrc), compiler("b", 23), compiler("c", 22)];
    assert_eq!(names(compilers.clone(), 22), Ok("rustup toolchain c".to_owned()));
    assert_eq!(names(compilers, 23), Ok("rustup toolchain b".to_owned()));
}

#[test]
fn a_compiler_with_a_newer_llvm_than_the_linkers_is_refused() {
    assert_eq!(
        names(vec![compiler("nightly", 23)], 22),
        Err(vec!["rustup toolchain nightly uses LLVM 23.1.0, bpf-linker only 22".to_owned()])
    );
}

#[test]
fn compilers_that_are_not_installed_are_named_only_when_none_is() {
    let absent = || wrong("a", CompilerProblem::NotInstalled);
    assert_eq!(
        names(vec![absent(), wrong("b", CompilerProblem::NoRustSrc)], 22),
        Err(vec!["rustup toolchain b has no rust-src component to build core from".to_owned()])
    );
    assert_eq!(
        names(vec![absent()], 22),
        Err(vec!["no compiler for the eBPF programs is installed (rustup toolchain a)".to_owned()])
    );
}

#[test]
fn a_missing_linker_is_reported_together_with_a_missing_compiler() {
    let problems = ToolChain {
        compilers: vec![wrong("a", CompilerProblem::NoRustSrc)],
        linker: Err(LinkerProblem::NotInstalled),
    };
    assert_eq!(problems.usable().err().map(|wrong| wrong.len()), Some(2));
}

/// A directory that is laid out like an installed compiler, and removed in the end.
struct Prefix(PathBuf);

impl Prefix {
    fn new(test: &str) -> io::Result<Self> {
        let prefix = env::temp_dir().join(format!("mhebpf-xtask-{}-{test}", process::id()));
        fs::create_dir_all(prefix.join("bin"))?;
        Ok(Self(prefix))
    }

    fn write(&self, file: &str, content: &[u8]) -> io::Result<()> {
        let path = self.0.join("lib/rustlib").join(file);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        fs::write(path, content)
    }

    fn find_core(&self, name: &str) -> Result<Core, CompilerProblem> {
        find_core(&self.0.join("bin/rustc"), name)
    }
}

impl Drop for Prefix {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_nightly_takes_the_source_of_core() -> io::Result<()> {
    let nightly = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)";
    let prefix = Prefix::new("nightly")?;
    assert_eq!(prefix.find_core(nightly), Err(CompilerProblem::NoRustSrc));
    prefix.write("src/rust/library/core/src/lib.rs", b"")?;
    assert_eq!(prefix.find_core(nightly), Ok(Core::Source));
    Ok(())
}

#[test]
fn a_stable_compiler_takes_a_core_that_it_has_compiled_itself() -> io::Result<()> {
    let stable = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)";
    let prefix = Prefix::new("stable")?;
    prefix.write("src/rust/library/core/src/lib.rs", b"")?;
    assert_eq!(prefix.find_core(stable), Err(CompilerProblem::NoCore));
    let library = format!("{TARGET}/lib/libcore-8056e5e5b270ef4d.rmeta");
    prefix.write(&library, format!("rust\0\0\0\n\0A{stable}\0").as_bytes())?;
    assert_eq!(prefix.find_core(stable), Ok(Core::Precompiled));
    let other = "rustc 1.96.1 (000000000 2026-07-01) (built from a source tarball)";
    assert!(matches!(prefix.find_core(other), Err(CompilerProblem::CoreOfAnotherCompiler(_))));
    Ok(())
}
