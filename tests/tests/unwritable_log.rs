//! A log that can't be written ends nothing, and does not keep the daemon from taking off what it must.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use mhebpf_tests::{Daemon, Lab, PATIENCE, lab::INTERFACES, wait_until};

/// Kills what it has started, if that has not ended.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn wait_end(&mut self) -> Result<Option<i32>> {
        let status = wait_until("the end of mhebpf", PATIENCE, || Ok(self.0.try_wait()?))?;
        Ok(status.code())
    }
}

fn run(lab: &Lab, further: &[&str]) -> Result<Command> {
    let mut command = Daemon::command(&lab.host)?;
    command.args(["run", "--interface", INTERFACES]).args(further).stdin(Stdio::null()).stdout(Stdio::null());
    Ok(command)
}

/// Whether a daemon answers, and has seen an address.
fn knows(lab: &Lab, address: &str) -> Result<bool> {
    let output = Daemon::command(&lab.host)?.arg("status").output()?;
    Ok(output.status.success() && String::from_utf8_lossy(&output.stdout).contains(address))
}

#[test]
fn a_full_disk_and_a_reader_that_is_gone_end_nothing() -> Result<()> {
    let full = || Ok(Stdio::from(OpenOptions::new().write(true).open("/dev/full")?));
    let gone = || {
        let (reader, writer) = io::pipe()?;
        drop(reader);
        Ok(Stdio::from(writer))
    };
    let logs: [&dyn Fn() -> Result<Stdio>; 2] = [&full, &gone];
    for log in logs {
        let lab = Lab::builder().links(2).build()?;
        let mut running = Running(run(&lab, &["-v"])?.stderr(log()?).spawn()?);
        wait_until("the daemon", PATIENCE, || Ok(knows(&lab, "192.168.0.101")?.then_some(())))?;
        // Each of these is logged.
        lab.host.ip("link set eth1_int name eth7_int")?;
        lab.host.ip("address add 192.168.0.200/21 dev eth7_int")?;
        wait_until("the change", PATIENCE, || Ok(knows(&lab, "192.168.0.200")?.then_some(())))?;
        // SAFETY: kill takes no pointers; a child that has not been waited for keeps its id.
        unsafe { libc::kill(running.0.id().cast_signed(), libc::SIGTERM) };
        assert_eq!(running.wait_end()?, Some(0));
    }
    Ok(())
}

/// A terminal: its own end, and the name of the other one.
fn terminal() -> Result<(OwnedFd, String)> {
    // SAFETY: no pointers but to a buffer that lives through the call, with its size; the descriptor is nobody else's.
    unsafe {
        let master = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        ensure!(master >= 0, "no terminal: {}", io::Error::last_os_error());
        let master = OwnedFd::from_raw_fd(master);
        let mut name = [0; 64];
        ensure!(libc::grantpt(master.as_raw_fd()) == 0, "granting: {}", io::Error::last_os_error());
        ensure!(libc::unlockpt(master.as_raw_fd()) == 0, "unlocking: {}", io::Error::last_os_error());
        let named = libc::ptsname_r(master.as_raw_fd(), name.as_mut_ptr(), name.len());
        ensure!(named == 0, "naming: {named}");
        let name = std::ffi::CStr::from_ptr(name.as_ptr()).to_str()?.to_owned();
        Ok((master, name))
    }
}

#[test]
fn all_is_taken_off_when_the_terminal_is_gone_that_the_log_goes_to() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let before = lab.host.ip("rule")?;
    let (master, name) = terminal()?;
    let slave = File::options().read(true).write(true).open(&name).with_context(|| name.clone())?;
    let mut command = run(&lab, &["--steer", "rules"])?;
    command.stderr(slave.try_clone()?);
    // SAFETY: only system calls that take no memory but a constant's.
    unsafe {
        command.pre_exec(move || {
            if libc::setsid() < 0 || libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let mut running = Running(command.spawn()?);
    // What holds the other end beside the daemon.
    drop(command);
    wait_until("the daemon", PATIENCE, || Ok(knows(&lab, "192.168.0.101")?.then_some(())))?;
    assert_ne!(lab.host.ip("rule")?, before, "something is kept");
    drop(master);
    assert_eq!(running.wait_end()?, Some(0));
    assert_eq!(lab.host.ip("rule")?, before);
    ensure!(!fs::exists(&name)?, "the terminal is there still");
    lab.finish()
}
