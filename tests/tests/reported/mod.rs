//! What the programs say for the log, where it shows that.

use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use mhebpf::datapath::reports::TARGET;

use super::{REMOTE, egress, ethernet, ipv4, violations};
use crate::{
    frames::{MACS, PRIORITY_TAG},
    kernel::{DROP, Kernel, PASS, Trial, with_reporting_kernel},
    oracle::{
        Crossing, Policy,
        example::{ETH0, ETH1, OF_ETH1, example},
    },
};

/// The word of `skb->cb` by which the programs know what they have redirected.
const MARKED: [u8; 20] = {
    let mut cb = [0; 20];
    let mark = 0x6d68_6562_u32.to_ne_bytes();
    (cb[16], cb[17], cb[18], cb[19]) = (mark[0], mark[1], mark[2], mark[3]);
    cb
};

/// A log that keeps what the programs say.
struct Log(Mutex<Vec<String>>);

static LOG: Log = Log(Mutex::new(Vec::new()));

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.target() == TARGET {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// What was said since the last time.
fn said(kernel: &mut Kernel) -> Result<Vec<String>> {
    kernel.reports().context("the programs say something")?.show();
    Ok(std::mem::take(&mut LOG.0.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// The programs are silent for a moment after each message: runs one until it is heard.
fn hear(kernel: &mut Kernel, crossing: &Crossing, code: i32) -> Result<String> {
    for _ in 0..1_000_000 {
        let ran = kernel.run(crossing, MARKED)??;
        ensure!(ran.code == code, "{ran:?}");
        if let Some(message) = said(kernel)?.pop() {
            return Ok(message);
        }
    }
    anyhow::bail!("nothing was said of {crossing:?}");
}

/// Loading them with their messages is half of the test: the verifier has then all of it to follow.
#[test]
fn what_no_packet_should_meet_with_is_said_and_nothing_else() -> Result<()> {
    log::set_logger(&LOG).map_err(anyhow::Error::msg)?;
    with_reporting_kernel(|kernel| {
        let mut trial = Trial::new(kernel, example(&Policy::STRONG))?;
        for violation in violations() {
            trial.run(&violation, [0; 20])?;
        }
        trial.finish()?;
        assert_eq!(said(kernel)?, [""; 0], "violations are no fault");

        let redirected = egress(ETH0, ethernet(&MACS, &[], &ipv4(OF_ETH1, REMOTE)));
        let message = hear(kernel, &redirected, DROP)?;
        let expected = format!("a packet of interface {ETH0} came back from interface {ETH1}: it is dropped");
        assert!(message.starts_with(&expected), "{message}");

        let truncated = egress(ETH0, ethernet(&MACS, &[PRIORITY_TAG], &ipv4(OF_ETH1, REMOTE)[..12]));
        let message = hear(kernel, &truncated, PASS)?;
        let expected =
            format!("a packet of interface {ETH0} with the EtherType 800 ends within its headers: it passes");
        assert_eq!(message, expected);

        for _ in 0..10_000 {
            kernel.run(&redirected, MARKED)??;
        }
        let messages = said(kernel)?.len();
        assert!(messages < 5000, "as many packets can come as there are: {messages} messages");
        Ok(())
    })
}
