//! The configuration file.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Read as _},
    net::{IpAddr, SocketAddr},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use glob::Pattern;
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};

use crate::{
    cli::{
        AnnouncePolicy, ForwardedPolicy, LogFormat, Mode, ReceivePolicy, SendPolicy, Steer, UnknownPolicy,
        parse_address, parse_duration, parse_pattern,
    },
    datapath::Hook,
    pins::DEFAULT_DIRECTORY,
};

/// Where it is looked for when nobody says.
pub const DEFAULT_PATH: &str = "/etc/mhebpf.toml";

/// The contents of a configuration file: defaults, and tables for some interfaces.
///
/// Each key of the first level is an option of `mhebpf run` too, which counts more.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Enforce on every uplink.
    pub all: Option<bool>,
    /// `--downlinks`
    pub downlinks: Option<bool>,
    /// Enforce on interfaces with such names.
    pub interfaces: Option<Vec<Glob>>,
    /// `--mode`
    pub mode: Option<Mode>,
    /// `--receive`
    pub receive: Option<ReceivePolicy>,
    /// `--announce`
    pub announce: Option<AnnouncePolicy>,
    /// `--unknown`
    pub unknown: Option<UnknownPolicy>,
    /// `--forwarded`
    pub forwarded: Option<ForwardedPolicy>,
    /// `--steer`
    pub steer: Option<Steer>,
    /// `--no-announce`
    pub no_announce: Option<bool>,
    /// `--for`
    #[serde(rename = "for", deserialize_with = "duration")]
    pub run_for: Option<Duration>,
    /// `--hook`
    pub hook: Option<Hook>,
    /// `--pin`
    #[serde(deserialize_with = "pin")]
    pub pin: Option<PathBuf>,
    /// `--metrics`
    #[serde(deserialize_with = "address_and_port")]
    pub metrics: Option<SocketAddr>,
    /// `--log-format`
    pub log_format: Option<LogFormat>,
    /// `--verbose`: how often.
    pub verbose: Option<u8>,
    /// What is different on some interfaces. Where several tables match, the last that says something counts;
    /// what they allow adds up.
    pub interface: Vec<InterfaceTable>,
}

/// What is different on the interfaces whose name matches.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InterfaceTable {
    /// The names.
    pub name: Glob,
    /// What happens to a packet with another interface's source.
    pub send: Option<SendPolicy>,
    /// What happens to a datagram for another interface's address.
    pub receive: Option<ReceivePolicy>,
    /// Whether ARP and NDP are held to the interface's own addresses.
    pub announce: Option<AnnouncePolicy>,
    /// What happens to a packet of local origin with a foreign source.
    pub unknown: Option<UnknownPolicy>,
    /// What happens to a packet that is forwarded with another interface's source.
    pub forwarded: Option<ForwardedPolicy>,
    /// Prefixes in which the interface is an owner too.
    #[serde(default)]
    pub allow: Vec<IpNetOrAddress>,
    /// Prefixes that no interface has, and that belong to this one.
    #[serde(default)]
    pub owns: Vec<IpNetOrAddress>,
}

/// A pattern of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(pub Pattern);

impl<'de> Deserialize<'de> for Glob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_pattern(&text).map(Self).map_err(|error| de::Error::custom(format!("`{text}`: {error}")))
    }
}

/// A prefix, or one address as a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpNetOrAddress(pub IpNet);

impl<'de> Deserialize<'de> for IpNetOrAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        net.map(|net| Self(net.trunc())).map_err(|_| {
            de::Error::custom(format!(
                "`{text}` is no prefix, such as \"203.0.113.0/24\" or \"2001:db8::/32\""
            ))
        })
    }
}

/// A directory, or `true` for the default one.
fn pin<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "say `true`, or a directory in a BPF file system")]
    enum Pin {
        Is(bool),
        In(PathBuf),
    }
    Ok(match Pin::deserialize(deserializer)? {
        Pin::Is(is) => is.then(|| DEFAULT_DIRECTORY.into()),
        Pin::In(directory) => Some(directory),
    })
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map(Some).map_err(|error| de::Error::custom(format!("`{text}`: {error}")))
}

