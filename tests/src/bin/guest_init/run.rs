//! Running the programs of tests, one after the other.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::process::ExitStatusExt as _,
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long one program may take: more than any does on a busy machine. Those behind it shall have their turn when one hangs.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// Pause between two looks at a program.
const PAUSE: Duration = Duration::from_millis(50);

/// Runs every program in `/tests`, and tells whether any failed.
pub(crate) fn tests(line: &mut File) -> io::Result<bool> {
    let mut programs: Vec<_> = fs::read_dir("/tests")?.flatten().map(|entry| entry.path()).collect();
    programs.sort();
    let arguments = fs::read_to_string("/guest/arguments")?;
    let environment = fs::read_to_string("/guest/environment")?;
    let variables: Vec<_> = environment.lines().filter_map(|line| line.split_once('=')).collect();
    let mut failed = programs.is_empty();
    for program in programs {
        let name = program.file_name().unwrap_or_default().display().to_string();
        writeln!(line, "guest: begin {name}")?;
        let start = Instant::now();
        let mut command = Command::new(&program);
        command.args(arguments.lines()).env_clear().envs(variables.iter().copied()).current_dir("/tmp");
        command.stdin(Stdio::null()).stdout(line.try_clone()?).stderr(line.try_clone()?);
        let (status, cut) = run(&mut command)?;
        let remark = if cut { " when its time was up," } else { "" };
        let seconds = start.elapsed().as_secs_f64();
        // It may have ended in the middle of a line.
        let newline = if status.code().is_some() { "" } else { "\n" };
        writeln!(line, "{newline}guest: end {status}{remark} after {seconds:.1} s")?;
        failed |= !status.success();
    }
    Ok(failed)
}

/// Runs a program, and tells whether it had to be ended.
fn run(command: &mut Command) -> io::Result<(ExitStatus, bool)> {
    let mut child = command.spawn()?;
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status, false));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            return Ok((child.wait()?, true));
        }
        thread::sleep(PAUSE);
    }
}

/// Runs a tool with these words.
pub(crate) fn tool(words: &str) -> io::Result<()> {
    let mut split = words.split(' ');
    let program = format!("/bin/{}", split.next().unwrap_or_default());
    let status = Command::new(&program).args(split).status()?;
    if status.success() {
        return Ok(());
    }
    let how = status.signal().map_or_else(|| status.to_string(), |signal| format!("signal {signal}"));
    Err(io::Error::other(format!("`{words}`: {how}")))
}
