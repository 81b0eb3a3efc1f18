//! What other users put where pins are, in a BPF file system that anybody may write to.

#[expect(dead_code, reason = "other tests look at what is pinned")]
mod pinning;

use std::{
    env, fs,
    os::unix::fs::{PermissionsExt as _, chown, lchown, symlink},
    path::{Path, PathBuf},
    process,
};

use anyhow::Result;
use mhebpf_tests::{Daemon, PATIENCE, lab::INTERFACES};
use pinning::{command, end, namespaces, run, spawn, start};

/// `nobody`
const NOBODY: u32 = 65534;

/// A directory with files that are like maps by their names; it vanishes at the end.
struct Precious(PathBuf);

impl Precious {
    const FILES: [&str; 2] = ["OWNERS", "COUNTERS"];

    fn new(name: &str) -> Result<Self> {
        let precious = Self(env::temp_dir().join(format!("mhebpf-precious-{name}-{}", process::id())));
        fs::create_dir(&precious.0)?;
        for file in Self::FILES {
            fs::write(precious.0.join(file), "precious")?;
        }
        Ok(precious)
    }

    #[track_caller]
    fn assert_whole(&self, what: &str) {
        for file in Self::FILES {
            assert!(self.0.join(file).exists(), "{file} is gone: {what}");
        }
    }
}

impl Drop for Precious {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Makes a directory of nobody's.
fn make_of_nobody(path: &Path) -> Result<()> {
    fs::create_dir(path)?;
    Ok(chown(path, Some(NOBODY), Some(NOBODY))?)
}

fn link_of_nobody(to: &Path, path: &Path) -> Result<()> {
    symlink(to, path)?;
    Ok(lchown(path, Some(NOBODY), Some(NOBODY))?)
}

/// On a BPF file system that was mounted by hand (mode 1777) nobody is the first to make the directory.
#[test]
fn links_of_others_lead_neither_unload_nor_a_start_anywhere() -> Result<()> {
    let Some((lab, file_system)) = start(2)? else { return Ok(()) };
    fs::set_permissions(file_system.path(), fs::Permissions::from_mode(0o1777))?;
    let precious = Precious::new("links")?;
    let place = |name| file_system.path().join(name);

    make_of_nobody(&place("maps"))?;
    make_of_nobody(&place("maps/netns-1"))?;
    link_of_nobody(&precious.0, &place("maps/netns-1/maps-1-1"))?;
    // The precious directory in the place of a namespace's.
    make_of_nobody(&place("namespace"))?;
    link_of_nobody(&precious.0, &place("namespace/netns-1"))?;
    // A link in the place of the whole, to a directory of root's.
    fs::create_dir_all(precious.0.join("netns-1/maps-1-1"))?;
    link_of_nobody(&precious.0, &place("whole"))?;
    for name in ["maps", "namespace", "whole"] {
        let directory = file_system.directory(name);
        let (_, stdout, stderr) = command(&lab.host, &["unload", "--pin", &directory])?;
        precious.assert_whole(&format!("unload {name}: {stdout}{stderr}"));
        let ended = spawn(&lab, &directory, &[])?.wait_end(PATIENCE)?;
        precious.assert_whole(&format!("run {name}: {}", ended.stderr));
        let expected = if name == "whole" { "symbolic link" } else { "chmod 700" };
        assert!(!ended.status.success() && ended.stderr.contains(expected), "{name}: {}", ended.stderr);
    }
    assert!(precious.0.join("netns-1/maps-1-1").exists());
    lab.finish()
}

/// What is in a directory of ours, but not of ours, stays too.
#[test]
fn nothing_but_our_own_names_is_removed() -> Result<()> {
    let Some((lab, file_system)) = start(2)? else { return Ok(()) };
    let directory = file_system.directory("mhebpf");
    end(run(&lab, &directory, &[])?, libc::SIGTERM)?;
    let [namespace] = &namespaces(&directory)?[..] else { panic!("one namespace") };
    let mine = namespace.join(pinning::maps(1));
    let others = [namespace.join("of-others"), mine.join("of-others")];
    others.iter().try_for_each(fs::create_dir)?;
    let (status, stdout, stderr) = command(&lab.host, &["unload", "--pin", &directory])?;
    assert_eq!(status, Some(1), "{stdout}{stderr}");
    assert!(others.iter().all(|other| other.exists()), "{stdout}{stderr}");
    assert_eq!(fs::read_dir(&mine)?.count(), 1, "the maps are gone");
    lab.finish()
}

#[test]
fn pins_that_others_have_made_up_keep_nobody_from_starting() -> Result<()> {
    let Some((lab, file_system)) = start(2)? else { return Ok(()) };
    // How the directory of this namespace is called.
    let elsewhere = file_system.directory("elsewhere");
    let daemon = run(&lab, &elsewhere, &[])?;
    let [namespace] = &namespaces(&elsewhere)?[..] else { panic!("one namespace") };
    let name = namespace.file_name().unwrap_or_default().to_owned();
    end(daemon, libc::SIGTERM)?;
    pinning::unload(&lab.host, &elsewhere)?;

    fs::set_permissions(file_system.path(), fs::Permissions::from_mode(0o1777))?;
    let directory = file_system.path().join("mhebpf");
    make_of_nobody(&directory)?;
    make_of_nobody(&directory.join(&name))?;
    make_of_nobody(&directory.join(name).join("2-egress"))?;
    let words = ["run", "--interface", INTERFACES, "--no-announce"];
    let daemon = Daemon::spawn_command(file_system.command(&lab.host, &words)?)?;
    daemon.wait_ready()?;
    let log = end(daemon, libc::SIGTERM)?;
    assert!(log.contains("not looking for programs of an earlier run"), "{log}");
    lab.finish()
}
