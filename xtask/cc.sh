#!/bin/sh
# Links host programs with the machine's `cc`.
#
# A fresh machine has none, and then not even `cargo xtask setup` could be built, which installs everything else.
# Therefore linking xtask, and nothing else, installs it.
set -eu

command -v cc >/dev/null 2>&1 && exec cc "$@"

fail() {
    echo "there is no C compiler to link with: $*" >&2
    exit 1
}

[ "${CARGO_PKG_NAME-}" = xtask ] || fail "run \`cargo xtask setup\`"
command -v apt-get >/dev/null 2>&1 || fail "install gcc and the development files of the C library"
as_root=
[ "$(id -u)" -eq 0 ] || as_root=sudo

# cargo repeats what a linker says with every build, so this keeps quiet where all is well. There may be no terminal.
terminal() {
    { echo "setup: $*" >/dev/tty; } 2>/dev/null || true
}

quietly() {
    said=$("$@" 2>&1) || { echo "$said" >&2; return 1; }
}

install() {
    quietly $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q --yes --no-install-recommends gcc libc6-dev
}

terminal "installing a C compiler to link with: apt-get install gcc libc6-dev"
ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1 || quietly $as_root apt-get update -q || true
install 2>/dev/null || { quietly $as_root apt-get update -q && install; } ||
    fail "run \`apt-get update && apt-get install gcc libc6-dev\`"
terminal "installing a C compiler to link with: done"
exec cc "$@"
