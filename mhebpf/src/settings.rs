//! What is to be enforced where: the command line and the configuration file together.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Result;
use glob::Pattern;
use mhebpf_ebpf::{Announce, Receive, Send, Unknown};

use crate::{
    cli::{
        AnnouncePolicy, ForwardedPolicy, LogFormat, Mode, ReceivePolicy, RunOptions, SendPolicy, Steer,
        UnknownPolicy, name,
    },
    config::{Config, InterfaceTable},
    datapath::Hook,
    model::{Host, Policy, Selection, Selector},
};

/// What is to be enforced where.
#[derive(Debug)]
pub struct Settings {
    /// Which interfaces; `None` when the operator has not said.
    pub selector: Option<Selector>,
    /// Whether addresses are announced at the start and when they are new.
    pub announces: bool,
    mode: Mode,
    receive: ReceivePolicy,
    announce: AnnouncePolicy,
    unknown: UnknownPolicy,
    forwarded: ForwardedPolicy,
    steer: Steer,
    downlinks: bool,
    tables: Vec<InterfaceTable>,
}

impl Settings {
    /// Reads the configuration file, if there is one, and adds the command line to it, which counts more. Tables for
    /// single interfaces count more than either, but for one thing: where the mode is to observe, nothing is
    /// enforced anywhere.
    ///
    /// # Errors
    ///
    /// When the file can't be read or understood.
    pub fn load(options: &RunOptions) -> Result<(Self, Config)> {
        let mut config = options.config_source().read()?.unwrap_or_default();
        let tables = std::mem::take(&mut config.interface);
        Ok((Self::new(options, &config, tables), config))
    }

    fn new(options: &RunOptions, config: &Config, tables: Vec<InterfaceTable>) -> Self {
        Self {
            selector: selector(options, config, &tables),
            downlinks: downlinks(options, config),
            forwarded: options.forwarded.or(config.forwarded).unwrap_or(ForwardedPolicy::Enforce),
            announces: !(options.no_announce || config.no_announce == Some(true)),
            mode: options.mode.or(config.mode).unwrap_or(Mode::Redirect),
            receive: options.receive.or(config.receive).unwrap_or(ReceivePolicy::Drop),
            announce: options.announce.or(config.announce).unwrap_or(AnnouncePolicy::Enforce),
            unknown: options.unknown.or(config.unknown).unwrap_or(UnknownPolicy::Pass),
            steer: options.steer.or(config.steer).unwrap_or(Steer::None),
            tables,
        }
    }

    /// The policy in the words of the command line.
    pub fn intent(&self) -> String {
        let mode = name(&self.mode);
        // Nothing is dropped in observe mode, whatever is said of what arrives.
        let receive = match (&self.mode, &self.receive) {
            (Mode::Observe, ReceivePolicy::Drop) => name(&ReceivePolicy::Observe),
            (_, receive) => name(receive),
        };
        let unknown = name(&self.unknown);
        let mut text = format!("mode {mode}, receive {receive}, unknown {unknown}");
        if self.forwarded != ForwardedPolicy::Enforce {
            text += &format!(", forwarded {}", name(&self.forwarded));
        }
        if self.announce != AnnouncePolicy::Enforce {
            text += &format!(", announce {}", name(&self.announce));
        }
        if self.steer == Steer::Rules {
            text += ", steer rules";
        }
        if !self.tables.is_empty() {
            text += &format!(", and {} of [[interface]]", self.tables.len());
        }
        text
    }

    /// The mode in the words of the command line.
    pub fn mode(&self) -> String {
        name(&self.mode)
    }

    /// Whether nothing is changed at all.
    pub fn observes(&self) -> bool {
        self.mode == Mode::Observe
    }

    /// Whether policy routing is asked for; while nothing is changed at all, it is only told of.
    pub fn steers(&self) -> bool {
        self.steer == Steer::Rules
    }

