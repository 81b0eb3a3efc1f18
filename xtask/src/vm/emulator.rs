//! The emulator: the machine's own, or the distribution's, unpacked where it changes nothing on the machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    archive::{Archive, Installed},
    packages::KernelFiles,
    quietly::quietly,
    sources::Sources,
};
use crate::toolchain::find_program;

const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";

/// What the guest may have. The tests keep the lab's frames in memory, and the root file system is there as well.
const MEMORY: &str = "1G";

/// One thread emulates both processors: with one for each, guests crash at random (qemu 7.2). Translated code would
/// otherwise take an eighth of the machine's memory, for each guest.
///
/// Not KVM: machines whose nested virtualisation cannot boot a stock kernel have a `/dev/kvm` as well.
const ACCELERATOR: &str = "tcg,thread=single,tb-size=256";

/// How the emulator ends when the guest does so with 0: `outb(n)` makes it `2n + 1`.
pub(crate) const STATUS_OF_SUCCESS: i32 = 1;

/// An emulator that runs.
#[derive(Clone, Debug)]
pub(crate) struct Emulator {
    program: PathBuf,
    /// The root of the unpacked packages, if it is from there.
    unpacked: Option<PathBuf>,
}

impl Emulator {
    /// Finds the emulator, or fetches it into `cache`.
    ///
    /// # Errors
    ///
    /// There is none to be had here.
    pub(crate) fn find(cache: &Path) -> Result<Self, String> {
        if !cfg!(target_arch = "x86_64") {
            return Err(
                "the kernels are those of x86-64, and what is built here would not run there".to_owned()
            );
        }
        if let Some(program) = find_program(PROGRAM) {
            return Ok(Self { program, unpacked: None });
        }
        let root = cache.join("qemu");
        if !root.is_dir() {
            println!("vm: there is no {PROGRAM} here; unpacking the package {PACKAGE} in {}", root.display());
            unpack(&root, cache).map_err(|why| format!("no {PROGRAM}: {why}"))?;
        }
        let emulator = Self { program: root.join("usr/bin").join(PROGRAM), unpacked: Some(root) };
        quietly(emulator.bare_command().arg("--version"))?;
        Ok(emulator)
    }

    /// Returns the command that boots a kernel and ends with it.
    pub(crate) fn command(&self, kernel: &KernelFiles, initramfs: &Path, logs: &Logs) -> Command {
        let mut command = self.bare_command();
        command.args(["-accel", ACCELERATOR, "-cpu", "max", "-smp", "2", "-m", MEMORY]);
        command.args(["-nic", "none", "-no-reboot", "-nographic"]);
        command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(initramfs);
        command.args(["-append", "console=ttyS0 panic=-1 loglevel=5"]);
        for log in [&logs.console, &logs.output] {
            command.arg("-serial").arg(format!("file:{}", log.display()));
        }
        command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn bare_command(&self) -> Command {
        // Not even a SIGKILL of this program may leave an emulator behind.
        let mut command = match find_program("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "--"]).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        if let Some(root) = &self.unpacked {
            let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|path| root.join(path));
            let path = libraries.each_ref().map(|path| path.to_string_lossy()).join(":");
            command.env("LD_LIBRARY_PATH", path).env("QEMU_MODULE_DIR", libraries[0].join("qemu"));
            for data in ["usr/share/qemu", "usr/share/seabios"] {
                command.arg("-L").arg(root.join(data));
            }
        }
        command
    }
}

/// The files that a guest's two serial lines end in.
#[derive(Clone, Debug)]
pub(crate) struct Logs {
    /// What the kernel says.
    pub(crate) console: PathBuf,
    /// What the tests say.
    pub(crate) output: PathBuf,
}

fn unpack(root: &Path, cache: &Path) -> Result<(), String> {
    let sources = Sources::of_the_machine()?.own_lines();
    let archive = Archive::open(&cache.join("apt/own"), &sources, Installed::Known)?;
    let unfinished = root.with_extension("unfinished");
    for package in archive.download_with_dependencies(PACKAGE)? {
        quietly(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&unfinished))?;
    }
    fs::rename(&unfinished, root).map_err(|error| format!("{}: {error}", root.display()))
}
