//! Random hosts, and random packets that are likely to matter to them.
//!
//! Strategies of proptest: what fails is shrunk. `PROPTEST_CASES` sets the number of cases. A failure names
//! its seed, with which it is had again; nothing is left on disk.

mod addresses;
mod entropy;
pub(crate) mod hosts;
mod interfaces;
mod landmarks;
pub(crate) mod packets;
mod routes;

use std::{
    env,
    hash::{BuildHasher as _, RandomState},
};

use anyhow::anyhow;
use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngAlgorithm, RngSeed, TestCaseError, TestError, TestRunner},
};

pub(crate) use entropy::Generator;
pub(crate) use hosts::hosts;
pub(crate) use landmarks::Landmarks;
pub(crate) use packets::packets;

/// The default one takes most of the time where dependencies are not optimised.
pub(crate) const GENERATOR: RngAlgorithm = RngAlgorithm::XorShift;

/// Holds a property against this number of random values, if the environment doesn't name another.
pub(crate) fn check<S: Strategy>(
    cases: u32,
    strategy: &S,
    property: impl Fn(S::Value) -> Result<(), TestCaseError>,
) -> anyhow::Result<()> {
    let mut config = Config { failure_persistence: None, rng_algorithm: GENERATOR, ..Config::default() };
    if env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => RandomState::new().hash_one(()),
    };
    config.rng_seed = RngSeed::Fixed(seed);
    TestRunner::new(config).run(strategy, property).map_err(|failure| match failure {
        TestError::Abort(reason) => anyhow!("{reason}"),
        // On one line: the value holds whole packets, byte by byte.
        TestError::Fail(reason, smallest) => {
            anyhow!("{reason}\nthe smallest that fails: {smallest:?}\nagain with PROPTEST_RNG_SEED={seed}")
        }
    })
}
