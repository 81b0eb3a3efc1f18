//! Loading the programs.

use anyhow::{Context as _, Result};
use aya::{
    VerifierLogLevel, include_bytes_aligned,
    programs::{ProgramError, SchedClassifier},
};
use tracing::debug;

use super::{Capacities, Counters, Maps, Reports, Samples, Sizes, StateMap, loader, maps, pinned, reports};
use crate::{pins::Generation, stop};

/// The object that the build script has compiled.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mhebpf-bpf"));

/// The compiled object that the programs are loaded from.
pub const fn object() -> &'static [u8] {
    OBJECT
}

/// What is in the kernel: programs, and maps with nothing in them yet.
pub struct Datapath {
    /// The two classifiers.
    pub programs: Programs,
    /// The tables that they decide from.
    pub maps: Maps,
    /// What they count.
    pub counters: Counters,
    /// What is noted for those who look when the daemon is gone.
    pub state: StateMap,
    /// What they show of packets that did not simply pass.
    pub samples: Samples,
    /// For how many entries the maps have room.
    pub capacities: Capacities,
    /// What they say, where the log shows it.
    pub reports: Option<Reports>,
}

/// The loaded classifiers.
pub struct Programs {
    ebpf: aya::Ebpf,
}

/// How often a program is loaded at most.
const LOAD_ATTEMPTS: usize = 10;

/// What the verifier says at first. aya loads a program that was refused once more to have its words (`retry_with_verifier_logs`,
/// 0.14), also one that a signal has interrupted; with each instruction written out that takes seconds.
const FEW_WORDS: VerifierLogLevel = VerifierLogLevel::STATS;

/// The name of the egress program.
pub(super) const EGRESS: &str = "mhebpf_egress";
/// The name of the ingress program.
pub(super) const INGRESS: &str = "mhebpf_ingress";

/// Loads the programs and creates the maps, as large as the object has them. Nothing is attached.
///
/// # Errors
///
/// When the kernel refuses them; the error carries the verifier's words.
pub fn load() -> Result<Datapath> {
    load_into(false, None, None)
}

/// The same, with [`Reports`] of what no packet should meet with.
///
/// # Errors
///
/// As [`load`].
pub fn load_reporting() -> Result<Datapath> {
    load_into(true, None, None)
}

/// The same, with reports or without, and with maps of these sizes. With a generation the maps are pinned there, and counters that are
/// there already go on.
///
/// # Errors
///
/// As [`load`].
pub fn load_into(reporting: bool, generation: Option<&Generation>, sizes: Option<Sizes>) -> Result<Datapath> {
    // Whether the programs report is decided once: the verifier takes out what is not wanted.
    let level = if reporting { reports::ON } else { reports::OFF };
    let load = |xfrm, words| {
        stop::check()?;
        load_with(xfrm, level, generation, sizes, words)
    };
    load(1, FEW_WORDS)
        // A kernel without XFRM has no helper to ask for IPsec by.
        .or_else(|error| load(0, FEW_WORDS).inspect(|_| debug!("this kernel knows no IPsec: {error:#}")))
        // Now for the whole story.
        .or_else(|_| load(1, VerifierLogLevel::default()))
}

fn load_with(
    xfrm: u8,
    level: u8,
    generation: Option<&Generation>,
    sizes: Option<Sizes>,
    words: VerifierLogLevel,
) -> Result<Datapath> {
    let mut loader = loader::new();
    loader.verifier_log_level(words);
    loader.override_global("XFRM", &xfrm, true).override_global(aya_log::LEVEL, &level, true);
    for (name, entries) in sizes.into_iter().flat_map(Sizes::by_name) {
        loader.map_max_entries(name, entries);
    }
    if let Some(generation) = generation {
        for name in pinned::MAPS {
            loader.map_pin_path(maps::name_in_object(name), generation.map(name).through());
        }
    }
    let mut ebpf = loader.load(OBJECT).context(
        "creating the BPF maps (before Linux 5.11 this needs CAP_SYS_RESOURCE: run mhebpf as root)",
    )?;
    let capacities = Capacities::of(&ebpf)?;
    let source = &mut |name: &str| maps::take(&mut ebpf, name);
    let maps = Maps::take(source)?;
    let counters = Counters::take(source)?;
    let state = StateMap::take(source)?;
    let samples = Samples::take(&mut ebpf)?;
    let reports = Reports::take(&mut ebpf, level)?;
    let mut programs = Programs { ebpf };
    for name in [EGRESS, INGRESS] {
        stop::check()?;
        load_program(programs.classifier(name)?).with_context(|| {
            format!(
                "loading the TC program {name} (before Linux 6.18 this needs CAP_PERFMON: run mhebpf as root)"
            )
        })?;
    }
    Ok(Datapath { programs, maps, counters, state, samples, capacities, reports })
}

/// Loads a program, and again where a signal has come meanwhile: the verifier gives up for any (`bpf_check`, Linux 6.18),
/// a change of the terminal's size too.
fn load_program(program: &mut SchedClassifier) -> Result<()> {
    for _ in 1..LOAD_ATTEMPTS {
        match program.load() {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.raw_os_error() == Some(libc::EAGAIN) =>
            {
                stop::check()?;
                debug!("a signal came while a program was loaded: loading it again");
            }
            result => return Ok(result?),
        }
    }
    Ok(program.load()?)
}

impl Programs {
    /// The program that judges packets that leave.
    ///
    /// # Errors
    ///
    /// When the object that was built has no such program.
    pub fn egress(&mut self) -> Result<&mut SchedClassifier> {
        self.classifier(EGRESS)
    }

    /// The program that judges packets that arrive.
    ///
    /// # Errors
    ///
    /// When the object that was built has no such program.
    pub fn ingress(&mut self) -> Result<&mut SchedClassifier> {
        self.classifier(INGRESS)
    }

    fn classifier(&mut self, name: &str) -> Result<&mut SchedClassifier> {
        self.ebpf
            .program_mut(name)
            .with_context(|| format!("the built object has no program {name}"))?
            .try_into()
            .with_context(|| format!("the program {name} of the built object is no classifier"))
    }
}
