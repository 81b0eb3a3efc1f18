//! The root file system of a guest, as the archive of cpio's format `newc` that the kernel unpacks.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// Writes an archive entry by entry.
#[derive(Debug)]
pub(crate) struct Initramfs<W> {
    to: W,
    inodes: u32,
    directories: BTreeSet<String>,
}

impl<W: Write> Initramfs<W> {
    pub(crate) const fn new(to: W) -> Self {
        Self { to, inodes: 0, directories: BTreeSet::new() }
    }

    /// Adds a directory, and those above it.
    pub(crate) fn directory(&mut self, path: &str) -> io::Result<()> {
        let path = path.trim_matches('/');
        if path.is_empty() || self.directories.contains(path) {
            return Ok(());
        }
        self.parent(path)?;
        self.directories.insert(path.to_owned());
        self.entry(path, DIRECTORY | 0o755, (0, 0), &[])
    }

    /// Adds a file that everyone may execute, in a directory that is made for it where need be.
    pub(crate) fn file(&mut self, path: &str, contents: &[u8]) -> io::Result<()> {
        let path = path.trim_start_matches('/');
        self.parent(path)?;
        self.entry(path, REGULAR | 0o755, (0, 0), contents)
    }

    /// Adds a character device by its numbers.
    pub(crate) fn device(&mut self, path: &str, numbers: (u32, u32)) -> io::Result<()> {
        let path = path.trim_start_matches('/');
        self.parent(path)?;
        self.entry(path, CHARACTER_DEVICE | 0o600, numbers, &[])
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn parent(&mut self, path: &str) -> io::Result<()> {
        path.rsplit_once('/').map_or(Ok(()), |(parent, _)| self.directory(parent))
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), contents: &[u8]) -> io::Result<()> {
        self.inodes += 1;
        let size = u32::try_from(contents.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let name_size = u32::try_from(name.len() + 1).map_err(|_| io::ErrorKind::InvalidFilename)?;
        self.to.write_all(b"070701")?;
        // inode, mode, user, group, links, time, size, two numbers of the device it is on, two of the device it is,
        // size of the name, and a checksum that this format leaves out.
        let fields = [self.inodes, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0];
        for field in fields {
            write!(self.to, "{field:08X}")?;
        }
        self.padded(&[name.as_bytes(), b"\0"].concat(), 6 + 13 * 8)?;
        self.padded(contents, 0)
    }

    /// Writes bytes and zeroes behind them, so that with `before` they are a multiple of four.
    fn padded(&mut self, bytes: &[u8], before: usize) -> io::Result<()> {
        let end = before + bytes.len();
        self.to.write_all(bytes)?;
        self.to.write_all(&[0; 3][..end.next_multiple_of(4) - end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_directories_come_before_what_is_in_them() {
        let mut archive = Initramfs::new(Vec::new());
        let written = archive
            .file("/bin/tool", b"12345")
            .and_then(|()| archive.file("bin/other", b""))
            .and_then(|()| archive.device("dev/console", (5, 1)));
        assert!(written.is_ok());
        let bytes = archive.finish().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let starts: Vec<_> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert!(starts.iter().all(|start| start % 4 == 0), "{starts:?}");
        let names: Vec<_> =
            starts.iter().map(|at| text[at + 110..].split('\0').next().unwrap_or_default()).collect();
        assert_eq!(names, ["bin", "bin/tool", "bin/other", "dev", "dev/console", "TRAILER!!!"]);
        assert!(text[starts[1]..].starts_with("07070100000002000081ED"));
        assert!(text[starts[4]..].contains("0000000500000001"));
    }
}
