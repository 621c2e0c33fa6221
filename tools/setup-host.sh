#!/bin/sh
# Install what the demo needs from this host: runc, and a busybox and an init that run in an empty root filesystem, that
# is static ones. With the argument `test` also what the live tests call: ps, what makes bundles of images, and a browser.
set -eu
cd "$(dirname "$0")/.."
. tools/setup-common.sh

# ldd succeeds for programs that need shared libraries only.
static_busybox() { [ -x /bin/busybox ] && ! ldd /bin/busybox >/dev/null 2>&1; }

# Debian has runc where only root's $PATH leads to.
PATH=$PATH:/usr/sbin

missing=
need() { command -v "$1" >/dev/null || missing="$missing $2"; }

need runc runc
static_busybox || missing="$missing busybox-static"
command -v tini-static >/dev/null || command -v catatonit >/dev/null || missing="$missing tini"
if [ "${1:-}" = test ]; then
    need ps procps
    need skopeo skopeo
    need umoci umoci
    need conmon conmon
    need slirp4netns slirp4netns
fi
[ -z "$missing" ] || install_packages $missing

# It is large, and only two tests need it: they are skipped where it can't be had.
if [ "${1:-}" = test ]; then
    missing=
    need chromium chromium
    need chromedriver chromium-driver
    [ -z "$missing" ] || (install_packages $missing) || say "the tests of a page in a browser will be skipped"
fi
