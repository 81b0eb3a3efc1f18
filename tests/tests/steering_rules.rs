//! The rules and tables of `--steer rules` from start to stop.

mod steered;

use std::{fs, path::PathBuf, process};

use anyhow::Result;
use mhebpf::{
    model::{Policy, Steering, steering::SteeringRule},
    netlink::Dumper,
};
use mhebpf_ebpf::{Announce, Receive, Send, Unknown};
use mhebpf_tests::{Daemon, Lab, PATIENCE, lab::INTERFACES, wait_until};
use steered::{PROTOCOL, lab, ours, routing, table};

/// The priority of the daemon's rules.
const PRIORITY: u32 = 28_008;

/// Starts a daemon that keeps rules.
fn steering(lab: &Lab) -> Result<Daemon> {
    lab.mhebpf(&["--steer", "rules"])
}

fn wait_for_rule(lab: &Lab, address: &str, port: usize) -> Result<()> {
    let rule = format!("from {address} fwmark 0 iif lo lookup {} proto {PROTOCOL}", table(lab, port)?);
    wait_until(&format!("`{rule}` alone"), PATIENCE, || {
        let ours = ours(&lab.host)?;
        let mut of_address = ours.iter().filter(|line| line.contains(&format!("from {address} ")));
        let is_right = of_address.next().is_some_and(|line| line.contains(&rule));
        Ok((is_right && of_address.next().is_none()).then_some(()))
    })
}

/// The rules that the model wants for the host as it is, as `ip` shows them.
fn wanted_rules(lab: &Lab) -> Result<Vec<String>> {
    let policy = Policy {
        send: Send::Redirect,
        receive: Receive::Drop,
        announce: Announce::Enforce,
        unknown: Unknown::Pass,
        forwarded: Send::Redirect,
        allow: Vec::new(),
        owns: Vec::new(),
        binds: true,
    };
    lab.host.run(|| {
        let host = Dumper::connect()?.snapshot()?.host;
        let enforced = host.links.values().filter(|link| link.name.starts_with("eth"));
        let policies = enforced.map(|link| (link.index, policy.clone())).collect();
        let rules = Steering::new(&host, &policies).rules;
        let text = |rule: &SteeringRule| {
            let source = rule.source.to_string();
            let source = source.trim_end_matches("/32").trim_end_matches("/128");
            format!("{PRIORITY}:\tfrom {source} fwmark 0 iif lo lookup {} proto {PROTOCOL}", rule.table)
        };
        let mut rules: Vec<String> = rules.iter().map(text).collect();
        rules.sort();
        Ok(rules)
    })
}

/// Runs `mhebpf` until it fails, and returns what it said.
fn refusal(lab: &Lab) -> Result<String> {
    let mut daemon = Daemon::spawn(&lab.host, &["run", "--interface", INTERFACES, "--steer", "rules"])?;
    let ended = daemon.wait_end(PATIENCE)?;
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    Ok(ended.stderr)
}

#[test]
fn each_address_has_a_rule_and_each_interface_a_table() -> Result<()> {
    let lab = lab()?;
    let daemon = steering(&lab)?;
    let ours = ours(&lab.host)?;
    for port in lab.ports() {
        let table = table(&lab, port)?;
        for address in [lab.address(port).to_string(), lab.address6(port).to_string()] {
            let rule = format!("{PRIORITY}:\tfrom {address} fwmark 0 iif lo lookup {table} proto {PROTOCOL}");
            assert!(ours.contains(&rule), "{rule}: {ours:#?}");
        }
        for route in ["default via 192.168.0.1", "192.168.0.0/21", "default via 2001:db8::1", "2001:db8::/64"]
        {
            let route = format!("{route} dev eth{port}_int table {table} proto {PROTOCOL}");
            assert!(ours.iter().any(|line| line.starts_with(&route)), "{route}: {ours:#?}");
        }
    }
    daemon.stop()?;
    lab.finish()
}

#[test]
fn a_stop_leaves_rules_and_routes_as_they_were() -> Result<()> {
    let lab = lab()?;
    lab.host.ip_batch(
        "rule add from 192.168.0.101 lookup 100 priority 20000\nroute add default dev eth1_int table 100",
    )?;
    let before = routing(&lab.host)?;
    let daemon = steering(&lab)?;
    assert_ne!(routing(&lab.host)?, before);
    daemon.stop()?;
    assert_eq!(routing(&lab.host)?, before);
    let mut daemon =
        Daemon::spawn(&lab.host, &["run", "--interface", INTERFACES, "--steer", "rules", "--for", "1s"])?;
    daemon.wait_ready()?;
    assert_ne!(routing(&lab.host)?, before);
    daemon.wait_end(PATIENCE)?;
    assert_eq!(routing(&lab.host)?, before);
    lab.finish()
}

