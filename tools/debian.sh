#!/bin/sh
# Make a bare Debian in build/, and try this checkout in it: `make demo`, the unit tests, and the live tests of files that
# need no more than runc. Nothing of the tree is left afterwards, unless KEEP is set.
#
#   usage: tools/debian.sh SUITE [COMMAND...]
#
# With a command, that is run in the tree's copy of the checkout instead. $MIRROR is the archive (default: this host's own).
# The tree is entered by pivot_root(8) in a private mount namespace, since the kernel forbids user namespaces in a chroot.
set -eu
cd "$(dirname "$0")/.."
. tools/setup-common.sh

suite=$1
shift
tree=$PWD/build/debian-$suite
[ "$(id -u)" = 0 ] || fail "a tree can be made and entered by root only"
command -v mmdebstrap >/dev/null || install_packages mmdebstrap

# The first archive with Debian's own packages among apt's sources, in either of their two formats.
if [ -z "${MIRROR:-}" ]; then
    MIRROR=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Created-By: Packages' 2>/dev/null | head -n 1)
    [ -n "$MIRROR" ] || fail "no archive of Debian's is among apt's sources: set MIRROR to the address of one"
fi

remove() { rm -rf --one-file-system "$tree"; }
[ -n "${KEEP:-}" ] || trap remove EXIT INT TERM HUP

if ! [ -e "$tree/etc/debian_version" ]; then
    say "making $tree"
    remove
    mkdir -p build
    # A mirror that is behind, or a snapshot, has release files that have expired; they are signed all the same.
    mmdebstrap --quiet --variant=minbase --include=ca-certificates,git,make,python3 \
        --aptopt='Acquire::Check-Valid-Until "false"' "$suite" "$tree" "$MIRROR"
fi

# What git knows of, or would: neither .venv nor build/.
mkdir -p "$tree/src"
git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- --ignore-failed-read -c | tar -x -C "$tree/src"

[ $# -gt 0 ] || set -- sh -euc '
    make demo
    make .venv/.ready-dev
    make unit
    apt-get -qq -y --no-install-recommends install procps >/dev/null
    .venv/bin/python -m pytest -n 2 --require-runc -m runc tests/live/test_lifecycle.py tests/live/test_foreground.py \
        tests/live/test_open_container.py tests/live/test_open_exec.py tests/live/test_exit_status.py tests/live/test_events.py'

# shellcheck disable=SC2016 - for the shell inside
status=0
unshare --mount --propagation private sh -euc '
    tree=$1
    shift
    mount --bind "$tree" "$tree"
    cd "$tree"
    for place in dev proc sys; do mount --rbind "/$place" "$place"; done
    mount -t tmpfs tmpfs run
    mount -t tmpfs -o mode=1777 tmpfs tmp
    # Names of hosts, and whose certificates to trust, are the host'"'"'s own.
    for file in resolv.conf hosts ssl/certs/ca-certificates.crt; do
        [ -e "etc/$file" ] || : >"etc/$file"
        mount --bind "$(readlink -f "/etc/$file")" "etc/$file"
    done
    mkdir -p outside
    pivot_root . outside
    cd /
    umount -l /outside
    rmdir /outside
    cd /src
    exec env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
        PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_CACHE_DIR=/tmp/pip "$@"
' sh "$tree" "$@" || status=$?
say "Debian $suite: ended with status $status"
exit "$status"
