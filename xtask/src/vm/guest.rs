//! One boot of one kernel: its root file system, its run, and the verdict.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read as _},
    path::{Path, PathBuf},
    process::{Child, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use super::{
    emulator::{Emulator, Logs, STATUS_OF_SUCCESS},
    initramfs::Initramfs,
    kernels::Kernel,
    modules::{self, Modules, WANTED},
    output::{Output, alarms},
    packages::KernelFiles,
    programs::{Programs, TESTS},
};

/// Random packets on random hosts take their time in an emulated machine, and are drawn in plenty outside.
const PROPTEST_CASES: &str = "12";

/// Pause between two looks at a guest.
const PAUSE: Duration = Duration::from_millis(100);

/// What all guests of a run have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'a> {
    pub(crate) emulator: &'a Emulator,
    pub(crate) programs: &'a Programs,
    /// The command line of each program of tests.
    pub(crate) arguments: &'a [String],
    /// How long a guest may take.
    pub(crate) limit: Duration,
    pub(crate) cache: &'a Path,
}

/// What became of a guest.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) release: String,
    pub(crate) output: Output,
    /// What is wrong beyond the tests that failed.
    pub(crate) wrong: Vec<String>,
    pub(crate) elapsed: Duration,
    pub(crate) logs: Logs,
}

impl Run<'_> {
    /// Boots a kernel and runs the tests there.
    ///
    /// # Errors
    ///
    /// It could not even be tried.
    pub(crate) fn boot(&self, kernel: &Kernel, files: &KernelFiles) -> Result<Verdict, String> {
        let series = kernel.series;
        let modules = modules::collect(&files.modules, &WANTED)?;
        let directory = self.cache.join("guests").join(series);
        let logs = Logs { console: directory.join("console.log"), output: directory.join("tests.log") };
        let initramfs = directory.join("initramfs.cpio");
        let prepared = fs::create_dir_all(&directory)
            // Those of an earlier boot must not be taken for this one's.
            .and_then(|()| File::create(&logs.console))
            .and_then(|_| File::create(&logs.output))
            .and_then(|_| self.write(&initramfs, series, &modules));
        prepared.map_err(|error| format!("preparing a guest in {}: {error}", directory.display()))?;
        let start = Instant::now();
        let mut command = self.emulator.command(files, &initramfs, &logs);
        let child =
            command.spawn().map_err(|error| format!("starting {}: {error}", crate::step::show(&command)))?;
        let mut follower = Follower::new(series, &logs.output);
        let ended = wait(child, start + self.limit, || follower.look());
        follower.look();
        // A hundred megabytes that the next boot makes anew.
        let _ = fs::remove_file(&initramfs);
        let mut output = follower.output;
        output.finish();
        let console = fs::read(&logs.console).unwrap_or_default();
        let wrong = wrong(&ended, &output, &String::from_utf8_lossy(&console), self.limit);
        if !modules.lacking.is_empty() {
            output.notes.push(format!("there are no modules {}", modules.lacking.join(", ")));
        }
        Ok(Verdict { release: files.release.clone(), output, wrong, elapsed: start.elapsed(), logs })
    }

    fn write(&self, path: &Path, series: &str, modules: &Modules) -> io::Result<()> {
        let mut archive = Initramfs::new(BufWriter::new(File::create(path)?));
        for directory in ["proc", "sys", "dev", "run", "tmp", "root", "etc"] {
            archive.directory(directory)?;
        }
        // The kernel opens it for init before there is anything else in /dev.
        archive.device("dev/console", (5, 1))?;
        for (place, contents) in &self.programs.files {
            archive.file(place, contents)?;
        }
        archive.directory(TESTS)?;
        let mut order = String::new();
        for module in &modules.in_order {
            let place = format!("/modules/{}.ko", module.name);
            archive.file(&place, &module.contents)?;
            order += &format!("{place}\n");
        }
        archive.file("guest/modules", order.as_bytes())?;
        archive.file("guest/arguments", self.arguments.join("\n").as_bytes())?;
        let environment = format!(
            "PATH=/bin\nHOME=/root\nMHEBPF_BIN=/bin/mhebpf\nMHEBPF_TEST_KERNEL={series}\n\
             PROPTEST_CASES={PROPTEST_CASES}\nRUST_BACKTRACE=0\n"
        );
        archive.file("guest/environment", environment.as_bytes())?;
        archive.finish().map(drop)
    }
}

/// Reads a growing log, and says how far the guest is.
#[derive(Debug)]
struct Follower {
    series: String,
    log: PathBuf,
    read: usize,
    output: Output,
}

impl Follower {
    fn new(series: &str, log: &Path) -> Self {
        let (series, log) = (series.to_owned(), log.to_path_buf());
        Self { series, log, read: 0, output: Output::default() }
    }

