//! Packages from any suite, by an apt whose state is its own: the machine's stays as it is, and no root is needed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::quietly::quietly;

/// What apt has to know of the machine's packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Installed {
    /// Nothing, since single packages are wanted.
    Ignored,
    /// Those that are installed, since only what they lack is wanted.
    Known,
}

/// An apt with sources of its own.
#[derive(Debug)]
pub(crate) struct Archive {
    directory: PathBuf,
    configuration: PathBuf,
}

impl Archive {
    /// Makes the configuration in `directory` and fetches the lists of packages.
    ///
    /// # Errors
    ///
    /// A source cannot be reached, or is not signed by a key that the machine has.
    pub(crate) fn open(directory: &Path, sources: &[String], installed: Installed) -> Result<Self, String> {
        let archive = Self { directory: directory.to_path_buf(), configuration: directory.join("apt.conf") };
        archive.configure(sources, installed).map_err(|error| {
            format!("cannot write the configuration of apt in {}: {error}", directory.display())
        })?;
        // Otherwise a source that cannot be reached is a warning, and old lists go on being used.
        quietly(archive.command("apt-get").args(["update", "-qq", "-o=APT::Update::Error-Mode=any"]))?;
        Ok(archive)
    }

    fn configure(&self, sources: &[String], installed: Installed) -> std::io::Result<()> {
        for directory in ["state", "cache/archives/partial", "empty"] {
            fs::create_dir_all(self.directory.join(directory))?;
        }
        fs::write(self.directory.join("sources.list"), sources.join("\n") + "\n")?;
        fs::write(self.directory.join("nothing-installed"), "")?;
        // How to reach the sources, proxies for example. Actions of the machine's that follow an update are no part
        // of this, nor are lists of packages for which apt has no use.
        let machine = Command::new("apt-config").arg("dump").output()?.stdout;
        let machine = String::from_utf8_lossy(&machine).into_owned();
        let of_use =
            |line: &&str| line.starts_with("Acquire::") && !line.starts_with("Acquire::IndexTargets");
        let mut text: String = machine.lines().filter(of_use).flat_map(|line| [line, "\n"]).collect();
        let here = self.directory.display();
        let status = match installed {
            Installed::Ignored => format!("{here}/nothing-installed"),
            Installed::Known => "/var/lib/dpkg/status".to_owned(),
        };
        for (key, value) in [
            ("Dir::Etc::main", "/dev/null"),
            ("Dir::Etc::parts", &format!("{here}/empty")),
            ("Dir::Etc::sourcelist", &format!("{here}/sources.list")),
            ("Dir::Etc::sourceparts", &format!("{here}/empty")),
            ("Dir::Etc::preferences", "/dev/null"),
            ("Dir::Etc::preferencesparts", &format!("{here}/empty")),
            ("Dir::State", &format!("{here}/state")),
            ("Dir::State::status", &status),
            ("Dir::Cache", &format!("{here}/cache")),
            ("Acquire::Retries", "2"),
            // Its user for downloads cannot write here.
            ("APT::Sandbox::User", "root"),
        ] {
            text += &format!("{key} \"{value}\";\n");
        }
        fs::write(&self.configuration, text)
    }

    /// Tells whether a version of a package can be had.
    pub(crate) fn has(&self, name: &str, version: &str) -> bool {
        let wanted = format!("{name}={version}");
        quietly(self.command("apt-cache").args(["show", "--quiet=2", &wanted])).is_ok()
    }

    /// Lists the packages whose names begin with `prefix`.
    pub(crate) fn names(&self, prefix: &str) -> Vec<String> {
        let said = quietly(self.command("apt-cache").args(["pkgnames", prefix])).unwrap_or_default();
        said.lines().map(str::to_owned).collect()
    }

    /// Returns the newest version of a package.
    pub(crate) fn newest_version(&self, name: &str) -> Option<String> {
        let said = quietly(self.command("apt-cache").args(["show", "--no-all-versions", name])).ok()?;
        said.lines().find_map(|line| line.strip_prefix("Version: ")).map(str::to_owned)
    }

    /// Downloads one package into a directory; apt checks it against the signed lists.
    ///
    /// # Errors
    ///
    /// It cannot be had.
    pub(crate) fn download(&self, name: &str, version: &str, to: &Path) -> Result<(), String> {
        let wanted = format!("{name}={version}");
        quietly(self.command("apt-get").current_dir(to).args(["download", "-qq", &wanted])).map(drop)
    }

    /// Downloads a package and all that it needs and the machine lacks. Nothing is installed.
    ///
    /// # Errors
    ///
    /// It cannot be had, or what it needs cannot.
    pub(crate) fn download_with_dependencies(&self, name: &str) -> Result<Vec<PathBuf>, String> {
        let arguments = ["install", "-qq", "--yes", "--download-only", "--no-install-recommends", name];
        quietly(self.command("apt-get").args(arguments))?;
        let archives = self.directory.join("cache/archives");
        let files = fs::read_dir(&archives).map_err(|error| format!("{}: {error}", archives.display()))?;
        let is_package = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
        Ok(files.flatten().map(|entry| entry.path()).filter(is_package).collect())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.configuration).env("LC_ALL", "C");
        command
    }
}
