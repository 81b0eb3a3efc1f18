//! What was measured: as tables for a reader and as JSON for programs.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use crate::{machine::Machine, stats::Summary};

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cell {
    /// The part of the benchmark.
    pub(crate) part: &'static str,
    /// The table that it stands in.
    pub(crate) table: String,
    /// What belongs together, for different numbers of addresses.
    pub(crate) series: String,
    /// What was measured.
    pub(crate) row: String,
    /// The same, as the head of a column.
    pub(crate) column: String,
    /// The unit.
    pub(crate) unit: &'static str,
    /// How many addresses there were.
    pub(crate) addresses: Option<u32>,
    /// The figure.
    #[serde(flatten)]
    pub(crate) summary: Summary,
    /// Whether the run could tell it from no difference at all.
    pub(crate) resolved: bool,
    /// What the median is to stay below, in the same unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bar: Option<f64>,
}

impl Cell {
    /// The same figure, held to a bar if there is one.
    pub(crate) const fn held_to(mut self, bar: Option<f64>) -> Self {
        self.bar = bar;
        self
    }

    /// Whether it is over its bar.
    pub(crate) fn is_over(&self) -> bool {
        self.bar.is_some_and(|bar| self.summary.median > bar)
    }
}

/// All figures of a run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Where and when.
    pub(crate) machine: Machine,
    /// Whether it was only a run to see that everything works.
    pub(crate) quick: bool,
    /// What was measured, table by table.
    pub(crate) cells: Vec<Cell>,
    /// What a reader should know.
    pub(crate) notes: Vec<String>,
    /// What could not be measured here, and why.
    pub(crate) left_out: Vec<String>,
    /// What went wrong while it was measured.
    pub(crate) failed: Vec<String>,
}

/// How wide the tables are.
const WIDTH: usize = 100;

impl Report {
    /// Nothing yet.
    pub(crate) const fn new(machine: Machine, quick: bool) -> Self {
        Self {
            machine,
            quick,
            cells: Vec::new(),
            notes: Vec::new(),
            left_out: Vec::new(),
            failed: Vec::new(),
        }
    }

    /// Adds a figure.
    pub(crate) fn add(&mut self, cell: Cell) {
        self.cells.push(cell);
    }

    /// Adds something that a reader should know.
    pub(crate) fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Says that something could not be measured.
    pub(crate) fn leave_out(&mut self, text: String) {
        self.left_out.push(text);
    }

    /// Says that a measurement went wrong: no figure of it is within its bar.
    pub(crate) fn fail(&mut self, text: String) {
        self.failed.push(text);
    }

    /// How many figures are over their bars, and how many measurements went wrong.
    pub(crate) fn over(&self) -> usize {
        self.cells.iter().filter(|cell| cell.is_over()).count() + self.failed.len()
    }

    /// All as text, no wider than 100 columns.
    pub(crate) fn text(&self) -> String {
        let Machine { kernel, cpu, cpus, date } = &self.machine;
        let mut text = format!(
            "Linux {kernel}, {cpus} x {cpu}, {date}\n\
             Median (lower/upper quartile); ~ stands before what this run cannot tell from no difference.\n"
        );
        for table in in_order(self.cells.iter().map(|cell| &cell.table)) {
            let cells: Vec<&Cell> = self.cells.iter().filter(|cell| cell.table == *table).collect();
            text += &format!("\n{table}\n");
            text += &grid(&cells);
        }
        text.push('\n');
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        for what in &self.left_out {
            let _ = writeln!(text, "LEFT OUT: {what}");
        }
        for what in &self.failed {
            let _ = writeln!(text, "FAILED: {what}");
        }
        text
    }
}

/// Each value once, in the order in which they come first.
fn in_order<'a>(values: impl Iterator<Item = &'a String>) -> Vec<&'a String> {
    let mut seen = Vec::new();
    for value in values {
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    seen
}

fn grid(cells: &[&Cell]) -> String {
    let columns = in_order(cells.iter().map(|cell| &cell.column));
    let rows = in_order(cells.iter().map(|cell| &cell.row));
    let figures: BTreeMap<(&String, &String), String> =
        cells.iter().map(|cell| ((&cell.row, &cell.column), figure(cell))).collect();
    let label = rows.iter().map(|row| row.chars().count()).max().unwrap_or(0);
    let widest =
        figures.values().chain(columns.iter().copied()).map(|text| text.chars().count()).max().unwrap_or(0);
    let width = widest.min((WIDTH.saturating_sub(label) / columns.len().max(1)).saturating_sub(1));
    let mut text = format!("{:label$}", "");
    for column in &columns {
        let _ = write!(text, " {column:>width$}");
    }
    text.push('\n');
    for row in rows {
        let _ = write!(text, "{row:label$}");
        for column in &columns {
            let figure = figures.get(&(row, *column)).map_or("", String::as_str);
            let _ = write!(text, " {figure:>width$}");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn figure(cell: &Cell) -> String {
    let Summary { median, lower_quartile, upper_quartile, .. } = cell.summary;
    let sign = if cell.resolved { "" } else { "~" };
    let short = |value| short(value, cell.unit);
    let figure = if cell.summary.rounds == 1 {
        format!("{} {}", short(median), cell.unit)
    } else {
        format!("{sign}{} ({}/{})", short(median), short(lower_quartile), short(upper_quartile))
    };
    match cell.bar {
        Some(bar) => format!("{figure}, bar {bar}: {}", if cell.is_over() { "OVER" } else { "ok" }),
        None => figure,
    }
}

fn short(value: f64, unit: &str) -> String {
    match value.abs() {
        _ if unit == "ratio" => format!("{value:.3}"),
        v if v >= 100.0 => format!("{value:.0}"),
        _ => format!("{value:.1}"),
    }
}
