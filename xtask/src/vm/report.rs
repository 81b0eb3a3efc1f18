//! What a run of the matrix shows at its end.

use super::guest::Verdict;
use crate::summary::Summary;

/// A kernel and what became of it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) series: &'static str,
    /// Without a verdict: why the kernel was not even tried.
    pub(crate) verdict: Result<Verdict, String>,
}

impl Entry {
    /// Adds up the tests, and what else went wrong as one more that failed.
    pub(crate) fn sum(&self) -> Summary {
        let Ok(verdict) = &self.verdict else { return Summary::of_check(false) };
        let mut sum = verdict.output.sum();
        if !verdict.wrong.is_empty() {
            sum += Summary::of_check(false);
        }
        sum
    }

    /// Shows in full what went wrong.
    pub(crate) fn print_failures(&self) {
        let series = self.series;
        let Ok(verdict) = &self.verdict else { return };
        for section in verdict.output.sections.iter().filter(|section| !section.is_good()) {
            println!("---- {series}: {}: {}", section.name, section.end);
            for line in &section.lines {
                println!("{line}");
            }
        }
        if self.sum().failed > 0 {
            println!(
                "---- {series}: all that it said is in {} and {}",
                verdict.logs.output.display(),
                verdict.logs.console.display()
            );
        }
    }
}

/// Returns the table of all kernels, then what was skipped and why, and what else is worth knowing of each.
pub(crate) fn table(entries: &[Entry]) -> String {
    let mut text = format!(
        "{:<8} {:<30} {:>6} {:>6} {:>7} {:>6}\n",
        "kernel", "release", "passed", "failed", "skipped", "time"
    );
    for Entry { series, verdict } in entries {
        match verdict {
            Ok(verdict) => {
                let Summary { passed, failed, skipped } = verdict.output.sum();
                let seconds = format!("{} s", verdict.elapsed.as_secs());
                text += &format!(
                    "{series:<8} {:<30} {passed:>6} {failed:>6} {skipped:>7} {seconds:>6}",
                    verdict.release
                );
                text += if verdict.wrong.is_empty() { "\n" } else { "  and more is wrong\n" };
            }
            Err(why) => text += &format!("{series:<8} not available: {why}\n"),
        }
    }
    for Entry { series, verdict } in entries {
        let Ok(verdict) = verdict else { continue };
        let wrong = verdict.wrong.iter().map(|what| format!("wrong: {what}"));
        let notes = verdict.output.notes.iter().cloned();
        let skips =
            verdict.output.sections.iter().flat_map(|section| {
                section.skips.iter().map(|skip| format!("skipped {}: {skip}", section.name))
            });
        text.extend(notes.chain(skips).chain(wrong).map(|line| format!("{series}: {line}\n")));
    }
    text
}
