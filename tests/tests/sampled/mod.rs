//! What those who watch see of the packets that did not simply pass.

use anyhow::Result;
use mhebpf_ebpf::{Act, SAMPLED};

use super::{REMOTE, egress, ethernet, ipv4, violations};
use crate::{
    frames::MACS,
    kernel::{Trial, with_kernel},
    oracle::{
        Policy,
        example::{ETH0, ETH1, OF_ETH1, example},
    },
};

#[test]
fn what_is_counted_is_sampled_as_it_was_before() -> Result<()> {
    with_kernel(|kernel| {
        kernel.sample(1000)?;
        let mut trial = Trial::new(kernel, example(&Policy::STRONG))?;
        for violation in violations() {
            trial.run(&violation, [0; 20])?;
        }
        trial.finish()?;
        let (samples, suppressed) = kernel.samples()?;
        assert_eq!((samples.len(), suppressed), (violations().len(), 0));
        for (sample, violation) in samples.iter().zip(violations()) {
            let network = &violation.frame[14..];
            let sampled = network.len().min(SAMPLED);
            assert_eq!(sample.length as usize, network.len());
            assert_eq!(sample.bytes[..usize::from(sample.sampled)], network[..sampled]);
            assert_eq!(sample.counted.ifindex, violation.interface);
        }
        let [redirected, ..] = samples.as_slice() else { unreachable!() };
        assert_eq!((redirected.act, redirected.owner), (Act::Redirect as u8, ETH1));
        assert!(samples.is_sorted_by_key(|sample| sample.time));
        Ok(())
    })
}

#[test]
fn nothing_is_sampled_where_nobody_watches_and_no_more_than_the_rate_where_somebody_does() -> Result<()> {
    let packets = |trial: &mut Trial<'_>| -> Result<()> {
        let packet = egress(ETH0, ethernet(&MACS, &[], &ipv4(OF_ETH1, REMOTE)));
        for _ in 0..100 {
            trial.run(&packet, [0; 20])?;
        }
        Ok(())
    };
    with_kernel(|kernel| {
        packets(&mut Trial::new(kernel, example(&Policy::STRONG))?)?;
        assert_eq!(kernel.samples()?, (Vec::new(), 0));
        kernel.sample(1)?;
        packets(&mut Trial::new(kernel, example(&Policy::STRONG))?)?;
        let (samples, suppressed) = kernel.samples()?;
        assert_eq!(samples.len() as u64 + suppressed, 100);
        // One at once, and one more for each second, on each CPU that the test has run on.
        assert!((1..50).contains(&samples.len()), "{}", samples.len());
        Ok(())
    })
}
