//! `mhebpf explain` beside a running daemon: it is the live maps that answer.

use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result, ensure};
use aya::{
    maps::{Map, MapData, MapInfo},
    programs::loaded_programs,
};
use mhebpf_tests::{
    Daemon, Lab, PEER,
    features::{self, Feature},
    tcx,
};
use serde_json::Value;

use crate::{
    SCHEMA,
    inspection::{self, document, mhebpf},
};

fn explain(lab: &Lab, words: &str) -> Result<Value> {
    let words: Vec<&str> = ["explain", "-o", "json"].into_iter().chain(words.split(' ')).collect();
    let printed = mhebpf(&lab.host, &words)?;
    ensure!(printed.status == Some(0) && printed.stderr.is_empty(), "{printed:?}");
    document(&printed, SCHEMA)
}

/// What became of it, by which source, and what is said about maps that are behind.
fn said(document: &Value) -> (&str, &str, Vec<String>) {
    let word = |value: &Value, key: &str| value[key].as_str().unwrap_or("?").to_owned();
    let differences = document["differences"].as_array().into_iter().flatten();
    let differences = differences.map(|each| ["of", "maps", "host"].map(|key| word(each, key)).join(": "));
    let action = document["verdict"]["action"].as_str().unwrap_or_default();
    (action, document["source"].as_str().unwrap_or_default(), differences.collect())
}

/// A map of the program that leaves packets on an interface.
fn map_of(lab: &Lab, interface: &str, name: &str) -> Result<MapData> {
    let own = *tcx::programs(&lab.host, interface, tcx::Hook::Egress)?.first().context("a program")?;
    for program in loaded_programs() {
        let program = program?;
        if program.id() != own {
            continue;
        }
        for id in program.map_ids()?.context("a kernel that tells the maps of a program")? {
            if MapInfo::from_id(id)?.name_as_str() == Some(name) {
                return Ok(MapData::from_id(id)?);
            }
        }
    }
    anyhow::bail!("no map {name}")
}

#[test]
fn an_entry_that_somebody_has_removed_is_missed() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    if !features::require(Feature::Tcx)? {
        return lab.finish();
    }
    let daemon = lab.mhebpf_quietly(&[])?;
    let question = format!("--egress eth0_int --src {} --dst {PEER}", lab.address(1));
    assert_eq!(said(&explain(&lab, &question)?), ("redirect", "daemon", Vec::new()));

    let owners = map_of(&lab, "eth0_int", "OWNERS")?;
    let mut owners: aya::maps::HashMap<MapData, [u8; 8], [u8; 32]> = Map::HashMap(owners).try_into()?;
    let mut key = [0; 8];
    key[4..].copy_from_slice(&lab.address(1).octets());
    owners.remove(&key)?;
    // What leaves now is nobody's to judge.
    lab.release(1, lab.address(1), std::time::Duration::ZERO);
    let behind = format!("the owners of {}: none: eth1_int", lab.address(1));
    assert_eq!(said(&explain(&lab, &question)?), ("pass", "daemon", vec![behind]));
    let text =
        mhebpf(&lab.host, &[&["explain"], &question.split(' ').collect::<Vec<_>>()[..]].concat())?.stdout;
    assert!(text.contains("not in step with the host"), "{text}");
    inspection::assert_fits(&text);

    // What would be if the maps were right is a question about the host.
    assert_eq!(
        said(&explain(&lab, &format!("{question} --mode redirect"))?),
        ("redirect", "host", Vec::new())
    );
    daemon.stop()?;
    assert_eq!(said(&explain(&lab, &question)?), ("redirect", "host", Vec::new()));
    lab.finish()
}

#[test]
fn the_policy_is_the_one_that_is_in_force() -> Result<()> {
    let lab = Lab::builder().links(3).ipv6().build()?;
    lab.host.ip("route add local 10.5.0.0/16 dev eth1_int")?;
    let file = std::env::temp_dir().join(format!("mhebpf-explain-live-{}.toml", std::process::id()));
    std::fs::write(
        &file,
        "interfaces = [\"eth0_int\", \"eth1_int\"]\nmode = \"drop\"\n[[interface]]\nname = \"eth1_int\"\n\
         receive = \"off\"\nallow = [\"192.168.0.100\"]\n",
    )?;
    let daemon = lab.run_mhebpf(&["run", "--config", file.to_str().context("a path")?, "--no-announce"])?;
    std::fs::remove_file(&file)?;
    let (own, other) = (lab.address(0), lab.address(1));
    for (words, expected) in [
        (format!("--egress eth0_int --src {other} --dst {PEER}"), "drop"),
        (format!("--egress eth0_int --src 10.5.1.1 --dst {PEER}"), "drop"),
        (format!("--egress eth1_int --src {own} --dst {PEER}"), "pass"),
        (format!("--ingress eth1_int --src {PEER} --dst {own}"), "pass"),
        (format!("--ingress eth0_int --src {PEER} --dst {other}"), "drop"),
        (format!("--arp request --egress eth0_int --sender {other} --target {PEER}"), "rewrite-sender"),
        (format!("--ndp advertisement --egress eth0_int --target {}", lab.address6(1)), "drop"),
        (format!("--egress eth2_int --src {own} --dst {PEER}"), "pass"),
    ] {
        assert_eq!(said(&explain(&lab, &words)?), (expected, "daemon", Vec::new()), "{words}");
    }
    daemon.stop()?;
    lab.finish()
}

#[test]
fn who_may_not_ask_the_daemon_gets_the_host_and_a_note() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.mhebpf_quietly(&[])?;
    let question = format!("explain -o json --egress eth0_int --src {} --dst {PEER}", lab.address(1));
    let mut command = Daemon::command(&lab.host)?;
    command.args(question.split(' '));
    // SAFETY: the system call takes no pointers, and nothing is allocated.
    unsafe {
        command.pre_exec(|| match libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    let output = command.output()?;
    let printed = inspection::Printed {
        status: output.status.code(),
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    };
    assert_eq!(said(&document(&printed, SCHEMA)?), ("redirect", "host", Vec::new()));
    assert!(
        printed.stderr.contains("only root") && printed.stderr.contains("the host as it is now"),
        "{printed:?}"
    );
    daemon.stop()?;
    lab.finish()
}

#[test]
fn a_daemon_that_is_stopped_is_not_waited_for_long() -> Result<()> {
    let lab = Lab::builder().links(2).build()?;
    let daemon = lab.mhebpf_quietly(&[])?;
    daemon.pause()?;
    let question = format!("explain -o json --egress eth0_int --src {} --dst {PEER}", lab.address(1));
    let printed = mhebpf(&lab.host, &question.split(' ').collect::<Vec<_>>())?;
    daemon.resume()?;
    assert_eq!(said(&document(&printed, SCHEMA)?), ("redirect", "host", Vec::new()));
    assert!(printed.stderr.contains("does not answer"), "{printed:?}");
    daemon.stop()?;
    lab.finish()
}
