//! What goes with the metrics: the dashboard and the alerts, and what Prometheus itself says of all of it.

#[expect(dead_code, reason = "the metrics themselves are the other test's affair")]
mod openmetrics;
mod scrape;

use std::{
    collections::BTreeSet,
    env, fs,
    io::Write as _,
    path::Path,
    process::{self, Command, Stdio},
};

use anyhow::{Context as _, Result};
use mhebpf_tests::{Lab, skip};
use openmetrics::{Exposition, Family};
use scrape::{scrape, scrape_text, start, violate};
use serde_json::Value;

const DASHBOARD: &str = include_str!("../../docs/metrics/dashboard.json");
const ALERTS: &str = include_str!("../../docs/metrics/alerts.yml");
const ALERT_TESTS: &str = include_str!("../../docs/metrics/alerts_test.yml");

/// Those of a text that start as ours do, or as the conventional ones of processes.
fn metric_names(text: &str) -> Vec<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    words.filter(|word| word.starts_with("mhebpf_") || word.starts_with("process_")).collect()
}

#[test]
fn the_dashboard_and_the_alerts_ask_for_what_is_served() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = start(&lab, &[])?;
    let families = scrape(&lab.host)?.families;
    let names =
        |family: &Family| family.suffixes().iter().map(|end| format!("{}{end}", family.name)).collect();
    let served: BTreeSet<String> =
        families.iter().flat_map(|family| -> Vec<String> { names(family) }).collect();
    serde_json::from_str::<Value>(DASHBOARD)?;
    for (what, text) in [("the dashboard", DASHBOARD), ("the alerts", ALERTS), ("their tests", ALERT_TESTS)] {
        let names = metric_names(text);
        assert!(names.len() > 3, "{what}: {names:?}");
        for name in names {
            assert!(served.contains(name), "{what}: nothing serves {name}; what is served: {served:?}");
        }
    }
    daemon.stop()?;
    lab.finish()
}

/// What `promtool` says, if it is there.
fn promtool(arguments: &[&str], input: &str) -> Result<Option<process::Output>> {
    let spawned = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            skip("there is no promtool (package prometheus)");
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    child.stdin.take().context("a pipe")?.write_all(input.as_bytes())?;
    Ok(Some(child.wait_with_output()?))
}

/// The text in the older format that `promtool check metrics` reads: there the metric has its samples' name.
fn in_the_older_format(exposition: &str) -> String {
    let metrics = Exposition::parse(exposition);
    let families = metrics.map(|metrics| metrics.families).unwrap_or_default();
    let mut text = String::new();
    for line in exposition.lines().filter(|line| !line.starts_with("# EOF") && !line.starts_with("# UNIT")) {
        let mut words: Vec<String> = line.splitn(4, ' ').map(str::to_owned).collect();
        if line.starts_with('#')
            && let Some(family) = families.iter().find(|family| family.name == words[2])
        {
            match family.kind.as_str() {
                "counter" => words[2] += "_total",
                "info" => words[2] += "_info",
                _ => {}
            }
            if words[1] == "TYPE" && family.kind == "info" {
                words[3] = "gauge".to_owned();
            }
        }
        text += &words.join(" ");
        text.push('\n');
    }
    text
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = start(&lab, &[])?;
    violate(&lab)?;
    let text = scrape_text(&lab.host)?;
    daemon.stop()?;
    lab.finish()?;
    let Some(output) = promtool(&["check", "metrics"], &in_the_older_format(&text))? else { return Ok(()) };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{}: {said}\n{text}", output.status);
    Ok(())
}

#[test]
fn promtool_finds_nothing_wrong_with_the_alerts() -> Result<()> {
    // The sources need not be where the tests run.
    let directory = env::temp_dir().join(format!("mhebpf-alerts-{}", process::id()));
    fs::create_dir_all(&directory)?;
    let file = |name: &str, text: &str| -> Result<String> {
        let path = Path::new(&directory).join(name);
        fs::write(&path, text)?;
        Ok(path.to_str().context("a path")?.to_owned())
    };
    let (alerts, tests) = (file("alerts.yml", ALERTS)?, file("alerts_test.yml", ALERT_TESTS)?);
    let outputs =
        [&["check", "rules", &alerts], &["test", "rules", &tests]].map(|arguments| promtool(arguments, ""));
    fs::remove_dir_all(&directory)?;
    for output in outputs {
        let Some(output) = output? else { return Ok(()) };
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        assert!(output.status.success(), "{}", said.join("\n"));
    }
    Ok(())
}