fn address_and_port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_address(&text).map(Some).map_err(|error| de::Error::custom(format!("`{text}`: {error}")))
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// When it can't be read or understood; the message names the line and the key.
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            text(path).with_context(|| format!("reading the configuration file {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("the configuration file {}", path.display()))
    }

    /// Understands the text of a file.
    ///
    /// # Errors
    ///
    /// As [`Config::read`].
    pub fn parse(text: &str) -> Result<Self> {
        let config: Self = toml::from_str(text)?;
        if config.all == Some(true) && config.interfaces.is_some() {
            bail!("the keys `all` and `interfaces` exclude each other: leave one out");
        }
        if config.interfaces.as_ref().is_some_and(Vec::is_empty) {
            bail!("the key `interfaces` names none: say at least one pattern, or leave it out");
        }
        Ok(config)
    }
}

/// How large a configuration file may be, in bytes.
const SIZE: u64 = 1 << 20;

/// Reads a file without waiting: a pipe may never say anything, and a device never end.
fn text(path: &Path) -> io::Result<String> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    // /dev/null is an empty file, for those who want that of the host not to be read.
    let is_null = metadata.file_type().is_char_device() && metadata.rdev() == libc::makedev(1, 3);
    if !metadata.is_file() && !is_null {
        return Err(io::Error::other("it is no regular file: copy what it says into one"));
    }
    let mut text = String::new();
    file.take(SIZE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > SIZE {
        return Err(io::Error::other(
            "it is larger than 1 MiB, which no configuration is: is it the right file?",
        ));
    }
    Ok(text)
}

/// Which file is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The one that was named: it must be there.
    Named(PathBuf),
    /// [`DEFAULT_PATH`], if it is there.
    Default,
}

impl Source {
    /// Reads the file; `None` when there is none and none was asked for.
    ///
    /// # Errors
    ///
    /// As [`Config::read`].
    pub fn read(&self) -> Result<Option<Config>> {
        match self {
            Self::Named(path) => Config::read(path).map(Some),
            Self::Default => match fs::metadata(DEFAULT_PATH) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                _ => Config::read(Path::new(DEFAULT_PATH)).map(Some),
            },
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(path) => path.display().fmt(f),
            Self::Default => f.write_str(DEFAULT_PATH),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"
        interfaces = ["eth*"]
        mode = "drop"
        for = "10m"
        steer = "rules"
        no-announce = true

        [[interface]]
        name = "eth0"
        receive = "off"
        allow = ["203.0.113.0/24", "2001:db8::1"]
    "#;

    #[test]
    fn every_key_is_read() {
        let config = Config::parse(EXAMPLE).expect("a configuration");
        assert_eq!((config.mode, config.steer), (Some(Mode::Drop), Some(Steer::Rules)));
        assert_eq!((config.run_for, config.no_announce), (Some(Duration::from_secs(600)), Some(true)));
        let table = &config.interface[0];
        assert_eq!((table.receive, table.send), (Some(ReceivePolicy::Off), None));
        let allow: Vec<String> = table.allow.iter().map(|net| net.0.to_string()).collect();
        assert_eq!(allow, ["203.0.113.0/24", "2001:db8::1/128"]);
    }

    #[test]
    fn pinning_is_a_switch_or_a_directory() {
        for (text, expected) in
            [("pin = true", Some(DEFAULT_DIRECTORY)), ("pin = false", None), ("pin = \"/x\"", Some("/x"))]
        {
            assert_eq!(Config::parse(text).expect(text).pin.as_deref(), expected.map(Path::new), "{text}");
        }
    }

    #[test]
    fn an_empty_file_says_nothing() {
        assert_eq!(Config::parse("").expect("a configuration"), Config::default());
    }

    #[test]
    fn a_mistake_is_found_by_its_line_and_key() {
        for (text, expected) in [
            ("mode = \"drop\"\nrecieve = \"off\"", ["line 2", "recieve"]),
            ("\n\nmode = \"dorp\"", ["line 3", "dorp"]),
            ("[[interface]]\nname = \"eth0\"\nallow = [\"10.0.0.0/33\"]", ["line 3", "10.0.0.0/33"]),
            ("[[interface]]\nname = \"eth0\"\nmode = \"drop\"", ["line 3", "mode"]),
            ("[[interface]]\nsend = \"drop\"", ["line 1", "name"]),
            ("interfaces = [\"eth[\"]", ["line 1", "eth["]),
            ("for = \"10d\"", ["line 1", "10d"]),
            ("all = true\ninterfaces = [\"eth0\"]", ["all", "interfaces"]),
            ("interfaces = []", ["interfaces", "none"]),
            ("mode = \"drop", ["line 1", "mode"]),
            ("pin = 3", ["line 1", "BPF file system"]),
        ] {
            let error = format!("{:#}", Config::parse(text).expect_err(text));
            assert!(expected.iter().all(|part| error.contains(part)), "{text}: {error}");
        }
    }
}
