//! The modules that a guest loads, in an order in which they can be loaded.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What the tests use. A kernel may have it built in, or lack it; the tests then say what they miss.
pub(crate) const WANTED: [&str; 7] = [
    // Links and bridges: the lab itself.
    "veth bridge nlmon",
    // Traffic control, mhebpf's and that of others.
    "sch_ingress sch_htb sch_fq sch_fq_codel sch_prio cls_bpf cls_u32 cls_matchall cls_flower act_mirred act_gact",
    // Devices on top of others.
    "8021q macvlan macvtap ipvlan ipvtap bonding vrf dummy ifb netkit \
     team team_mode_activebackup team_mode_broadcast team_mode_loadbalance team_mode_random team_mode_roundrobin",
    // Tunnels.
    "tun tap vxlan geneve gre ip_gre ip6_gre ipip sit ip_tunnel ip6_tunnel wireguard",
    // Address translation.
    "nfnetlink nf_tables nf_conntrack nf_nat nft_ct nft_nat nft_masq nft_chain_nat ip_vs ip_vs_rr",
    // Sockets, as `ss` lists them.
    "inet_diag tcp_diag udp_diag",
    // IPsec, and ciphers that are asked for by name. seqiv asks for random numbers, and drbg tries out what it can
    // make them from when it is loaded.
    "xfrm_user xfrm_interface af_key xfrm4_tunnel xfrm6_tunnel tunnel4 esp4 esp6 authenc seqiv echainiv cbc ctr gcm \
     ghash-generic aes_generic hmac sha1_generic sha256_generic sha512_generic chacha20poly1305 drbg",
];

/// A module, ready to be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Module {
    pub(crate) name: String,
    pub(crate) contents: Vec<u8>,
}

/// Modules in the order of their dependencies, and the names of those that the kernel lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Modules {
    pub(crate) in_order: Vec<Module>,
    pub(crate) lacking: Vec<String>,
}

/// Collects modules and all that they depend on from a directory such as `/lib/modules/6.1.0`.
///
/// Debian's packages have no list of dependencies: that is made where they are installed.
///
/// # Errors
///
/// A module cannot be read.
pub(crate) fn collect(directory: &Path, wanted: &[&str]) -> Result<Modules, String> {
    let mut tree = Tree::new(directory);
    for name in wanted.iter().flat_map(|names| names.split_whitespace()) {
        tree.add(&canonical(name))?;
    }
    Ok(tree.modules)
}

#[derive(Debug)]
struct Tree {
    files: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
    seen: BTreeSet<String>,
    modules: Modules,
}

impl Tree {
    fn new(directory: &Path) -> Self {
        let mut files = BTreeMap::new();
        add_files(&directory.join("kernel"), &mut files);
        let builtin = fs::read_to_string(directory.join("modules.builtin")).unwrap_or_default();
        let builtin = builtin.lines().filter_map(|line| name_of(line.as_ref())).collect();
        Self { files, builtin, seen: BTreeSet::new(), modules: Modules::default() }
    }

    fn add(&mut self, name: &str) -> Result<(), String> {
        if self.builtin.contains(name) || !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(path) = self.files.get(name) else {
            self.modules.lacking.push(name.to_owned());
            return Ok(());
        };
        let contents = read(path)?;
        for dependency in dependencies(&contents) {
            self.add(&dependency)?;
        }
        self.modules.in_order.push(Module { name: name.to_owned(), contents });
        Ok(())
    }
}

fn add_files(directory: &Path, files: &mut BTreeMap<String, PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            add_files(&path, files);
        } else if let Some(name) = name_of(&path) {
            files.insert(name, path);
        }
    }
}

/// Returns the name of the module in `kernel/net/bridge/bridge.ko.xz`.
fn name_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_suffix(".ko").or_else(|| name.strip_suffix(".ko.xz"))?;
    Some(canonical(name))
}

/// Files have dashes and underscores as they please, the kernel has underscores.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    if path.extension().is_some_and(|extension| extension == "ko") {
        return fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    }
    let output = Command::new("xz").args(["--decompress", "--stdout", "--"]).arg(path).output();
    let output = output.map_err(|error| format!("starting xz, of the package xz-utils: {error}"))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(format!("xz {}: {}", path.display(), String::from_utf8_lossy(&output.stderr).trim()))
    }
}

/// Finds `depends=one,other` among the zero-terminated strings about a module.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = module[start + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let value = String::from_utf8_lossy(value);
    value.split(',').filter(|name| !name.is_empty()).map(canonical).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_first_once_and_what_is_built_in_not_at_all() {
        let directory = std::env::temp_dir().join(format!("mhebpf-xtask-modules-{}", std::process::id()));
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(directory.join("kernel/net/deep"))?;
            fs::write(directory.join("modules.builtin"), "kernel/net/in-kernel.ko\n")?;
            fs::write(directory.join("kernel/net/top.ko"), "\0license=GPL\0depends=mid-dle,in-kernel\0")?;
            fs::write(directory.join("kernel/net/deep/mid-dle.ko"), "\0depends=base\0")?;
            fs::write(directory.join("kernel/net/base.ko"), "\0depends=\0name=base\0")
        };
        assert!(write().is_ok());
        let modules = collect(&directory, &["top base", "in_kernel absent"]).unwrap_or_default();
        let names: Vec<_> = modules.in_order.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["base", "mid_dle", "top"]);
        assert_eq!(modules.lacking, ["absent"]);
        assert!(fs::remove_dir_all(&directory).is_ok());
    }

    #[test]
    fn compressed_modules_are_known_by_the_same_name() {
        assert_eq!(name_of("kernel/net/sch_ingress.ko.xz".as_ref()).as_deref(), Some("sch_ingress"));
        assert_eq!(name_of("kernel/crypto/ghash-generic.ko".as_ref()).as_deref(), Some("ghash_generic"));
        assert_eq!(name_of("kernel/crypto/Makefile".as_ref()), None);
    }
}
