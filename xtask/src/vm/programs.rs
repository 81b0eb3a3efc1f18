//! What runs in a guest: statically linked tests and mhebpf, and the tools that the lab is made with.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::quietly::quietly;
use crate::{
    step::{Failed, run, show},
    toolchain::find_program,
};

/// A target that is named, though it is the host's: what is built for it does not touch the other builds.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// How many times slower than a machine an emulated one is. The tests have their time limits when they are compiled.
const PATIENCE: &str = "10";

/// What is built beside the tests.
const PROGRAMS: [&str; 2] = ["mhebpf", "guest_init"];

/// Programs, each with its path in the guest and its contents.
#[derive(Clone, Debug, Default)]
pub(crate) struct Programs {
    pub(crate) files: Vec<(String, Vec<u8>)>,
}

/// Where the programs of the tests are in the guest.
pub(crate) const TESTS: &str = "/tests/";

impl Programs {
    /// Builds the tests and mhebpf and collects them and the tools. `tests` are the test files wanted; all, if none.
    ///
    /// # Errors
    ///
    /// They do not compile, or a tool is missing; the former has been reported on the terminal.
    pub(crate) fn collect(tests: &[&str], cache: &Path) -> Result<Self, String> {
        let mut programs = Self::default();
        let stripped = cache.join("stripped");
        fs::create_dir_all(&stripped).map_err(|error| format!("{}: {error}", stripped.display()))?;
        for (name, path) in build(tests)? {
            let to = stripped.join(&name);
            quietly(Command::new("strip").arg("-o").args([&to, &path]))?;
            let place = match name.as_str() {
                "guest_init" => "/init".to_owned(),
                "mhebpf" => "/bin/mhebpf".to_owned(),
                _ => format!("{TESTS}{name}"),
            };
            programs.files.push((place, read(&to)?));
        }
        for tool in ["ip", "tc"] {
            programs.add_tool(tool)?;
        }
        Ok(programs)
    }

    /// Adds a program of the machine and the libraries that it is linked with.
    fn add_tool(&mut self, name: &str) -> Result<(), String> {
        let beside = ["/usr/sbin", "/sbin"].map(|directory| Path::new(directory).join(name));
        let path = find_program(name).or_else(|| beside.into_iter().find(|path| path.exists()));
        let path =
            path.ok_or_else(|| format!("there is no `{name}` here: `cargo xtask setup` installs it"))?;
        self.files.push((format!("/bin/{name}"), read(&path)?));
        for library in libraries(&quietly(Command::new("ldd").arg(&path))?) {
            if !self.files.iter().any(|(place, _)| *place == library) {
                let contents = read(library.as_ref())?;
                self.files.push((library, contents));
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Finds the files in what `ldd` says: `libz.so.1 => /lib/libz.so.1 (0x1)`, `/lib64/ld-linux-x86-64.so.2 (0x1)`.
fn libraries(said: &str) -> Vec<String> {
    let file = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned);
    said.lines().filter_map(file).collect()
}

/// Builds the programs and returns their names and files.
fn build(tests: &[&str]) -> Result<Vec<(String, PathBuf)>, String> {
    let mut command = Command::new("cargo");
    // Programs that are linked statically run on a kernel with nothing else around them.
    command.env("RUSTFLAGS", "-C target-feature=+crt-static").env("MHEBPF_PATIENCE", PATIENCE);
    command.args(["build", "--target", TARGET, "--package", "mhebpf", "--package", "mhebpf-tests"]);
    command.args(PROGRAMS.iter().flat_map(|program| ["--bin", program]));
    if tests.is_empty() {
        command.args(["--test", "*"]);
    }
    command.args(tests.iter().flat_map(|test| ["--test", test]));
    // First for the eyes, then, when there is nothing left to do, for the names of what was built.
    run("vm", "building what runs in the guest", &mut command)
        .map_err(|Failed| "what runs in the guest does not compile".to_owned())?;
    let messages = quietly(command.args(["--quiet", "--message-format=json"]))?;
    let built: Vec<_> = messages.lines().filter_map(executable).collect();
    let has = |wanted: &str| built.iter().any(|(name, _)| name == wanted);
    if !PROGRAMS.iter().chain(tests).all(|name| has(name)) {
        return Err(format!("`{}` has not built all that it was asked for: {built:?}", show(&command)));
    }
    Ok(built)
}

/// Finds the program in one of cargo's messages, and the name of the target that it was built from.
fn executable(message: &str) -> Option<(String, PathBuf)> {
    let path = string(message, "\"executable\":\"")?;
    let target = message.split_once("\"target\":{")?.1;
    let name = string(target, "\"name\":\"")?;
    // Tests take all programs of their package along, the demo for example.
    let is_wanted = target.starts_with("\"kind\":[\"test\"]") || PROGRAMS.contains(&name.as_str());
    is_wanted.then(|| (name, path.into()))
}

/// Returns the string of JSON that begins behind `key`.
fn string(message: &str, key: &str) -> Option<String> {
    let mut characters = message.split_once(key)?.1.chars();
    let mut value = String::new();
    loop {
        match characters.next()? {
            '"' => return Some(value),
            // Control characters, which this does not know, are in no path of a target directory.
            '\\' => value.push(characters.next()?),
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_cargos_messages() {
        let test = r#"{"reason":"compiler-artifact","target":{"kind":["test"],"crate_types":["bin"],"name":"mtu",
            "src_path":"/w/tests/tests/mtu.rs"},"filenames":["x"],"executable":"/t/a \"b\"/mtu-1f","fresh":true}"#;
        assert_eq!(executable(test), Some(("mtu".to_owned(), PathBuf::from("/t/a \"b\"/mtu-1f"))));
        let library =
            r#"{"reason":"compiler-artifact","target":{"name":"libc"},"executable":null,"fresh":true}"#;
        assert_eq!(executable(library), None);
        let demo = test.replace("\"test\"", "\"bin\"");
        assert_eq!(executable(&demo), None);
        assert!(executable(&demo.replace("\"mtu\"", "\"mhebpf\"")).is_some());
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#), None);
    }

    #[test]
    fn libraries_are_found_in_what_ldd_says() {
        let said = "\tlinux-vdso.so.1 (0x7ffd)\n\tlibz.so.1 => /lib/libz.so.1 (0x7f01)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x7f02)\n\tlibno.so => not found\n";
        assert_eq!(libraries(said), ["/lib/libz.so.1", "/lib64/ld-linux-x86-64.so.2"]);
    }
}
