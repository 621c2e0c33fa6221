#!/bin/sh
# Install what the demo and the live tests need from this host: runc, and a busybox that runs in an empty root
# filesystem, that is a static one.
set -eu
cd "$(dirname "$0")/.."
. tools/setup-common.sh

# ldd succeeds for programs that need shared libraries only.
static_busybox() { [ -x /bin/busybox ] && ! ldd /bin/busybox >/dev/null 2>&1; }

# Debian has runc where only root's $PATH leads to.
PATH=$PATH:/usr/sbin

missing=
command -v runc >/dev/null || missing="$missing runc"
static_busybox || missing="$missing busybox-static"
[ -z "$missing" ] || install_packages $missing
