//! Where the machine gets Debian's packages from, so that others can be had from the same places.

use std::{fs, path::Path};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A place with packages, of one suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    uri: String,
    suite: String,
    signed_by: Option<String>,
}

/// The machine's places for Debian's packages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    codename: String,
    all: Vec<Source>,
}

impl Sources {
    /// Reads the configuration of apt.
    ///
    /// # Errors
    ///
    /// The distribution is not Debian, or its packages come from somewhere that apt does not know.
    pub(crate) fn of_the_machine() -> Result<Self, String> {
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let value = |key: &str| {
            let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.map(|value| value.trim_matches('"').to_owned())
        };
        let codename = value("VERSION_CODENAME").filter(|_| value("ID").as_deref() == Some("debian"));
        let codename = codename.ok_or("the kernels come from Debian's packages, and this is not Debian")?;
        let mut all = read("/etc/apt/sources.list".as_ref());
        let parts = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
        all.extend(parts.flat_map(|part| read(&part.path())));
        let sources = Self { codename, all };
        if sources.own().next().is_none() {
            return Err(format!("apt has no source for {} in /etc/apt", sources.codename));
        }
        Ok(sources)
    }

    /// Returns the lines of a `sources.list` for the machine's own suites.
    pub(crate) fn own_lines(&self) -> Vec<String> {
        self.own().map(|source| source.line(&source.suite)).collect()
    }

    /// Returns the line of a `sources.list` for another suite, from the same place.
    ///
    /// # Errors
    ///
    /// The machine has no source of that kind.
    pub(crate) fn line_for(&self, suite: &str) -> Result<String, String> {
        let is_security = suite.ends_with("-security");
        let like = self.own().find(|source| source.suite.ends_with("-security") == is_security);
        let like = like.ok_or_else(|| {
            let kind = if is_security { "security updates" } else { "Debian" };
            format!("apt has no source of {kind} in /etc/apt, from which {suite} could be had as well")
        })?;
        Ok(like.line(suite))
    }

    fn own(&self) -> impl Iterator<Item = &Source> {
        let suites = ["", "-updates", "-security"].map(|kind| format!("{}{kind}", self.codename));
        self.all.iter().filter(move |source| suites.contains(&source.suite))
    }
}

impl Source {
    fn line(&self, suite: &str) -> String {
        format!("deb [signed-by={}] {} {suite} main", self.signed_by.as_deref().unwrap_or(KEYRING), self.uri)
    }
}

fn read(path: &Path) -> Vec<Source> {
    let text = fs::read_to_string(path).unwrap_or_default();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("list") => text.lines().flat_map(of_line).collect(),
        Some("sources") => text.split("\n\n").flat_map(of_stanza).collect(),
        _ => Vec::new(),
    }
}

/// Reads `deb [options] URI SUITE COMPONENT...`.
fn of_line(line: &str) -> Option<Source> {
    let mut rest = line.trim().strip_prefix("deb ")?.trim_start();
    let mut signed_by = None;
    if let Some(behind) = rest.strip_prefix('[') {
        let (options, behind) = behind.split_once(']')?;
        let key = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
        signed_by = key.map(str::to_owned);
        rest = behind;
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Source { uri: words.next()?, suite: words.next()?, signed_by })
}

/// Reads a stanza of `URIs:`, `Suites:` and so on, which stands for every combination of them.
fn of_stanza(stanza: &str) -> Vec<Source> {
    let value = |key: &str| {
        let lines = stanza.lines().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value.trim())
    };
    if !value("Types").unwrap_or_default().split(' ').any(|kind| kind == "deb")
        || value("Enabled") == Some("no")
    {
        return Vec::new();
    }
    // A key may also be written out here, over several lines; then the file of Debian's keys has to do.
    let signed_by = value("Signed-By").filter(|key| key.starts_with('/'));
    let suites: Vec<_> = value("Suites").unwrap_or_default().split_whitespace().collect();
    let uris = value("URIs").unwrap_or_default().split_whitespace();
    let source = |uri: &str, suite: &str| Source {
        uri: uri.to_owned(),
        suite: suite.to_owned(),
        signed_by: signed_by.map(str::to_owned),
    };
    uris.flat_map(|uri| suites.iter().map(move |suite| source(uri, suite))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(suite: &str, signed_by: Option<&str>) -> Source {
        let uri = "http://mirror.test/debian".to_owned();
        Source { uri, suite: suite.to_owned(), signed_by: signed_by.map(str::to_owned) }
    }

    #[test]
    fn both_kinds_of_configuration_are_read() {
        assert_eq!(of_line("deb http://mirror.test/debian bookworm main"), Some(source("bookworm", None)));
        assert_eq!(
            of_line("deb [arch=amd64 signed-by=/k.gpg] http://mirror.test/debian bookworm main"),
            Some(source("bookworm", Some("/k.gpg")))
        );
        assert_eq!(of_line("deb-src http://mirror.test/debian bookworm main"), None);
        assert_eq!(of_line("# deb http://mirror.test/debian bookworm main"), None);
        let stanza = "Types: deb deb-src\n# comment: x\nURIs: http://mirror.test/debian\n\
                      Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /k.gpg\n";
        assert_eq!(
            of_stanza(stanza),
            [source("bookworm", Some("/k.gpg")), source("bookworm-updates", Some("/k.gpg"))]
        );
        assert_eq!(of_stanza(&format!("Enabled: no\n{stanza}")), []);
    }

    #[test]
    fn another_suite_comes_from_the_place_of_its_kind() {
        let mut security = source("bookworm-security", None);
        security.uri = "http://mirror.test/security".to_owned();
        let all = vec![source("other", None), source("bookworm", Some("/k.gpg")), security];
        let sources = Sources { codename: "bookworm".to_owned(), all };
        assert_eq!(
            sources.line_for("trixie-backports").as_deref(),
            Ok("deb [signed-by=/k.gpg] http://mirror.test/debian trixie-backports main")
        );
        assert_eq!(
            sources.line_for("bullseye-security"),
            Ok(format!("deb [signed-by={KEYRING}] http://mirror.test/security bullseye-security main"))
        );
        assert_eq!(sources.own_lines().len(), 2);
    }
}
