//! A strict reader of the text format of OpenMetrics 1.0, of what the format and Prometheus's conventions ask for.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};

/// All that was served.
#[derive(Debug)]
pub(crate) struct Exposition {
    pub(crate) families: Vec<Family>,
}

/// A metric, with its samples.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) name: String,
    pub(crate) help: String,
    pub(crate) kind: String,
    pub(crate) unit: Option<String>,
    pub(crate) samples: Vec<Sample>,
}

#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

impl Exposition {
    /// Reads a text, and holds it against the rules.
    ///
    /// # Errors
    ///
    /// When it breaks one.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let body = text.strip_suffix("# EOF\n").context("the text ends with `# EOF`")?;
        let mut families: Vec<Family> = Vec::new();
        for line in body.lines() {
            read_line(&mut families, line).with_context(|| format!("the line `{line}`"))?;
        }
        let mut names = BTreeSet::new();
        for family in &families {
            ensure!(names.insert(&family.name), "{} is there twice", family.name);
            family.check().with_context(|| format!("the metric {}", family.name))?;
        }
        Ok(Self { families })
    }

    /// The sum of a name's samples that have all these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted = self.samples(name).filter(|sample| {
            let has = |(key, value): &(&str, &str)| sample.labels.get(*key).is_some_and(|is| is == value);
            labels.iter().all(has)
        });
        wanted.map(|sample| sample.value).sum()
    }

    /// The one sample of a name.
    pub(crate) fn value(&self, name: &str) -> Result<f64> {
        self.samples(name).next().map(|sample| sample.value).with_context(|| format!("no {name}"))
    }

    /// All samples of a name.
    pub(crate) fn samples<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.families.iter().flat_map(|family| &family.samples).filter(move |sample| sample.name == name)
    }
}

impl Family {
    /// What the names of its samples end with.
    pub(crate) fn suffixes(&self) -> &'static [&'static str] {
        match self.kind.as_str() {
            "counter" => &["_total"],
            "info" => &["_info"],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        }
    }

    fn check(&self) -> Result<()> {
        ensure!(self.name.starts_with(|c: char| c.is_ascii_lowercase()), "a name starts with a letter");
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        ensure!(self.name.chars().all(is_word), "names are in snake case");
        for end in ["_total", "_info", "_count", "_sum", "_bucket"] {
            ensure!(!self.name.ends_with(end), "the name ends with {end}, which samples do");
        }
        let is_sentence = self.help.starts_with(|c: char| c.is_uppercase()) && self.help.ends_with('.');
        ensure!(is_sentence, "the help is no sentence: {}", self.help);
        ensure!(
            ["counter", "gauge", "histogram", "info"].contains(&self.kind.as_str()),
            "type {}",
            self.kind
        );
        match &self.unit {
            Some(unit) => {
                ensure!(["seconds", "bytes"].contains(&unit.as_str()), "{unit} is no base unit");
                ensure!(self.name.ends_with(&format!("_{unit}")), "the name ends with its unit");
            }
            None => {
                ensure!(!self.name.ends_with("_seconds") && !self.name.ends_with("_bytes"), "it has a unit");
            }
        }
        let mut seen = BTreeSet::new();
        for sample in &self.samples {
            let known = self.suffixes().iter().any(|end| sample.name == format!("{}{end}", self.name));
            ensure!(known, "{} is no sample of a {}", sample.name, self.kind);
            ensure!(seen.insert((&sample.name, &sample.labels)), "twice: {sample:?}");
            ensure!(self.kind == "gauge" || sample.value >= 0.0, "negative: {sample:?}");
            ensure!(self.kind != "info" || sample.value == 1.0, "an info is 1: {sample:?}");
        }
        if self.kind == "histogram" { self.check_buckets() } else { Ok(()) }
    }

    /// Of a histogram without other labels.
    fn check_buckets(&self) -> Result<()> {
        let mut last = (f64::NEG_INFINITY, 0.0);
        for sample in self.samples.iter().filter(|sample| sample.name.ends_with("_bucket")) {
            let bound = match sample.labels.get("le").map(String::as_str) {
                Some("+Inf") => f64::INFINITY,
                bound => bound.context("no bound")?.parse()?,
            };
            ensure!(bound > last.0 && sample.value >= last.1, "buckets are cumulative: {sample:?}");
            last = (bound, sample.value);
        }
        let count = self.samples.iter().find(|sample| sample.name.ends_with("_count")).context("no count")?;
        ensure!(last == (f64::INFINITY, count.value), "the last bucket has all: {last:?}, {count:?}");
        Ok(())
    }
}

fn read_line(families: &mut Vec<Family>, line: &str) -> Result<()> {
    let Some(described) = line.strip_prefix("# ") else {
        let sample = sample(line)?;
        families.last_mut().context("no metric was described")?.samples.push(sample);
        return Ok(());
    };
    let mut words = described.splitn(3, ' ');
    let (what, name) = (words.next().unwrap_or_default(), words.next().context("no name")?);
    let text = words.next().context("nothing is said")?.to_owned();
    if what == "HELP" {
        families.push(Family { name: name.to_owned(), help: text, ..Family::default() });
        return Ok(());
    }
    let family = families.last_mut().filter(|family| family.name == name).context("of another metric")?;
    ensure!(family.samples.is_empty(), "behind a sample");
    match what {
        "TYPE" => family.kind = text,
        "UNIT" => family.unit = Some(text),
        _ => bail!("no such description"),
    }
    Ok(())
}

fn sample(line: &str) -> Result<Sample> {
    let (series, value) = line.rsplit_once(' ').context("no value")?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').context("no end of labels")?),
        None => (series, ""),
    };
    let mut read = BTreeMap::new();
    for label in labels.split(',').filter(|label| !label.is_empty()) {
        let (key, quoted) = label.split_once('=').context("no value of a label")?;
        let value = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).context("no quotes")?;
        ensure!(read.insert(key.to_owned(), value.to_owned()).is_none(), "the label {key} twice");
    }
    Ok(Sample { name: name.to_owned(), labels: read, value: value.parse().context("no number")? })
}
