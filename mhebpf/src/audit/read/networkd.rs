//! What systemd-networkd does to what it has not made.

use std::{collections::BTreeMap, fs, path::Path};

use crate::audit::snapshot::Networkd;

/// Where networkd.conf and its drop-ins can be. A file hides one of the same name further down (systemd.unit(5) calls them
/// the configuration directories).
const DIRECTORIES: [&str; 4] = ["etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd"];

/// How it is set up; `None` where it does not run, or in another network namespace: it is taken for being in that of process 1.
pub(super) fn read() -> Option<Networkd> {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
    let elsewhere = namespace("1").is_some_and(|of_init| Some(of_init) != namespace("self"));
    if elsewhere { None } else { settings(Path::new("/")) }
}

/// The same under a root directory, where it has left its state if it runs.
fn settings(root: &Path) -> Option<Networkd> {
    root.join("run/systemd/netif/state").exists().then(|| {
        let mut settings = Networkd { removes_rules: true, removes_routes: true };
        files(root).iter().for_each(|text| apply(text, &mut settings));
        settings
    })
}

/// The texts in the order in which they count: networkd.conf, then the drop-ins by their names.
fn files(root: &Path) -> Vec<String> {
    let main = DIRECTORIES.iter().find_map(|d| fs::read_to_string(root.join(d).join("networkd.conf")).ok());
    let mut dropins = BTreeMap::new();
    for directory in DIRECTORIES {
        let entries = fs::read_dir(root.join(directory).join("networkd.conf.d"));
        for entry in entries.into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "conf") {
                dropins
                    .entry(entry.file_name())
                    .or_insert_with(|| fs::read_to_string(entry.path()).unwrap_or_default());
            }
        }
    }
    main.into_iter().chain(dropins.into_values()).collect()
}

fn apply(text: &str, settings: &mut Networkd) {
    let mut section = "";
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
        }
        let Some((key, value)) = line.split_once('=').filter(|_| section == "Network") else { continue };
        let setting = match key.trim() {
            "ManageForeignRoutingPolicyRules" => &mut settings.removes_rules,
            "ManageForeignRoutes" => &mut settings.removes_routes,
            _ => continue,
        };
        match value.trim().to_ascii_lowercase().as_str() {
            "no" | "n" | "false" | "f" | "off" | "0" => *setting = false,
            // An empty one is that by default.
            "yes" | "y" | "true" | "t" | "on" | "1" | "" => *setting = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_settings_are_found_where_they_count() {
        let root = std::env::temp_dir().join(format!("mhebpf-networkd-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            fs::write(path, text).expect("a file");
        };
        write("etc/hosts", "");
        assert_eq!(settings(&root), None);
        write("run/systemd/netif/state", "");
        assert_eq!(settings(&root), Some(Networkd { removes_rules: true, removes_routes: true }));
        write("usr/lib/systemd/networkd.conf", "[Network]\nManageForeignRoutes=no\n");
        write(
            "etc/systemd/networkd.conf",
            "[DHCPv4]\nManageForeignRoutes=no\n[Network]\n#ManageForeignRoutes=no\n",
        );
        write(
            "usr/lib/systemd/networkd.conf.d/10-a.conf",
            "[Network]\nManageForeignRoutingPolicyRules = No\n",
        );
        assert_eq!(settings(&root), Some(Networkd { removes_rules: false, removes_routes: true }));
        write("etc/systemd/networkd.conf.d/10-a.conf", "");
        write("etc/systemd/networkd.conf.d/20-b.conf", "[Network]\nManageForeignRoutes=false\n");
        assert_eq!(settings(&root), Some(Networkd { removes_rules: true, removes_routes: false }));
        fs::remove_dir_all(&root).expect("it is there");
    }
}
