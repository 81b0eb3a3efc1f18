//! The table, for 80 columns.

use crate::claims::{Cell, Row};

/// Widths of the columns' contents.
const WIDTHS: [usize; 3] = [44, 14, 12];

pub(crate) fn print(rows: &[Row]) {
    println!();
    line(["what", "without mhebpf", "with mhebpf"]);
    println!("|{}|", WIDTHS.map(|width| "-".repeat(width + 2)).join("|"));
    for row in rows {
        line([&row.what, &row.without.seen, &row.with.seen]);
    }
    for row in rows.iter().filter(|row| !row.holds()) {
        for (half, cell) in [("without", &row.without), ("with", &row.with)] {
            let Cell { seen, holds } = cell;
            if !holds {
                eprintln!("DOES NOT HOLD: {} {half} mhebpf: {seen}", row.what);
            }
        }
    }
}

fn line(cells: [&str; 3]) {
    let [a, b, c] = WIDTHS;
    println!("| {:a$} | {:b$} | {:c$} |", cells[0], cells[1], cells[2]);
}
