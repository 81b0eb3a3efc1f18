//! Configuration files.

use std::{
    env, fs,
    path::PathBuf,
    process,
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::Result;

/// A configuration file that vanishes with the test.
#[derive(Debug)]
pub struct File(PathBuf);

impl File {
    /// Makes one.
    ///
    /// # Errors
    ///
    /// When it can't be written.
    pub fn new(contents: &str) -> Result<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = Self(env::temp_dir().join(format!("mhebpf-file-{}-{number}.toml", process::id())));
        fs::write(&file.0, contents)?;
        Ok(file)
    }

    /// Where it is.
    pub fn path(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
