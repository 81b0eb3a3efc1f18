//! `mhebpf explain`: what becomes of a packet, and why.
//!
//! [`explanation`] holds the pure part: the verdict of the code that runs in the kernel, and the rules of the model that
//! led to it. [`question`] reads the command line, [`report`] and [`document`] say the answer.

pub mod document;
pub mod explanation;
pub mod question;
pub mod report;
pub mod why;

use std::{collections::BTreeMap, rc::Rc};

use anyhow::{Context as _, Result};
use mhebpf_ebpf::Direction;

use self::{
    document::{Document, KernelAnswer},
    explanation::{Model, Question},
};
use crate::{
    cli::{ExplainOptions, Format},
    console::{self, Colours},
    model::{Host, Policy, Selector, host::MAIN_DOMAIN},
    netlink::{Dumper, RouteLookup},
    settings::Settings,
    usage::UsageError,
};

/// Answers the question of the command line about the host of this network namespace.
///
/// # Errors
///
/// When links, addresses or routes can't be read; [`UsageError`] when the question makes no sense.
pub fn run(options: &ExplainOptions) -> Result<()> {
    let (settings, _) =
        Settings::load(&options.as_for_run()).map_err(|error| UsageError::new(format!("{error:#}")))?;
    let host = Rc::unwrap_or_clone(Dumper::connect()?.snapshot()?.host);
    let question = question::read(options, &host)?;
    let policies = policies(&settings, &host, question.ifindex);
    let model = Model::new(host, policies);
    let explanation = explanation::explain(&model, &question);
    let kernel = kernel_answers(&model.host, &question)?;
    let document = Document::new(&model, &question, &explanation, kernel);
    let text = match options.output {
        Format::Text => report::text(&document, Colours::of_stdout()),
        Format::Json => document.to_json()?,
    };
    console::print(&text).context("printing the explanation")?;
    Ok(())
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
