#!/bin/sh
# The peer that is a shell script: creates, starts, waits for and deletes containers with bare runc.
#
# Reads lines "1 COUNT cycle ROOT BUNDLE" and answers each with "WALL 0". The end of the pipe tells that the container's
# process has closed it, which happens a moment before runc takes the container for stopped.
number=0
while read -r _ count _ root bundle; do
    begin=$(date +%s%N)
    while [ "$count" -gt 0 ]; do
        id=sh$$-$number
        { runc --root "$root" create --bundle "$bundle" "$id" </dev/null && runc --root "$root" start "$id"; } 2>&1 | cat
        until runc --root "$root" delete "$id" 2>/dev/null; do :; done
        number=$((number + 1)) count=$((count - 1))
    done
    echo "$(($(date +%s%N) - begin))e-9 0"
done
