//! The kernels of the matrix: Debian's builds for virtual machines, pinned by version and checksum.

/// A kernel, as Debian packages it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel {
    /// What it is called here, and what the names of its packages begin with behind their prefix.
    pub(crate) series: &'static str,
    /// The suite of Debian that has it.
    pub(crate) suite: &'static str,
    /// The middle of the packages' names.
    pub(crate) abi: &'static str,
    /// The version of all its packages.
    pub(crate) version: &'static str,
    pub(crate) packages: &'static [Package],
}

/// One package of a kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Package {
    pub(crate) prefix: &'static str,
    pub(crate) sha256: &'static str,
}

/// The end of the packages' names: a kernel for virtual machines, with few drivers.
pub(crate) const FLAVOUR: &str = "-cloud-amd64";

/// The oldest kernel that mhebpf supports, the long-term ones that distributions run, and the newest.
///
/// Where a pinned version has left its suite, the newest of the series is taken instead. Pin that one then.
pub(crate) const KERNELS: [Kernel; 5] = [
    Kernel {
        series: "5.10",
        suite: "bullseye-security",
        abi: "5.10.0-46",
        version: "5.10.262-1",
        packages: &[Package {
            prefix: "linux-image-",
            sha256: "18d94781d1b3052e21967ac2262239e5f14fbf511d6c3e110629d7aa35340760",
        }],
    },
    Kernel {
        series: "6.1",
        suite: "bookworm-security",
        abi: "6.1.0-56",
        version: "6.1.192-2",
        packages: &[Package {
            prefix: "linux-image-",
            sha256: "e7d02b943971edcb8790e256c02cfab3bca6c3d37c1bf25392a57c71300615ee",
        }],
    },
    Kernel {
        series: "6.12",
        suite: "bookworm-security",
        abi: "6.12.117+deb12",
        version: "6.12.117-1~deb12u1",
        packages: &[Package {
            prefix: "linux-image-",
            sha256: "5195b288dec79e2981d6b84457f38b7ce7310a2d702930ec7d07209c7f78ce37",
        }],
    },
    Kernel {
        series: "6.18",
        suite: "trixie-backports",
        abi: "6.18.15+deb13",
        version: "6.18.15-1~bpo13+1",
        packages: &[Package {
            prefix: "linux-image-",
            sha256: "5a507681ea8c978d02265a7fec2f02c9588fb48b54b7f71edc1059e86007f3ec",
        }],
    },
    // From 6.19 on the image is a package that only depends on others.
    Kernel {
        series: "7.3",
        suite: "trixie-backports",
        abi: "7.3.4+deb13",
        version: "7.3.4-1~bpo13+1",
        packages: &[
            Package {
                prefix: "linux-binary-",
                sha256: "c4fbc8e404958693b28825474c20742d70594d65ca58aea7be6a279c81eb6fa0",
            },
            Package {
                prefix: "linux-modules-",
                sha256: "359f04c363b7d3c5f9ce999ccb7351e00cc8eec0a30d6bc1cda37734987fc43d",
            },
            Package {
                prefix: "linux-base-",
                sha256: "e08baa43706ba6e8daff58029b039f46beecfb3b3750c6fa0d6d5ca508a46a43",
            },
        ],
    },
];

/// The round that `cargo xtask test` makes: the oldest kernel, the last long-term one without TCX, and the first with it,
/// each with the test files in which it has the greatest part.
pub(crate) const SHORT_ROUND: [(&str, &[&str]); 3] = [
    ("5.10", &["tunnels"]),
    ("6.1", &["clsact_hook"]),
    ("6.12", &["device_kinds", "ipvs", "vrf", "wireguard", "xfrm_interfaces"]),
];

impl Kernel {
    /// Finds a kernel of the matrix by its series.
    pub(crate) fn find(series: &str) -> Option<Self> {
        KERNELS.into_iter().find(|kernel| kernel.series == series)
    }

    /// Lists the series of the matrix for messages.
    pub(crate) fn all_series() -> String {
        KERNELS.map(|kernel| kernel.series).join(", ")
    }
}

impl Package {
    /// Returns the package's name for one build of the kernel.
    pub(crate) fn name(&self, abi: &str) -> String {
        format!("{}{abi}{FLAVOUR}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kernel_is_pinned_within_its_series_by_checksums_of_256_bits() {
        for kernel in KERNELS {
            let behind = kernel.abi.strip_prefix(kernel.series);
            assert!(behind.is_some_and(|rest| rest.starts_with('.')), "{kernel:?}");
            assert!(kernel.version.starts_with(kernel.series), "{kernel:?}");
            for package in kernel.packages {
                let is_hexadecimal = package.sha256.chars().all(|c| c.is_ascii_hexdigit());
                assert!(package.sha256.len() == 64 && is_hexadecimal, "{package:?}");
            }
        }
    }

    #[test]
    fn the_short_round_is_a_part_of_the_matrix() {
        assert!(SHORT_ROUND.iter().all(|(series, _)| Kernel::find(series).is_some()));
        assert!(Kernel::find("2.4").is_none());
    }
}
