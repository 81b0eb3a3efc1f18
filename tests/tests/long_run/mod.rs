//! The programs against the oracle on many packets, which a fast generator makes.
//!
//! `MHEBPF_ORACLE_HOSTS` and `MHEBPF_ORACLE_PACKETS` (of each host) say how long it is, and
//! `MHEBPF_ORACLE_SEED` which hosts and packets these are.

use std::{
    collections::BTreeMap,
    env,
    hash::{BuildHasher as _, RandomState},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::{Config, TestRng, TestRunner},
};

use crate::{
    kernel::{Kernel, Trial, with_kernel},
    oracle::{Host, Verdict},
    random::{GENERATOR, Generator, Landmarks, hosts, packets::PacketRecipe},
    testable,
};

/// What became of packets.
#[derive(Default)]
struct Seen {
    /// By the family and the reason that the programs count, and whether they only observed.
    violations: BTreeMap<(&'static str, &'static str, bool), u64>,
    passed: u64,
    /// Those that the kernel runs no program on.
    refused: u64,
}

#[test]
fn many_random_packets_fare_as_the_oracle_says() -> Result<()> {
    run(10, 10_000)
}

/// For minutes: `cargo xtask oracle`.
#[test]
#[ignore = "takes minutes: run by `cargo xtask oracle`"]
fn very_many_random_packets_fare_as_the_oracle_says() -> Result<()> {
    run(number("MHEBPF_ORACLE_HOSTS")?.unwrap_or(300), number("MHEBPF_ORACLE_PACKETS")?.unwrap_or(10_000))
}

fn number(variable: &str) -> Result<Option<u64>> {
    let Some(value) = env::var_os(variable) else { return Ok(None) };
    let value = value.to_str().with_context(|| format!("{variable} is not text"))?;
    value.parse().map(Some).with_context(|| format!("{variable}={value}"))
}

fn run(hosts_to_try: u64, packets_of_each: u64) -> Result<()> {
    let seed = number("MHEBPF_ORACLE_SEED")?.unwrap_or_else(|| RandomState::new().hash_one(()));
    println!("{hosts_to_try} hosts, {packets_of_each} packets of each, MHEBPF_ORACLE_SEED={seed}");
    let rng = TestRng::from_seed(GENERATOR, &[seed.to_ne_bytes(), (!seed).to_ne_bytes()].concat());
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut generator = Generator::new(seed);
    let mut seen = Seen::default();
    with_kernel(|kernel| {
        let strategy = hosts();
        for number in 0..hosts_to_try {
            let host = strategy.new_tree(&mut runner).map_err(|reason| anyhow!("{reason}"))?.current();
            try_host(kernel, &host, packets_of_each, &mut generator, &mut seen)
                .with_context(|| format!("host {number} of MHEBPF_ORACLE_SEED={seed}: {host:?}"))?;
        }
        Ok(())
    })?;
    println!(
        "{:10} for the pure decision only: the kernel doesn't run programs on such packets",
        seen.refused
    );
    println!("{:10} passed", seen.passed);
    for ((family, reason, observed), packets) in &seen.violations {
        println!("{packets:10} {family} {reason}{}", if *observed { " (observed)" } else { "" });
    }
    let all = seen.violations.values().sum::<u64>() + seen.passed + seen.refused;
    ensure!(all == hosts_to_try * packets_of_each, "{all} packets in all");
    Ok(())
}

fn try_host(
    kernel: &mut Kernel,
    host: &Host,
    packets: u64,
    generator: &mut Generator,
    seen: &mut Seen,
) -> Result<()> {
    let landmarks = Landmarks::new(host);
    let mut trial = Trial::watching(kernel, host.clone())?;
    let before = trial.counts.clone();
    for _ in 0..packets {
        let crossing = testable(PacketRecipe::next(generator).build(&landmarks));
        match trial.run_unless_refused(&crossing, [0; 20])? {
            None => seen.refused += 1,
            Some(Verdict::Pass) => seen.passed += 1,
            Some(Verdict::Violation { .. }) => {}
        }
    }
    for (key, count) in &trial.counts {
        let (_, _, family, reason, observed) = *key;
        let packets = count - before.get(key).unwrap_or(&0);
        *seen.violations.entry((family, reason, observed)).or_default() += packets;
    }
    trial.finish()?;
    Ok(())
}
