//! From a pinned kernel to its files on disk.

use std::{
    cmp::Ordering,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    archive::{Archive, Installed},
    kernels::{FLAVOUR, Kernel, Package},
    quietly::quietly,
    sources::Sources,
};

/// The files of a kernel.
#[derive(Clone, Debug)]
pub(crate) struct KernelFiles {
    /// What `uname -r` says there.
    pub(crate) release: String,
    pub(crate) image: PathBuf,
    pub(crate) modules: PathBuf,
}

/// One build of a kernel: the pinned one, or a newer one of its series.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Build {
    abi: String,
    version: String,
    pinned: bool,
}

/// Fetches and unpacks a kernel, of which the packages are kept in `cache`.
///
/// # Errors
///
/// It cannot be had, and why.
pub(crate) fn fetch(kernel: &Kernel, cache: &Path) -> Result<KernelFiles, String> {
    let packages = cache.join("packages");
    fs::create_dir_all(&packages).map_err(|error| format!("{}: {error}", packages.display()))?;
    let pinned = Build { abi: kernel.abi.to_owned(), version: kernel.version.to_owned(), pinned: true };
    if let Ok(files) = files_of(kernel, &pinned, &packages) {
        return unpack(&pinned, &files, cache);
    }
    let source = Sources::of_the_machine()?.line_for(kernel.suite)?;
    let archive = Archive::open(&cache.join("apt").join(kernel.suite), &[source], Installed::Ignored)?;
    let build =
        if kernel.packages.iter().all(|package| archive.has(&package.name(kernel.abi), kernel.version)) {
            pinned
        } else {
            let newest = newest(kernel, &archive)?;
            let Kernel { series, suite, version, .. } = kernel;
            println!("vm: {series}: {version} has left {suite}; taking {}, the newest there", newest.version);
            newest
        };
    for package in kernel.packages {
        archive.download(&package.name(&build.abi), &build.version, &packages)?;
    }
    unpack(&build, &files_of(kernel, &build, &packages)?, cache)
}

/// Returns the packages of a build in the order of the table, checked against the pinned sums.
fn files_of(kernel: &Kernel, build: &Build, directory: &Path) -> Result<Vec<PathBuf>, String> {
    let file_of = |package: &Package| {
        let name = package.name(&build.abi);
        let path = directory.join(file_name(&name, &build.version));
        // apt has compared any other build with the signed lists.
        let sum = if build.pinned { package.sha256 } else { return found(path) };
        let said = quietly(Command::new("sha256sum").arg("--").arg(&path))?;
        if said.starts_with(sum) {
            return Ok(path);
        }
        Err(format!("{} is not the pinned package: its SHA-256 ought to be {sum}; delete it", path.display()))
    };
    kernel.packages.iter().map(file_of).collect()
}

fn found(path: PathBuf) -> Result<PathBuf, String> {
    if path.is_file() { Ok(path) } else { Err(format!("apt has left no {}", path.display())) }
}

/// The name that apt gives to the file of a package.
fn file_name(name: &str, version: &str) -> String {
    format!("{name}_{}_amd64.deb", version.replace(':', "%3a"))
}

fn newest(kernel: &Kernel, archive: &Archive) -> Result<Build, String> {
    let none = || format!("{} has no kernel of the series {}", kernel.suite, kernel.series);
    let first = kernel.packages.first().ok_or_else(none)?;
    let prefix = format!("{}{}.", first.prefix, kernel.series);
    let names = archive.names(&prefix);
    let abis = names.iter().filter_map(|name| name.strip_prefix(first.prefix)?.strip_suffix(FLAVOUR));
    let abi = abis.max_by(|one, other| by_numbers(one, other)).ok_or_else(none)?.to_owned();
    let version = archive.newest_version(&first.name(&abi)).ok_or_else(none)?;
    Ok(Build { abi, version, pinned: false })
}

/// Compares versions by the numbers in them.
fn by_numbers(one: &str, other: &str) -> Ordering {
    let numbers = |text: &str| -> Vec<u64> {
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
    };
    numbers(one).cmp(&numbers(other))
}

fn unpack(build: &Build, packages: &[PathBuf], cache: &Path) -> Result<KernelFiles, String> {
    let kernels = cache.join("kernels");
    let directory = kernels.join(&build.version);
    if !directory.is_dir() {
        fs::create_dir_all(&kernels).map_err(|error| format!("{}: {error}", kernels.display()))?;
        let unfinished = kernels.join(format!("{}.unfinished", build.version));
        for package in packages {
            quietly(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&unfinished))?;
        }
        fs::rename(&unfinished, &directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    }
    let release = format!("{}{FLAVOUR}", build.abi);
    let modules = ["lib/modules", "usr/lib/modules"].map(|place| directory.join(place).join(&release));
    let modules = modules.into_iter().find(|path| path.join("kernel").is_dir());
    let modules = modules.ok_or_else(|| format!("no modules of {release} in {}", directory.display()))?;
    let images = [directory.join("boot").join(format!("vmlinuz-{release}")), modules.join("vmlinuz")];
    let image = images.into_iter().find(|path| path.is_file());
    let image = image.ok_or_else(|| format!("no image of {release} in {}", directory.display()))?;
    Ok(KernelFiles { release, image, modules })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let mut abis = ["6.12.9+deb12", "6.12.117+deb12", "6.12.13+deb12"];
        abis.sort_by(|one, other| by_numbers(one, other));
        assert_eq!(abis, ["6.12.9+deb12", "6.12.13+deb12", "6.12.117+deb12"]);
        assert_eq!(by_numbers("5.10.0-9", "5.10.0-46"), Ordering::Less);
    }

    #[test]
    fn a_package_that_is_not_the_pinned_one_is_refused() {
        let directory = std::env::temp_dir().join(format!("mhebpf-xtask-pin-{}", std::process::id()));
        let kernel = Kernel {
            series: "1.0",
            suite: "none",
            abi: "1.0",
            version: "1:1.0-1",
            // The sum of an empty file.
            packages: &[Package {
                prefix: "linux-",
                sha256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            }],
        };
        let build = Build { abi: "1.0".to_owned(), version: "1:1.0-1".to_owned(), pinned: true };
        let path = directory.join("linux-1.0-cloud-amd64_1%3a1.0-1_amd64.deb");
        let check = |contents: &str| -> Result<bool, std::io::Error> {
            fs::create_dir_all(&directory)?;
            fs::write(&path, contents)?;
            Ok(files_of(&kernel, &build, &directory).is_ok())
        };
        assert!(check("").is_ok_and(|accepted| accepted));
        assert!(check("x").is_ok_and(|accepted| !accepted));
        assert!(fs::remove_dir_all(&directory).is_ok());
    }
}