#[test]
fn a_killed_daemons_rules_are_adopted_or_removed() -> Result<()> {
    let lab = lab()?;
    let before = routing(&lab.host)?;
    let mut daemon = steering(&lab)?;
    let kept = ours(&lab.host)?;
    daemon.signal(libc::SIGKILL)?;
    daemon.wait_end(PATIENCE)?;
    assert_eq!(ours(&lab.host)?, kept);
    // What is not wanted any more goes.
    lab.remove_address(3, lab.address(3))?;
    let daemon = steering(&lab)?;
    let ours_now = ours(&lab.host)?;
    assert!(ours_now.len() < kept.len() && ours_now.iter().all(|line| kept.contains(line)), "{ours_now:#?}");
    lab.add_address(3, lab.address(3))?;
    wait_until("the rules of all addresses", PATIENCE, || Ok((ours(&lab.host)? == kept).then_some(())))?;
    daemon.stop()?;
    assert_eq!(ours(&lab.host)?, [""; 0]);

    let mut daemon = steering(&lab)?;
    daemon.signal(libc::SIGKILL)?;
    daemon.wait_end(PATIENCE)?;
    let daemon = lab.mhebpf(&[])?;
    assert_eq!(ours(&lab.host)?, [""; 0]);
    daemon.wait_for_line("an earlier run has left", PATIENCE)?;
    daemon.stop()?;
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&routing(&lab.host)?), sorted(&before));
    lab.finish()
}

#[test]
fn a_burst_of_changes_leaves_what_a_fresh_start_would_make() -> Result<()> {
    let lab = lab()?;
    let daemon = steering(&lab)?;
    for n in 0..150_u8 {
        let address = std::net::Ipv4Addr::new(192, 168, 2, n);
        let port = usize::from(n) / 7 % 4;
        lab.add_address(port, address)?;
        if n % 3 == 0 {
            lab.move_address(port, (port + 1) % 4, address)?;
        } else if n % 3 == 1 {
            lab.remove_address(port, address)?;
        }
    }
    // 150 added, 50 of them moved by two changes each, 50 removed.
    let expected = wanted_rules(&lab)?;
    assert!(expected.len() > 50, "{expected:#?}");
    let kept = wait_until("the rules for all addresses", PATIENCE, || {
        let ours = ours(&lab.host)?;
        let rules = ours.iter().filter(|line| line.starts_with(&PRIORITY.to_string()));
        Ok((rules.eq(&expected)).then_some(ours.clone()))
    })?;
    daemon.stop()?;
    assert_eq!(ours(&lab.host)?, [""; 0]);
    let daemon = steering(&lab)?;
    assert_eq!(ours(&lab.host)?, kept);
    daemon.stop()?;
    lab.finish()
}

#[test]
fn rules_follow_addresses_routes_and_links() -> Result<()> {
    let mut lab = lab()?;
    let daemon = steering(&lab)?;
    let address: std::net::Ipv4Addr = [192, 168, 3, 7].into();
    lab.add_address(1, address)?;
    wait_for_rule(&lab, "192.168.3.7", 1)?;
    lab.move_address(1, 2, address)?;
    wait_for_rule(&lab, "192.168.3.7", 2)?;

    // A route that changes is changed in all tables.
    lab.host.ip("route replace default via 192.168.0.1 mtu 1400")?;
    wait_until("the MTU of all default routes", PATIENCE, || {
        let ours = ours(&lab.host)?;
        Ok((ours.iter().filter(|line| line.contains("mtu 1400")).count() == 4).then_some(()))
    })?;

    // The routes go with the link, and come back. Another link has another table.
    lab.down(1)?;
    let of_1 = format!("lookup {}", table(&lab, 1)?);
    wait_until("the rules of eth1 to go", PATIENCE, || {
        Ok(ours(&lab.host)?.iter().all(|line| !line.contains(&of_1)).then_some(()))
    })?;
    lab.up(1)?;
    wait_for_rule(&lab, "192.168.0.101", 1)?;
    lab.delete_link(2)?;
    lab.recreate_link(2)?;
    wait_for_rule(&lab, "192.168.0.102", 2)?;
    daemon.stop()?;
    lab.finish()
}

#[test]
fn somebody_elses_rule_or_route_in_our_place_is_refused() -> Result<()> {
    let lab = lab()?;
    lab.host.ip(&format!("rule add from 10.0.0.0/8 lookup 100 priority {PRIORITY}"))?;
    let before = routing(&lab.host)?;
    let said = refusal(&lab)?;
    assert!(said.contains("from 10.0.0.0/8 lookup 100") && said.contains("mhebpf's rules"), "{said}");
    assert_eq!(routing(&lab.host)?, before);
    lab.host.ip(&format!("rule delete priority {PRIORITY}"))?;
    let table = table(&lab, 1)?;
    lab.host.ip(&format!("route add 10.0.0.0/8 dev eth2_int table {table}"))?;
    let before = routing(&lab.host)?;
    let said = refusal(&lab)?;
    assert!(said.contains(&format!("10.0.0.0/8 table {table}")) && said.contains("eth1_int"), "{said}");
    assert_eq!(routing(&lab.host)?, before);
    lab.finish()
}

