//! What `mhebpf explain` says against what the programs in the kernel do, on random packets of random hosts.

mod live;

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
};

use anyhow::{Context as _, Result, ensure};
use mhebpf::explain::{
    explanation::{Explanation, Judged, Model, Question, Standing, action_name, explain},
    why::{Try, TryOutcome},
};
use mhebpf_ebpf::{Direction as Way, Packet, Verdict, packet::parse};
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::{Config, TestRng, TestRunner},
};

use crate::{
    kernel::{Kernel, answer, offset_of_content, with_kernel},
    oracle::{
        Action, Crossing, Direction, Host,
        Verdict::Violation,
        frame::{Content, read},
    },
    random::{GENERATOR, Generator, Landmarks, hosts, packets::PacketRecipe},
    subject::{in_words, model},
    testable,
};

const HOSTS: usize = 25;
const PACKETS_OF_EACH: usize = 800;

#[test]
fn what_explain_says_is_what_the_programs_do() -> Result<()> {
    let seed = RandomState::new().hash_one(());
    println!("seed {seed}");
    let rng = TestRng::from_seed(GENERATOR, &[seed.to_ne_bytes(), (!seed).to_ne_bytes()].concat());
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut generator = Generator::new(seed);
    let mut actions = BTreeMap::new();
    with_kernel(|kernel| {
        for _ in 0..HOSTS {
            let host = hosts().new_tree(&mut runner).map_err(anyhow::Error::msg)?.current();
            try_host(kernel, &host, &mut generator, &mut actions)
                .with_context(|| format!("seed {seed}, {host:?}"))?;
        }
        Ok(())
    })?;
    let compared: u64 = actions.values().sum();
    println!("{compared} packets: {actions:?}");
    assert!(compared >= 10_000, "{actions:?}");
    let seen: Vec<&str> = actions.keys().copied().collect();
    assert_eq!(seen, ["drop", "pass", "redirect", "redirect-group", "rewrite-sender", "rewrite-source"]);
    Ok(())
}

fn try_host(
    kernel: &mut Kernel,
    host: &Host,
    generator: &mut Generator,
    actions: &mut BTreeMap<&'static str, u64>,
) -> Result<()> {
    let model = Model::new(model::model_of(host), model::policies_of(host));
    kernel.write(&model.tables)?;
    let mut counts = kernel.counts()?;
    let landmarks = Landmarks::new(host);
    for _ in 0..PACKETS_OF_EACH {
        let crossing = as_usual(host, testable(PacketRecipe::next(generator).build(&landmarks)));
        let is_ethernet = host.interface(crossing.interface).is_some_and(|i| i.is_ethernet);
        let packet = parse(crossing.frame.as_slice(), 0);
        let (Some(packet), true) = (packet, is_ethernet && !is_error_about_others(&crossing)) else {
            continue;
        };
        let Ok(mut ran) = kernel.run(&crossing, [0; 20])? else { continue };
        let (question, explanation) = ask(&model, &crossing, packet);
        *actions.entry(action_name(&explanation.verdict)).or_default() += 1;
        let said = in_words(&model.tables, explanation.verdict);
        let expected = answer(host, &crossing, [0; 20], said, &mut counts);
        if matches!(said, Violation { action: Action::SendBy { .. } | Action::SendToGroupBy { .. }, .. }) {
            // The mark is the programs' own affair.
            ran.cb = expected.cb;
        }
        ensure!(ran == expected, "{ran:?} instead of {expected:?} for {explanation:?} of {crossing:?}");
        ensure!(is_sound(&question, &explanation), "{explanation:?} of {question:?}");
    }
    ensure!(kernel.counts()? == counts, "{:?} instead of {counts:?}", kernel.counts()?);
    Ok(())
}

/// One asks about datagrams between addresses, and not about what is in them.
fn is_error_about_others(crossing: &Crossing) -> bool {
    let content = read(&crossing.frame, crossing.tag_beside);
    matches!(content, Some(Content::Ip { source, cause: Some(cause), .. }) if cause != source)
}

/// The packet as one takes it to be who asks: it has the hardware address of the interface.
fn as_usual(host: &Host, mut crossing: Crossing) -> Crossing {
    let mac = host.interface(crossing.interface).map_or([0; 6], |interface| interface.mac);
    let offset = match crossing.direction {
        Direction::Egress => 6,
        Direction::Ingress => 0,
    };
    if let Some(place) =
        crossing.frame.get_mut(offset..offset + 6).filter(|place| offset == 6 || place[0] % 2 == 0)
    {
        place.copy_from_slice(&mac);
    }
    let content = offset_of_content(&crossing.frame);
    let is_arp = crossing.frame.get(content - 2..content) == Some(&[0x08, 0x06]);
    if let Some(sender) = crossing.frame.get_mut(content + 8..content + 14).filter(|_| is_arp) {
        sender.copy_from_slice(&mac);
    }
    // What arrives has always come in by an interface.
    crossing.arrived &= crossing.direction == Direction::Egress;
    crossing
}

fn ask(model: &Model, crossing: &Crossing, packet: Packet) -> (Question, Explanation) {
    let direction = match crossing.direction {
        Direction::Egress => Way::Egress,
        Direction::Ingress => Way::Ingress,
    };
    let question = Question {
        direction,
        ifindex: crossing.interface,
        packet,
        forwarded: crossing.arrived,
        decapsulated: false,
    };
    (question, explain(model, &question))
}

/// Whether the reasons lead to the verdict.
fn is_sound(question: &Question, explanation: &Explanation) -> bool {
    let Explanation { verdict, judged, tries } = explanation;
    let claims_fit = |judged: &Judged| {
        let mut owners = judged.claims.iter().map(|claim| claim.owner);
        match judged.standing {
            Standing::Own if judged.address.is_loopback() => true,
            Standing::Own => owners.any(|owner| owner.is_none_or(|owner| owner == question.ifindex)),
            Standing::Elsewhere => {
                !judged.claims.is_empty()
                    && owners.all(|owner| owner.is_some_and(|owner| owner != question.ifindex))
            }
            Standing::Unspecified | Standing::Loopback | Standing::Foreign => true,
        }
    };
    if !judged.iter().all(claims_fit) {
        return false;
    }
    let Verdict::Act { reason, action, .. } = verdict else { return tries.is_empty() };
    let standing = match reason.name() {
        "unknown_source" => Standing::Foreign,
        "loopback" => Standing::Loopback,
        _ => Standing::Elsewhere,
    };
    let leads = judged.last().is_some_and(|last| last.standing == standing);
    let last = tries.last();
    leads
        && match reason.name() {
            "redirected" => last.is_some_and(|last| {
                let hop = match last.outcome {
                    TryOutcome::NextHop { gateway, .. } => gateway.or(Some(question.addresses().1)),
                    _ => None,
                };
                last.owner == action.owner && hop == action.address.ip()
            }),
            "no_route" => tries.iter().any(|each| each.outcome == TryOutcome::NoRoute) && !ends_well(last),
            "owner_down" => tries.iter().all(|each| each.outcome == TryOutcome::Down),
            _ => tries.is_empty(),
        }
}

fn ends_well(last: Option<&Try>) -> bool {
    last.is_some_and(|last| matches!(last.outcome, TryOutcome::Group | TryOutcome::NextHop { .. }))
}
