//! Metrics for Prometheus, in the text format of OpenMetrics 1.0.
//!
//! A scrape is a question to the daemon's loop ([`crate::control`]), answered by the values of one moment; the text is made of
//! them in the task that serves the client.

mod exposition;
mod measures;
mod server;
mod totals;

pub use self::{
    exposition::{CONTENT_TYPE, text},
    measures::{Durations, Fill, Interface, Measures},
    server::Listener,
    totals::{Series, Totals},
};