#[test]
fn nothing_is_steered_before_the_table_local() -> Result<()> {
    let lab = lab()?;
    // As the kernel's documentation of VRFs recommends.
    lab.host.ip_batch("rule add priority 32765 lookup local\nrule delete priority 0")?;
    let before = routing(&lab.host)?;
    let said = refusal(&lab)?;
    assert!(said.contains("from all lookup local` of IPv4 has the priority 32765"), "{said}");
    assert_eq!(routing(&lab.host)?, before);
    lab.host.ip_batch("rule add priority 0 lookup local\nrule delete priority 32765")?;

    let daemon = steering(&lab)?;
    let kept = ours(&lab.host)?;
    lab.host.ip_batch("rule add priority 32765 lookup local\nrule delete priority 0")?;
    daemon.wait_for_line("nothing is steered in this family", PATIENCE)?;
    wait_until("no rules of IPv4", PATIENCE, || {
        let ours = ours(&lab.host)?;
        let of_ipv4 = ours.iter().any(|line| line.contains("192.168."));
        Ok((!of_ipv4 && ours.iter().any(|line| line.contains("2001:db8::"))).then_some(()))
    })?;
    lab.host.ip("rule add priority 0 lookup local")?;
    wait_until("all to be back", PATIENCE, || Ok((ours(&lab.host)? == kept).then_some(())))?;
    daemon.stop()?;
    lab.finish()
}

#[test]
fn somebody_else_who_comes_later_is_told_of_and_left_alone() -> Result<()> {
    let lab = lab()?;
    let daemon = steering(&lab)?;
    lab.host.ip(&format!("rule add from 10.0.0.0/8 lookup 100 priority {PRIORITY}"))?;
    daemon.wait_for_line("from 10.0.0.0/8 lookup 100", PATIENCE)?;
    let table = table(&lab, 1)?;
    lab.host.ip(&format!("route add 10.0.0.0/8 dev eth2_int table {table}"))?;
    daemon.wait_for_line("somebody else's route is in its table", PATIENCE)?;
    wait_until("the interface not to be steered", PATIENCE, || {
        let ours = ours(&lab.host)?;
        Ok(ours.iter().all(|line| !line.contains(&table.to_string())).then_some(()))
    })?;
    daemon.stop()?;
    assert_eq!(ours(&lab.host)?, [""; 0]);
    assert!(routing(&lab.host)?.contains(&format!("10.0.0.0/8 dev eth2_int table {table}")));
    assert!(routing(&lab.host)?.contains(&format!("{PRIORITY}:\tfrom 10.0.0.0/8 lookup 100")));
    lab.finish()
}

#[test]
fn rules_that_somebody_removes_are_put_back() -> Result<()> {
    let lab = lab()?;
    let daemon = steering(&lab)?;
    let kept = ours(&lab.host)?;
    lab.host.ip(&format!("rule delete priority {PRIORITY}"))?;
    daemon.wait_for_line("ManageForeignRoutingPolicyRules", PATIENCE)?;
    wait_until("the rule to be back", PATIENCE, || Ok((ours(&lab.host)? == kept).then_some(())))?;
    lab.host.ip(&format!("-6 rule delete priority {PRIORITY}"))?;
    lab.host.ip(&format!("route flush table {}", table(&lab, 1)?))?;
    wait_until("all to be back", PATIENCE, || Ok((ours(&lab.host)? == kept).then_some(())))?;
    daemon.stop()?;
    lab.finish()
}

/// A configuration file that goes with its test.
struct File(PathBuf);

impl File {
    fn new(contents: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("mhebpf-steering-{}.toml", process::id()));
        fs::write(&path, contents)?;
        Ok(Self(path))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // What is gone needs no removal.
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn a_reload_turns_it_on_and_off() -> Result<()> {
    let lab = lab()?;
    let before = routing(&lab.host)?;
    let settings =
        |steer, mode| format!("interfaces = [\"{INTERFACES}\"]\nsteer = \"{steer}\"\nmode = \"{mode}\"");
    let file = File::new(&settings("none", "redirect"))?;
    let path = file.0.display().to_string();
    let daemon = lab.run_mhebpf(&["run", "--config", &path])?;
    assert_eq!(routing(&lab.host)?, before);
    for off in [settings("none", "redirect"), settings("rules", "observe")] {
        fs::write(&file.0, settings("rules", "redirect"))?;
        daemon.reload()?;
        wait_until("the rules", PATIENCE, || Ok((ours(&lab.host)?.len() == 28).then_some(())))?;
        fs::write(&file.0, off)?;
        daemon.reload()?;
        wait_until("no rules", PATIENCE, || Ok((routing(&lab.host)? == before).then_some(())))?;
    }
    daemon.stop()?;
    lab.finish()
}

#[test]
fn observing_keeps_nothing_and_says_what_would_be_kept() -> Result<()> {
    let lab = lab()?;
    let before = routing(&lab.host)?;
    let daemon = lab.mhebpf(&["--steer", "rules", "--mode", "observe"])?;
    assert_eq!(routing(&lab.host)?, before);
    daemon.wait_for_line("8 rules and 4 tables with 20 routes would be kept", PATIENCE)?;
    daemon.stop()?;
    assert_eq!(routing(&lab.host)?, before);
    lab.finish()
}
