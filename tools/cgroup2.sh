#!/bin/sh
# Run a command where cgroup v2 is all there is: in a mount namespace of its own, with the v2 hierarchy as
# /sys/fs/cgroup. Controllers that the host's v1 hierarchies hold are missing there.
set -eu
exec unshare --mount sh -c 'umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec "$0" "$@"' "$@"
