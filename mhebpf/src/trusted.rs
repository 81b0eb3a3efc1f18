//! Directories that only this user and root can change, each held by its descriptor: whatever becomes of the path, it is the
//! directory that was looked at. A BPF file system knows symbolic links, and one that was mounted by hand may be written to by
//! anybody.

use std::{
    fmt,
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    rc::Rc,
};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

/// A directory, open as long as it or something in it is held.
#[derive(Clone, Debug)]
pub struct Directory {
    file: Rc<File>,
    path: PathBuf,
    /// Whom it may belong to, and what is in it.
    users: [u32; 2],
}

/// A place in a [`Directory`].
#[derive(Clone, Debug)]
pub struct Entry {
    directory: Directory,
    name: String,
}

/// Others than this user and root could change what is in a directory.
#[derive(Debug)]
enum Untrusted {
    /// It is of this user, with these permissions.
    Writable { path: PathBuf, user: u32, mode: u32 },
    /// The path leads over a symbolic link.
    Link { path: PathBuf },
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Writable { path, user, mode } => write!(
                f,
                "{} is of user {user} with the permissions {mode:o}: others could put programs there; give it to the user \
                 that mhebpf runs as (chown), for that user alone (chmod 700)",
                path.display()
            ),
            Self::Link { path } => write!(
                f,
                "{} has a symbolic link in its path, which others could change: name the directory itself",
                path.display()
            ),
        }
    }
}

impl std::error::Error for Untrusted {}

/// Whether an error says that a directory is not trusted, and not that it can't be opened.
pub fn is_distrust(error: &anyhow::Error) -> bool {
    error.chain().any(|error| {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        inner.is_some_and(|inner| inner.downcast_ref::<Untrusted>().is_some())
    })
}

impl Directory {
    /// Opens a directory. No part of the path may be a symbolic link, and nobody else may be able to put another one in its
    /// place: what holds it must be trusted as well, or sticky.
    ///
    /// # Errors
    ///
    /// When others may write to it ([`is_distrust`]); when there is no such directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::in_place(open_any(path)?, path, [0, own_user()])
    }

    /// The same for root, who looks at what other users have: it may belong to any user, if nobody but that user and root can
    /// put another one in its place.
    ///
    /// # Errors
    ///
    /// As [`Directory::open`].
    pub fn open_of_any_user(path: &Path) -> io::Result<Self> {
        let file = open_any(path)?;
        let user = match own_user() {
            0 => file.metadata()?.uid(),
            own => own,
        };
        Self::in_place(file, path, [0, user])
    }

    /// A directory that these users only can change, or put another one in the place of.
    fn in_place(file: File, path: &Path, users: [u32; 2]) -> io::Result<Self> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let metadata = open_any(parent)?.metadata()?;
        let (user, mode) = (metadata.uid(), metadata.mode() & 0o7777);
        let is_sticky = mode & 0o1000 != 0;
        if !users.contains(&user) || mode & 0o022 != 0 && !is_sticky {
            let untrusted = Untrusted::Writable { path: parent.to_owned(), user, mode };
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, untrusted));
        }
        Self::trusted(file, path.to_owned(), users)
    }

    /// Opens a directory in this one.
    ///
    /// # Errors
    ///
    /// As [`Directory::open`].
    pub fn below(&self, name: &str) -> io::Result<Self> {
        let file = open(&*self.file, Path::new(name), ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH)?;
        Self::trusted(file, self.path.join(name), self.users)
    }

    /// The same, which is made first if there is none.
    ///
    /// # Errors
    ///
    /// As [`Directory::open`]; when it can't be made.
    pub fn make_below(&self, name: &str) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(self.entry(name).through()) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => self.below(name),
        }
    }

    fn trusted(file: File, path: PathBuf, users: [u32; 2]) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let (user, mode) = (metadata.uid(), metadata.mode() & 0o7777);
        if !users.contains(&user) || mode & 0o022 != 0 {
            let untrusted = Untrusted::Writable { path, user, mode };
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, untrusted));
        }
        Ok(Self { file: Rc::new(file), path, users })
    }

    /// Whom it may belong to, and what is in it.
    pub fn users(&self) -> [u32; 2] {
        self.users
    }

    /// Where it was found.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its descriptor.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// A place in it, whether there is something or not.
    pub fn entry(&self, name: &str) -> Entry {
        Entry { directory: self.clone(), name: name.to_owned() }
    }

    /// The names in it; those that are no text are nobody's here.
    ///
    /// # Errors
    ///
    /// When it can't be read.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(self.through())?.map(|entry| Ok(entry?.file_name()));
        let names: Vec<_> = names.collect::<io::Result<_>>()?;
        Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
    }

    /// Whether it is still what is at a place.
    pub(crate) fn is_at(&self, place: &Entry) -> io::Result<bool> {
        let (held, named) = (self.file.metadata()?, fs::symlink_metadata(place.through())?);
        Ok((held.dev(), held.ino()) == (named.dev(), named.ino()))
    }

    /// The way to it by its descriptor.
    fn through(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }
}

