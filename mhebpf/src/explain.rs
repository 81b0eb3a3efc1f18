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

use std::{collections::BTreeMap, rc::Rc};

use anyhow::{Context as _, Result};
use mhebpf_ebpf::{Direction, Verdict};

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
        protocol::{Crossing, Enforced, Read},
    },
    model::{Host, Policy, Selector, host::MAIN_DOMAIN},
    netlink::{Dumper, RouteLookup},
    settings::Settings,
    usage::UsageError,
};

/// Answers the question of the command line about this network namespace: by the maps of the daemon that runs in it, or,
/// where none does or another policy is asked about, by the host.
///
/// # Errors
///
/// When links, addresses or routes can't be read; [`UsageError`] when the question makes no sense.
pub async fn run(options: &ExplainOptions) -> Result<()> {
    let host = Rc::unwrap_or_clone(Dumper::connect()?.snapshot()?.host);
    let question = question::read(options, &host)?;
    let judged = if options.names_a_policy() { None } else { by_daemon(&question).await };
    let (model, explanation, source, read) = match judged {
        Some(Judged { verdict, policies, read }) => {
            let model = Model::new(host, policies);
            let explanation = explanation::because(&model, &question, verdict);
            (model, explanation, Source::Daemon, read)
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
    let text = match options.output {
        Format::Text => report::text(&document, Colours::of_stdout()),
        Format::Json => document.to_json()?,
    };
    console::print(&text).context("printing the explanation")?;
    Ok(())
}

/// What the maps of a daemon say.
struct Judged {
    verdict: Verdict,
    policies: BTreeMap<u32, Policy>,
    read: Vec<Read>,
}

/// Asks the daemon of this network namespace; `None` where there is none, or it does not answer, which is said.
async fn by_daemon(question: &Question) -> Option<Judged> {
    let asked = Crossing::new(question.direction, question.ifindex, &question.packet);
    let answer = client::judge(asked).await.and_then(|(judgement, process)| {
        let verdict = judgement.verdict();
        let policy = |enforced: &Enforced| Some((enforced.ifindex, enforced.policy()?));
        let policies: Option<BTreeMap<_, _>> = judgement.policies.iter().map(policy).collect();
        let (verdict, policies) = verdict
            .zip(policies)
            .with_context(|| format!("mhebpf{process} answers what this version does not understand"))?;
        Ok(Judged { verdict, policies, read: judgement.read })
    });
    answer
        .inspect_err(|error| {
            if !error.is::<NoDaemon>() {
                eprintln!("note: {error:#}; this is computed from the host as it is now");
            }
        })
        .ok()
}

/// What is enforced where. Where the configuration does not say which interfaces, it is every uplink and the one that
/// is asked about.
fn policies(settings: &Settings, host: &Host, asked: u32) -> BTreeMap<u32, Policy> {
    let mut enforced = settings.selector.as_ref().unwrap_or(&Selector::Uplinks).select(host).enforced;
    if settings.selector.is_none() {
        enforced.insert(asked);
    }
    enforced.into_iter().map(|ifindex| (ifindex, settings.policy(&host.name_of(ifindex)))).collect()
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