    /// The selected interfaces of a host: its uplinks, where nobody has said which.
    pub fn selection(&self, host: &Host) -> Selection {
        let uplinks = Selector::Uplinks { downlinks: self.downlinks };
        self.selector.as_ref().unwrap_or(&uplinks).select(host)
    }

    /// What is enforced on the selected interfaces, by ifindex.
    pub fn policies(&self, host: &Host, selection: &Selection) -> BTreeMap<u32, Policy> {
        self.policies_by(host, selection, Self::policy)
    }

    /// The same, but those of the default mode where the mode is to observe.
    pub fn policies_if_enforced(&self, host: &Host, selection: &Selection) -> BTreeMap<u32, Policy> {
        self.policies_by(host, selection, Self::policy_if_enforced)
    }

    fn policies_by(
        &self,
        host: &Host,
        selection: &Selection,
        policy: impl Fn(&Self, &str, bool) -> Policy,
    ) -> BTreeMap<u32, Policy> {
        let policy = |ifindex: &u32| {
            let is_downlink = selection.host.downlinks.contains(ifindex);
            (*ifindex, policy(self, &host.name_of(*ifindex), is_downlink))
        };
        selection.enforced.iter().map(policy).collect()
    }

    /// Whether downlinks are held to their own addresses.
    pub fn binds_downlinks(&self) -> bool {
        self.downlinks
    }

    /// What is enforced on an interface of this name.
    fn policy(&self, interface: &str, is_downlink: bool) -> Policy {
        let policy = self.policy_if_enforced(interface, is_downlink);
        // Observing changes nothing at all.
        if self.mode == Mode::Observe { policy.observing() } else { policy }
    }

    /// The same, but that of the default mode where the mode is to observe.
    ///
    /// On a downlink datagrams with any address of this host pass both ways (RFC 1812 section 5.2.3), unless a table says
    /// otherwise.
    fn policy_if_enforced(&self, interface: &str, is_downlink: bool) -> Policy {
        let binds = !is_downlink || self.downlinks;
        let (mut send, mut receive) = match self.mode {
            _ if !binds => (SendPolicy::Off, ReceivePolicy::Off),
            Mode::Redirect | Mode::Observe => (SendPolicy::Redirect, self.receive),
            Mode::Drop => (SendPolicy::Drop, self.receive),
        };
        let (mut announce, mut unknown, mut forwarded) = (self.announce, self.unknown, self.forwarded);
        let (mut allow, mut owns) = (Vec::new(), Vec::new());
        for table in self.tables.iter().filter(|table| table.name.0.matches(interface)) {
            send = table.send.unwrap_or(send);
            receive = table.receive.unwrap_or(receive);
            announce = table.announce.unwrap_or(announce);
            unknown = table.unknown.unwrap_or(unknown);
            forwarded = table.forwarded.unwrap_or(forwarded);
            allow.extend(table.allow.iter().map(|net| net.0));
            owns.extend(table.owns.iter().map(|net| net.0));
        }
        let send = match send {
            SendPolicy::Redirect => Send::Redirect,
            SendPolicy::Drop => Send::Drop,
            SendPolicy::Observe => Send::Observe,
            SendPolicy::Off => Send::Off,
        };
        Policy {
            send,
            receive: match receive {
                ReceivePolicy::Drop => Receive::Drop,
                ReceivePolicy::Observe => Receive::Observe,
                ReceivePolicy::Off => Receive::Off,
            },
            announce: match announce {
                AnnouncePolicy::Enforce => Announce::Enforce,
                AnnouncePolicy::Observe => Announce::Observe,
                AnnouncePolicy::Off => Announce::Off,
            },
            unknown: match unknown {
                UnknownPolicy::Pass => Unknown::Pass,
                UnknownPolicy::Drop => Unknown::Drop,
            },
            forwarded: match (forwarded, send) {
                (ForwardedPolicy::Enforce, send) => send,
                (ForwardedPolicy::Observe, Send::Redirect | Send::Drop) => Send::Observe,
                (ForwardedPolicy::Observe, send) => send,
                (ForwardedPolicy::Off, _) => Send::Off,
            },
            allow,
            owns,
            binds,
        }
    }
}