impl Entry {
    /// Where it is, for people.
    pub fn path(&self) -> PathBuf {
        self.directory.path.join(&self.name)
    }

    /// The way to it by the descriptor of its directory, for system calls that take paths.
    pub fn through(&self) -> PathBuf {
        self.directory.through().join(&self.name)
    }

    /// Removes it, if it is no directory.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn remove(&self) -> io::Result<()> {
        fs::remove_file(self.through())
    }

    /// Removes it, if it is an empty directory.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn remove_directory(&self) -> io::Result<()> {
        fs::remove_dir(self.through())
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.path() == other.path()
    }
}

impl Eq for Entry {}

/// The user of this process.
pub(crate) fn own_user() -> u32 {
    // SAFETY: a system call without arguments that always succeeds.
    unsafe { libc::geteuid() }
}

/// Opens a directory, whoever may write to it.
///
/// # Errors
///
/// When there is none, or a part of the path is a symbolic link.
pub(crate) fn open_any(path: &Path) -> io::Result<File> {
    open(CWD, path, ResolveFlags::NO_SYMLINKS)
}

fn open(at: impl std::os::fd::AsFd, path: &Path, resolve: ResolveFlags) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat2(at, path, flags, Mode::empty(), resolve) {
        Ok(descriptor) => Ok(descriptor.into()),
        Err(rustix::io::Errno::LOOP) => {
            let untrusted = Untrusted::Link { path: path.to_owned() };
            Err(io::Error::new(io::ErrorKind::PermissionDenied, untrusted))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// A directory of its own, removed at the end.
    struct Playground(PathBuf);

    impl Playground {
        fn new(name: &str) -> io::Result<Self> {
            let path =
                std::env::temp_dir().canonicalize()?.join(format!("mhebpf-{name}-{}", std::process::id()));
            DirBuilder::new().mode(0o700).create(&path)?;
            Ok(Self(path))
        }
    }

    impl Drop for Playground {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn links_are_not_followed_wherever_they_are() -> io::Result<()> {
        let playground = Playground::new("links")?;
        let (real, link) = (playground.0.join("real"), playground.0.join("link"));
        fs::create_dir_all(real.join("inside"))?;
        symlink(&real, &link)?;
        for path in [&link, &link.join("inside")] {
            let error = Directory::open(path).expect_err("a link");
            assert!(error.to_string().contains("symbolic link"), "{error}");
            assert!(is_distrust(&error.into()));
        }
        let directory = Directory::open(&playground.0)?;
        assert!(directory.below("link").is_err() && directory.make_below("link").is_err());
        assert!(directory.below("../..").is_err() && directory.below("real/inside").is_ok());
        Ok(())
    }

    #[test]
    fn what_others_may_write_to_is_not_trusted() -> io::Result<()> {
        let playground = Playground::new("modes")?;
        for (mode, is_trusted) in
            [(0o700, true), (0o755, true), (0o720, false), (0o702, false), (0o1777, false)]
        {
            fs::set_permissions(&playground.0, fs::Permissions::from_mode(mode))?;
            let opened = Directory::open(&playground.0);
            assert_eq!(opened.is_ok(), is_trusted, "{mode:o}: {opened:?}");
            if let Err(error) = opened {
                let error = anyhow::Error::from(error).context("opening");
                assert!(is_distrust(&error) && format!("{error:#}").contains("chmod 700"), "{error:#}");
            }
        }
        Ok(())
    }

    #[test]
    fn what_others_can_put_another_one_in_the_place_of_is_not_trusted() -> io::Result<()> {
        let playground = Playground::new("parents")?;
        let inner = playground.0.join("inner");
        DirBuilder::new().mode(0o700).create(&inner)?;
        for (mode, is_trusted) in [(0o755, true), (0o777, false), (0o1777, true)] {
            fs::set_permissions(&playground.0, fs::Permissions::from_mode(mode))?;
            assert_eq!(Directory::open(&inner).is_ok(), is_trusted, "{mode:o}");
        }
        Ok(())
    }

    #[test]
    fn what_is_held_stays_whatever_the_path_leads_to() -> io::Result<()> {
        let playground = Playground::new("held")?;
        let outer = Directory::open(&playground.0)?;
        let held = outer.make_below("held")?;
        fs::write(held.entry("mine").through(), "")?;
        fs::rename(playground.0.join("held"), playground.0.join("away"))?;
        assert!(!held.is_at(&outer.entry("held")).unwrap_or(false));
        fs::create_dir(playground.0.join("held"))?;
        fs::write(playground.0.join("held/mine"), "of others")?;
        assert!(!held.is_at(&outer.entry("held"))? && held.is_at(&outer.entry("away"))?);
        held.entry("mine").remove()?;
        assert_eq!((held.names()?, outer.below("held")?.names()?), (vec![], vec!["mine".to_owned()]));
        assert_eq!(held.entry("mine").path(), playground.0.join("held/mine"));
        Ok(())
    }
}
