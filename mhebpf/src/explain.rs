//! `mhebpf explain`: what becomes of a packet, and why.
//!
//! [`explanation`] holds the pure part: the verdict of the code that runs in the kernel, and the rules of the model that
//! led to it. Where a daemon runs, it is asked for the verdict by its maps as they are, and [`difference`] finds where they
//! are not in step with the host. [`question`] reads the command line, [`report`] and [`document`] say the answer.

pub mod difference;
pub mod document;
pub mod explanation;
pub mod question;
pub mod report;
pub mod why;

use std::{collections::BTreeMap, path::Path, rc::Rc};

use anyhow::{Context as _, Result};
use mhebpf_ebpf::{Direction, Receive, Send, Tables as _, Verdict};

use self::{
    difference::differences,
    document::{Document, KernelAnswer, Source},
    explanation::{Model, Question},
};
use crate::{
    cli::{ExplainOptions, Format},
    console::{self, Colours},
    control::{
        client::{self, NoDaemon},
        protocol::{self, Crossing, Enforced, Read},
        recording,
    },
    datapath::PinnedMaps,
    model::{Host, Policy, host::MAIN_DOMAIN},
    netlink::{Dumper, RouteLookup},
    pins::{self, Pinned, Pins},
    settings::Settings,
    usage::UsageError,
};

/// Answers the question of the command line about this network namespace: by the maps of the daemon that runs in it, or of
/// one that has pinned them; where there are none, or another policy is asked about, by the host.
///
/// # Errors
///
/// When links, addresses or routes can't be read; [`UsageError`] when the question makes no sense.
pub async fn run(options: &ExplainOptions) -> Result<()> {
    let host = Rc::unwrap_or_clone(Dumper::connect()?.snapshot()?.host);
    let question = question::read(options, &host)?;
    let judged = if options.names_a_policy() { None } else { by_maps(options, &question).await };
    let (model, explanation, source, read) = match judged {
        Some(Judged { source, verdict, policies, read }) => {
            let model = Model::new(host, policies);
            let explanation = explanation::because(&model, &question, verdict);
            (model, explanation, source, read)
        }
        None => {
            let (settings, _) = Settings::load(&options.as_for_run())
                .map_err(|error| UsageError::new(format!("{error:#}")))?;
            let policies = policies(&settings, &host, question.ifindex);
            let model = Model::new(host, policies);
            let explanation = explanation::explain(&model, &question);
            (model, explanation, Source::Host, Vec::new())
        }
    };
    let kernel = kernel_answers(&model.host, &question)?;
    let differences = differences(&model, &read);
    let document = Document::new(&model, &question, &explanation, kernel);
    let document = Document { source, differences, ..document };
    let colours = Colours::of_stdout();
    let text = match options.output {
        Format::Text => colours.printable(&report::text(&document, colours)),
        Format::Json => document.to_json()?,
    };
    console::print(&text).context("printing the explanation")?;
    Ok(())
}

/// What maps in the kernel say.
struct Judged {
    source: Source,
    verdict: Verdict,
    policies: BTreeMap<u32, Policy>,
    read: Vec<Read>,
}

/// Asks the daemon of this network namespace, or the maps that one has pinned; `None` where there is neither, or they can't be
/// asked, which is said.
async fn by_maps(options: &ExplainOptions, question: &Question) -> Option<Judged> {
    let asked = Crossing::new(question.direction, question.ifindex, &question.packet, question.forwarded);
    let answer = match by_daemon(asked).await {
        Err(error) if error.is::<NoDaemon>() => by_pins(options.pin.as_deref(), &asked),
        answer => answer.map(Some),
    };
    answer.unwrap_or_else(|error| {
        console::say(&format!("note: {error:#}; this is computed from the host as it is now\n"));
        None
    })
}

async fn by_daemon(asked: Crossing) -> Result<Judged> {
    let (judgement, process) = client::judge(asked).await?;
    let policy = |enforced: &Enforced| Some((enforced.ifindex, enforced.policy()?));
    let policies: Option<BTreeMap<_, _>> = judgement.policies.iter().map(policy).collect();
    let (verdict, policies) = judgement
        .verdict()
        .zip(policies)
        .with_context(|| format!("mhebpf{process} answers what this version does not understand"))?;
    Ok(Judged { source: Source::Daemon, verdict, policies, read: judgement.read })
}

/// Reads what is in force without a daemon. What the configuration allowed is not known then.
fn by_pins(named: Option<&Path>, asked: &Crossing) -> Result<Option<Judged>> {
    // Who may not even look has no reason to think that there is something.
    let Ok(Some(directory)) = Pins::find(&pins::directory(named)) else { return Ok(None) };
    let links = pins::links(&directory)?;
    if links.is_empty() {
        return Ok(None);
    }
    let pinned = PinnedMaps::youngest(&directory)?;
    let live = pinned.maps.live();
    let (verdict, read) = recording::judge(&live, asked).context("judging what is no packet")?;
    let policy = |link: &Pinned| {
        let words = protocol::Policy::from(live.iface(link.ifindex)?);
        let policy = Policy::try_from(&words).ok()?;
        // As it is for a downlink (`Settings::policies`).
        let binds = policy.send != Send::Off || policy.receive != Receive::Off;
        Some((link.ifindex, Policy { binds, ..policy }))
    };
    let policies = links.iter().filter_map(policy).collect();
    live.finish()?;
    Ok(Some(Judged { source: Source::Pinned, verdict, policies, read }))
}

/// What is enforced where. Where the configuration does not say which interfaces, it is every uplink and the one that
/// is asked about.
fn policies(settings: &Settings, host: &Host, asked: u32) -> BTreeMap<u32, Policy> {
    let mut selection = settings.selection(host);
    if settings.selector.is_none() {
        selection.enforced.insert(asked);
    }
    settings.policies(host, &selection)
}

/// What the kernel's own lookup says: of the packet that leaves, or of the answer to the one that arrives.
fn kernel_answers(host: &Host, question: &Question) -> Result<Vec<KernelAnswer>> {
    let (source, destination) = question.addresses();
    let (source, destination) = match question.direction {
        Direction::Egress => (source, destination),
        Direction::Ingress => (destination, source),
    };
    if destination.is_unspecified() || source.is_multicast() {
        return Ok(Vec::new());
    }
    let source = (!source.is_unspecified()).then_some(source);
    let mut lookup = RouteLookup::connect()?;
    let mut answers = Vec::new();
    let domain = host.domain_of(question.ifindex);
    let unbound = (domain != MAIN_DOMAIN).then_some(domain);
    for oif in [unbound, Some(question.ifindex)] {
        let route = lookup.route(source, destination, oif);
        answers.push(KernelAnswer::new(host, source, destination, oif, route));
    }
    Ok(answers)
}