/// What holds from the start to the end of a run, whatever a file that is read again says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// How the programs are attached.
    pub hook: Hook,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// After which time the run ends.
    pub run_for: Option<Duration>,
    /// Where what outlives the daemon is pinned, if anything does.
    pub pin: Option<PathBuf>,
    /// How the log is written, as the file says.
    log_format: Option<LogFormat>,
    /// How much the log says, as the file says.
    verbose: Option<u8>,
}

impl Fixed {
    /// Of the command line and the configuration file together.
    pub fn new(options: &RunOptions, config: &Config) -> Self {
        Self {
            hook: options.hook.or(config.hook).unwrap_or(Hook::Auto),
            metrics: options.metrics.or(config.metrics),
            run_for: options.run_for.or(config.run_for),
            pin: options.pin.clone().or_else(|| config.pin.clone()),
            log_format: config.log_format,
            verbose: config.verbose,
        }
    }

    /// The keys whose values are others now.
    pub fn changed(&self, now: &Self) -> impl Iterator<Item = &'static str> + use<> {
        let keys = [
            ("hook", self.hook != now.hook),
            ("metrics", self.metrics != now.metrics),
            ("for", self.run_for != now.run_for),
            ("pin", self.pin != now.pin),
            ("log-format", self.log_format != now.log_format),
            ("verbose", self.verbose != now.verbose),
        ];
        keys.into_iter().filter_map(|(key, differs)| differs.then_some(key))
    }
}

fn downlinks(options: &RunOptions, config: &Config) -> bool {
    options.downlinks || config.downlinks == Some(true)
}

