//! A plot for the README: how fast a host sends, against how many addresses it has.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use plotters::prelude::*;

use crate::{
    peers::{SENT_FROM_ETH0, Workload},
    report::{Cell, Report},
};

const SIZE: (u32, u32) = (800, 420);
/// Room at the right for the names of the lines, as a part of the whole width in powers of ten of addresses.
const ROOM: f64 = 4.0;

/// Colours that people with colour blindness can tell apart (Okabe and Ito), for as many lines as there are.
const COLOURS: [RGBColor; 5] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
];

/// Draws the rate of UDP datagrams, as a ratio to nothing installed, against the number of addresses.
///
/// # Errors
///
/// When the peers were not measured.
pub(crate) fn svg(report: &Report) -> Result<String> {
    let mut lines: BTreeMap<&str, Vec<&Cell>> = BTreeMap::new();
    let sent = |cell: &&Cell| cell.table == SENT_FROM_ETH0 && cell.column == Workload::Datagrams.name();
    for cell in report.cells.iter().filter(sent) {
        lines.entry(&cell.series).or_default().push(cell);
    }
    // What was measured with one number of addresses only is no line.
    lines.retain(|_, cells| cells.len() > 1);
    ensure!(!lines.is_empty(), "it shows the peers, which were not measured");
    let counts: BTreeSet<u32> = lines.values().flatten().filter_map(|cell| cell.addresses).collect();
    let most = counts.last().copied().unwrap_or(1);
    let counts = counts.into_iter().map(f64::from).collect();

    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let caption = "UDP datagrams sent per second, as a ratio to a host with nothing installed";
    let mut chart = ChartBuilder::on(&area)
        .caption(caption, ("sans-serif", 17))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(50)
        .build_cartesian_2d((3.0..f64::from(most) * ROOM).log_scale().with_key_points(counts), 0.0..1.2)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .y_max_light_lines(1)
        .x_desc("addresses of the host")
        .y_desc("ratio")
        .x_label_formatter(&|addresses| format!("{addresses:.0}"))
        .label_style(("sans-serif", 14))
        .draw()?;
    let mut names: Vec<(f64, &str, RGBColor)> = Vec::new();
    for ((name, cells), colour) in lines.iter().zip(COLOURS.into_iter().cycle()) {
        let points = cells.iter().map(|cell| (f64::from(cell.addresses.unwrap_or(1)), cell.summary));
        chart.draw_series(LineSeries::new(
            points.clone().map(|(addresses, summary)| (addresses, summary.median)),
            colour.stroke_width(2),
        ))?;
        chart.draw_series(points.map(|(addresses, summary)| {
            let (low, high) = (summary.lower_quartile, summary.upper_quartile);
            ErrorBar::new_vertical(addresses, low, summary.median, high, colour.filled(), 6)
        }))?;
        let last = cells.last().map_or(0.0, |cell| cell.summary.median);
        names.push((last, name, colour));
    }
    // Each name beside the end of its line, and none on another.
    names.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut lowest = 0.0_f64;
    for (last, name, colour) in names {
        let height = last.max(lowest);
        lowest = height + 0.065;
        let style = ("sans-serif", 14).into_font().color(&colour);
        let beside = f64::from(most) * 1.12;
        chart.draw_series([Text::new(name.to_owned(), (beside, height + 0.025), style)])?;
    }
    area.present()?;
    drop(chart);
    drop(area);
    Ok(svg)
}