    fn look(&mut self) {
        // It grows by kilobytes, and is read as a whole only when there is more of it.
        let grown = fs::metadata(&self.log).is_ok_and(|log| log.len() > self.read as u64);
        let Some(bytes) = grown.then(|| fs::read(&self.log).ok()).flatten() else { return };
        let new = bytes.get(self.read..).unwrap_or_default();
        let Some(end) = new.iter().rposition(|byte| *byte == b'\n') else { return };
        self.read += end + 1;
        for line in String::from_utf8_lossy(&new[..=end]).lines() {
            if let Some(section) = self.output.take(line) {
                println!("vm: {}: {}: {}, {}", self.series, section.name, section.sum, section.end);
            }
        }
    }
}

/// How an emulator ended.
#[derive(Debug)]
enum Ended {
    ByItself { status: ExitStatus, said: String },
    OutOfTime,
    Lost(io::Error),
}

fn wait(mut child: Child, deadline: Instant, mut look: impl FnMut()) -> Ended {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => {
                let mut said = String::new();
                let errors = child.stderr.take();
                let _ = errors.map(|mut errors| errors.read_to_string(&mut said));
                return Ended::ByItself { status, said };
            }
            Ok(None) if Instant::now() < deadline => thread::sleep(PAUSE),
            Ok(None) => {
                // It has ended by itself just now, or this ends it.
                let _ = child.kill();
                let _ = child.wait();
                return Ended::OutOfTime;
            }
            Err(error) => return Ended::Lost(error),
        }
        look();
    }
}

/// Lists what is wrong, beyond the tests that failed. A panic and a mere end of the machine both end an emulator with
/// success; so all of status, last line and console have to be good.
fn wrong(ended: &Ended, output: &Output, console: &str, limit: Duration) -> Vec<String> {
    let mut wrong = Vec::new();
    let tests_failed = output.sections.iter().any(|section| !section.is_good());
    match ended {
        Ended::ByItself { status, .. } if status.code() == Some(STATUS_OF_SUCCESS) => {}
        Ended::ByItself { .. } if output.code == Some(1) && tests_failed => {}
        Ended::ByItself { status, said } => {
            wrong.push(format!("the emulator ended with {status} {}", said.trim()).trim_end().to_owned());
        }
        Ended::OutOfTime => wrong.push(format!("not done after {} s", limit.as_secs())),
        Ended::Lost(error) => wrong.push(format!("waiting for the emulator: {error}")),
    }
    match output.code {
        Some(0) if tests_failed => wrong.push("it says RC=0 although tests failed".to_owned()),
        Some(0) => {}
        Some(_) if tests_failed => {}
        Some(code) => wrong.push(format!("it says RC={code} although no test failed")),
        None => wrong.push("it did not come to its end".to_owned()),
    }
    if output.sections.iter().all(|section| section.sum.passed + section.sum.skipped == 0) {
        wrong.push("no test has passed".to_owned());
    }
    wrong.extend(alarms(console));
    wrong
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn output(text: &str) -> Output {
        let mut output = Output::default();
        for line in text.lines() {
            output.take(line);
        }
        output.finish();
        output
    }

    fn ended(code: i32) -> Ended {
        Ended::ByItself { status: ExitStatus::from_raw(code << 8), said: String::new() }
    }

    const GOOD: &str = "guest: begin a\ntest result: ok. 1 passed; 0 failed; 0 ignored; x\n\
                        guest: end exit status: 0 after 1.0 s\nRC=0\n";
    const LIMIT: Duration = Duration::from_secs(1);

    #[test]
    fn only_status_last_line_and_console_together_are_good() {
        assert_eq!(wrong(&ended(1), &output(GOOD), "", LIMIT), [""; 0]);
        assert_eq!(wrong(&ended(0), &output(GOOD), "", LIMIT).len(), 1);
        assert_eq!(wrong(&ended(1), &output(&GOOD.replace("RC=0", "")), "", LIMIT).len(), 1);
        assert_eq!(wrong(&ended(1), &output(GOOD), "[ 1.0] BUG: x", LIMIT), ["[ 1.0] BUG: x"]);
        assert_eq!(wrong(&Ended::OutOfTime, &output(""), "", LIMIT).len(), 3);
    }

    #[test]
    fn tests_that_fail_are_not_said_twice() {
        let failed = GOOD.replace("ok. 1 passed; 0 failed", "FAILED. 1 passed; 1 failed");
        let failed = failed.replace("status: 0", "status: 101").replace("RC=0", "RC=1");
        assert_eq!(wrong(&ended(3), &output(&failed), "", LIMIT), [""; 0]);
    }
}