fn selector(options: &RunOptions, config: &Config, tables: &[InterfaceTable]) -> Option<Selector> {
    let uplinks = Selector::Uplinks { downlinks: downlinks(options, config) };
    if options.all {
        return Some(uplinks);
    }
    if !options.interfaces.is_empty() {
        return Some(Selector::Matching(options.interfaces.clone()));
    }
    if config.all == Some(true) {
        return Some(uplinks);
    }
    let patterns: Vec<Pattern> = match &config.interfaces {
        Some(patterns) => patterns.iter().map(|glob| glob.0.clone()).collect(),
        None => tables.iter().map(|table| table.name.0.clone()).collect(),
    };
    (!patterns.is_empty()).then_some(Selector::Matching(patterns))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;
    use crate::cli::{Cli, Command};

    /// The long options of `run`, those for all commands included.
    fn options() -> Vec<clap::Arg> {
        let mut command = Cli::command();
        // So that each command has those for all.
        command.build();
        let run = command.find_subcommand("run").expect("the command");
        run.get_arguments().filter(|option| option.get_long().is_some()).cloned().collect()
    }

    /// The file can't name itself, and these two end at once.
    const WITHOUT_KEY: [&str; 3] = ["config", "help", "version"];

    #[test]
    fn every_option_has_an_environment_variable_and_a_key() {
        let options = options();
        assert!(options.len() > 10, "{options:?}");
        for option in &options {
            let long = option.get_long().expect("a long option");
            let variable = option.get_env().and_then(|name| name.to_str());
            if ["help", "version"].contains(&long) {
                continue;
            }
            let expected = format!("MHEBPF_{}", long.to_uppercase().replace('-', "_"));
            assert_eq!(variable, Some(expected.as_str()), "the environment variable of --{long}");
            if WITHOUT_KEY.contains(&long) {
                continue;
            }
            // No key takes a date, so a key that is known is found fault with for its value.
            let error = Config::parse(&format!("{} = 1979-05-27", key(long))).expect_err(long);
            assert!(!error.to_string().contains("unknown field"), "no key for --{long}: {error:#}");
        }
    }

    #[test]
    fn every_key_is_an_option() {
        let error = format!("{:#}", Config::parse("no-such-key = 1").expect_err("no such key"));
        let (_, expected) = error.split_once("expected one of").expect("the keys that there are");
        let keys: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        assert!(keys.len() > 10, "{keys:?}");
        let options = options();
        for named in keys.into_iter().filter(|named| *named != "interface") {
            let is_option = options.iter().filter_map(clap::Arg::get_long).any(|long| key(long) == named);
            assert!(is_option, "no option for the key {named}");
        }
    }

    /// The key of an option: its name, but for one that is a list there.
    fn key(long: &str) -> &str {
        if long == "interface" { "interfaces" } else { long }
    }

    fn settings(arguments: &[&str], file: &str) -> Settings {
        let cli = Cli::try_parse_from(["mhebpf", "run"].iter().chain(arguments)).expect("valid arguments");
        let Command::Run(options) = cli.command else { panic!("`run` was asked for") };
        let mut config = Config::parse(file).expect("a configuration");
        let tables = std::mem::take(&mut config.interface);
        Settings::new(&options, &config, tables)
    }

    fn selected(settings: &Settings) -> String {
        settings.selector.as_ref().map(Selector::describe).unwrap_or_default()
    }

    #[test]
    fn observing_changes_nothing_at_all_whatever_the_tables_say() {
        let file = "[[interface]]\nname = \"*\"\nsend = \"drop\"\nannounce = \"off\"";
        let policy =
            settings(&["--all", "--mode", "observe", "--receive", "drop"], file).policy("eth0", false);
        assert_eq!((policy.send, policy.receive), (Send::Observe, Receive::Observe));
        assert_eq!(policy.announce, Announce::Off);
    }

    #[test]
    fn steering_is_asked_for_by_the_command_line_or_the_file() {
        assert!(!settings(&["--all"], "").steers());
        assert!(settings(&["--all", "--steer", "rules"], "").steers());
        assert!(settings(&["--all"], "steer = \"rules\"").steers());
        assert!(!settings(&["--all", "--steer", "none"], "steer = \"rules\"").steers());
        let observing = settings(&["--all", "--mode", "observe", "--steer", "rules"], "");
        assert_eq!(observing.policy_if_enforced("eth0", false).send, Send::Redirect);
        assert!(observing.intent().contains("steer rules"), "{}", observing.intent());
    }

    #[test]
    fn the_command_line_counts_more_than_the_file_and_tables_count_more_than_either() {
        let file = "mode = \"drop\"\nreceive = \"off\"\n\
                    [[interface]]\nname = \"eth*\"\nunknown = \"drop\"\nallow = [\"10.0.0.0/8\"]\n\
                    [[interface]]\nname = \"eth1\"\nsend = \"off\"\nallow = [\"10.1.0.0/16\"]";
        let settings = settings(&["--receive", "observe"], file);
        let [eth0, eth1, other] = ["eth0", "eth1", "wlan0"].map(|name| settings.policy(name, false));
        assert_eq!((eth0.send, eth0.receive, eth0.unknown), (Send::Drop, Receive::Observe, Unknown::Drop));
        assert_eq!((eth1.send, eth1.unknown, eth1.allow.len()), (Send::Off, Unknown::Drop, 2));
        assert_eq!((other.unknown, other.allow.len()), (Unknown::Pass, 0));
    }

    #[test]
    fn interfaces_are_those_of_the_command_line_the_file_or_its_tables() {
        let table = "[[interface]]\nname = \"eth7\"";
        let listed = format!("interfaces = [\"ens*\"]\n{table}");
        assert_eq!(selected(&settings(&["-i", "eth0"], &listed)), "'eth0'");
        assert_eq!(selected(&settings(&["--all"], &listed)), "--all");
        assert_eq!(selected(&settings(&[], &listed)), "'ens*'");
        assert_eq!(selected(&settings(&[], table)), "'eth7'");
        assert_eq!(selected(&settings(&[], "all = true")), "--all");
        assert!(settings(&[], "mode = \"drop\"").selector.is_none());
    }
}
