//! Network namespaces that vanish with the process, however it ends.

use std::{
    fs,
    io::{self, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd, RawFd},
        unix::process::CommandExt as _,
    },
    panic,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};

/// A network namespace without a name: only open descriptors hold it.
///
/// The kernel destroys it, with every link inside, when the last descriptor is closed and the last process in it has
/// ended. So nothing stays behind after a panic or a `SIGKILL` either, and two runs never meet under one name.
#[derive(Debug)]
pub struct NetNs {
    label: String,
    fd: OwnedFd,
}

impl NetNs {
    /// Makes an empty namespace with `lo` up and IPv6 off; `label` appears in error messages.
    ///
    /// # Errors
    ///
    /// Without `CAP_SYS_ADMIN`.
    pub fn new(label: &str) -> Result<Self> {
        let fd = thread::scope(|scope| {
            let maker = scope.spawn(|| -> io::Result<OwnedFd> {
                // SAFETY: unshare takes no pointers, and the thread ends at once.
                if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(fs::File::open("/proc/thread-self/ns/net")?.into())
            });
            maker.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
        })
        .with_context(|| format!("making the network namespace {label} (this needs root)"))?;
        let ns = Self { label: label.to_owned(), fd };
        // Router solicitations and duplicate address detection would only be noise in the captures.
        for scope in ["all", "default"] {
            ns.sysctl(&format!("net.ipv6.conf.{scope}.disable_ipv6"), "1")?;
        }
        ns.ip("link set lo up")?;
        Ok(ns)
    }

    /// Opens a namespace that a file stands for: somebody else's, whose settings are left as they are.
    ///
    /// # Errors
    ///
    /// When there is no such file.
    pub fn open(label: &str, path: &Path) -> Result<Self> {
        let file = fs::File::open(path).with_context(|| format!("opening the network namespace {label}"))?;
        Ok(Self { label: label.to_owned(), fd: file.into() })
    }

    /// A path that `ip link … netns PATH` understands.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd())
    }

    /// Runs `work` on a thread of its own inside the namespace. Sockets that it opens stay there.
    ///
    /// # Errors
    ///
    /// Those of `work`, and when the namespace cannot be entered. A panic in `work` goes on in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let fd = self.fd.as_raw_fd();
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                enter(fd).context("setns")?;
                work()
            });
            inside.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
        })
        .with_context(|| format!("in the network namespace {}", self.label))
    }

    /// Runs `work` inside the namespace on a thread that goes on; it must watch for its own end.
    pub fn spawn(&self, work: impl FnOnce() + Send + 'static) -> Result<thread::JoinHandle<()>> {
        let fd = self.fd.try_clone().context("duplicating a namespace's descriptor")?;
        let label = self.label.clone();
        Ok(thread::Builder::new().name(label).spawn(move || {
            if enter(fd.as_raw_fd()).is_ok() {
                work();
            }
        })?)
    }

    /// A command that will run inside the namespace and be killed with the thread that starts it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let fd = self.fd.as_raw_fd();
        // SAFETY: getpid, prctl, getppid, setns and _exit are async-signal-safe; nothing is allocated.
        unsafe {
            let parent = libc::getpid();
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(io::Error::last_os_error());
                }
                if libc::getppid() != parent {
                    libc::_exit(1);
                }
                enter(fd)
            });
        }
        command
    }

    /// Runs `ip` with these words and returns what it printed.
    ///
    /// # Errors
    ///
    /// When it fails, with what it said.
    pub fn ip(&self, words: &str) -> Result<String> {
        self.tool("ip", words, "")
    }

    /// Runs `tc` with these words and returns what it printed.
    ///
    /// # Errors
    ///
    /// When it fails, with what it said.
    pub fn tc(&self, words: &str) -> Result<String> {
        self.tool("tc", words, "")
    }

    /// Runs many `ip` commands, one a line, in one process.
    ///
    /// # Errors
    ///
    /// At the first that fails.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        self.tool("ip", "-batch -", lines).map(drop)
    }

    /// Loads rules of nftables.
    ///
    /// # Errors
    ///
    /// When `nft` is missing or fails, with what it said.
    pub fn nft(&self, rules: &str) -> Result<()> {
        self.tool("nft", "-f -", rules).map(drop)
    }

    /// Sets a sysctl, `net.ipv4.ip_forward` say, of this namespace.
    ///
    /// # Errors
    ///
    /// When there is no such sysctl.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        self.run(|| fs::write(&path, value).with_context(|| format!("writing {value} to {path}")))
    }

    fn tool(&self, program: &str, words: &str, input: &str) -> Result<String> {
        let mut child = self
            .command(program)
            .args(words.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting `{program} {words}`"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A child that fails early closes the pipe; its exit status tells more than EPIPE.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output()?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!("`{program} {words}` in {}: {}: {}\n{input}", self.label, output.status, complaint.trim());
        }
        // `tc` exits with 0 although a dump failed.
        ensure!(!complaint.contains("RTNETLINK answers"), "`{program} {words}`: {}", complaint.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn enter(fd: RawFd) -> io::Result<()> {
    // SAFETY: setns takes no pointers; the descriptor is kept open by its NetNs.
    match unsafe { libc::setns(fd, libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_empty_but_for_lo() {
        let ns = NetNs::new("empty").unwrap();
        let links = ns.ip("-oneline link").unwrap();
        assert!(links.starts_with("1: lo: <LOOPBACK,UP,LOWER_UP>"), "{links}");
        assert_eq!(links.lines().count(), 1, "{links}");
    }

    #[test]
    fn a_failed_command_says_what_failed() {
        let ns = NetNs::new("failing").unwrap();
        let error = format!("{:#}", ns.ip("link set nosuch up").unwrap_err());
        assert!(error.contains("link set nosuch up") && error.contains("Cannot find device"), "{error}");
    }
}
