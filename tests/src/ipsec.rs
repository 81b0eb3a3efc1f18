//! Security associations, as `ip xfrm` takes them.

use std::net::IpAddr;

/// How they encrypt: in one step, so that a guest's processor has little to do.
const CIPHER: &str = "aead rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f10111213 128";

/// What all have in common, so that policies find them.
pub const REQUEST_ID: &str = "reqid 7";

/// A line for `ip -batch` that adds an association; `mode` is `transport` or `tunnel`, perhaps with further words.
pub fn add_state(from: impl Into<IpAddr>, to: impl Into<IpAddr>, spi: u32, mode: &str) -> String {
    let (from, to) = (from.into(), to.into());
    format!("xfrm state add src {from} dst {to} proto esp spi {spi} {REQUEST_ID} mode {mode} {CIPHER}\n")
}
