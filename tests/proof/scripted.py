"""A runtime that is a small shell script: it keeps containers, runs real processes, and is quick."""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING

from children import write_program

from runc_async import spec

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = "program"
"""A file in a bundle: the shell script that the container runs, as its config.json isn't read."""

STATE = {"ociVersion": "1.0.2", "id": "%s", "pid": 0, "status": "running", "bundle": "/b", "rootfs": "/b/rootfs"}
STATS = {"type": "stats", "id": "web", "data": {"cpu": {"usage": {"total": 7}}}}

ANSWERS = {
    "list": json.dumps([STATE]),
    "pslist": "[1, 2, 3]",
    "ps": "UID PID CMD\nroot 1 sleep 1000",
    "stats": json.dumps(STATS),
    "features": json.dumps({"ociVersionMin": "1.0.0", "ociVersionMax": "1.2.0"}),
    "version": "runc version 1.1.5\nspec: 1.0.2",
    "spec": spec.Spec.default().encode().decode(),
}

SCRIPT = r"""#!/bin/sh
command= id= root= pid_file= bundle= socket= detached= format= once= pid= stopped=
while [ $# -gt 0 ]; do
    case $1 in
        --root) root=$2; shift ;;
        --pid-file) pid_file=$2; shift ;;
        --bundle) bundle=$2; shift ;;
        --console-socket) socket=$2; shift ;;
        --format) format=$2; shift ;;
        --log | --log-format | --process | --resources | --image-path | --work-path | --interval | --env) shift ;;
        --detach) detached=yes ;;
        --stats) once=yes ;;
        --version) command=version ;;
        --) id=$2; shift 2; break ;;
        --*) ;;
        *) command=$1 ;;
    esac
    shift
done
box=$root/$id

# Start a process with our stdin, which the shell would take away from it, and tell its pid.
begin() {
    if [ "$socket" ]; then
        pid=$(%(python)s -IS %(sender)s "$socket" "$@")
    else
        free=9
        while [ -e /proc/$$/fd/$free ]; do free=$((free - 1)); done
        eval "exec $free<&0"
        eval '"$@" <&'"$free $free<&- &"
        pid=$!
        eval "exec $free<&-"
    fi
    [ -z "$pid_file" ] || printf %%s $pid >"$pid_file"
    [ -z "$stopped" ] || kill -TERM $pid
}

# Wait for it, and hand on SIGTERM.
finish() {
    code=0
    while wait $pid; code=$?; kill -0 $pid 2>&-; do :; done
}

# Read the pid of the container's process, if it has got so far.
read_pid() {
    if [ -s "$box/state.json" ]; then
        IFS=:} read -r _ _ pid _ <"$box/state.json"
    fi
}

container() {
    mkdir "$box" || exit 1
    trap : TERM
    begin /bin/sh "$bundle/program"
    start=$(cut -d ' ' -f 22 /proc/$pid/stat) || start=0 # it may have ended already
    printf '{"init_process_start":%%s,"init_process_pid":%%s}' $start $pid >"$box/state.json"
}

case $command in
    create) container ;;
    run | restore)
        if [ "$detached" ]; then
            container
        else
            trap 'stopped=yes; [ -z "$pid" ] || kill -TERM $pid' TERM
            mkdir "$box" || exit 1
            begin /bin/sh "$bundle/program"
            finish
            rm -r "$box"
            exit $code
        fi ;;
    exec)
        trap 'stopped=yes; [ -z "$pid" ] || kill -TERM $pid' TERM
        [ $# -gt 0 ] || set true
        begin "$@"
        [ "$detached" ] || { finish; exit $code; } ;;
    delete)
        if [ -d "$box" ]; then
            read_pid
            if [ "$pid" ]; then
                kill -KILL $pid 2>&-
                while [ -e /proc/$pid/exe ]; do :; done
            fi
            rm -r "$box"
        fi ;;
    kill)
        read_pid
        kill -$1 $pid 2>&- || : ;;
    state)
        read_pid
        printf '{"ociVersion":"1.0.2","id":"%%s","pid":%%s,"status":"running","bundle":"/b"}' "$id" $pid ;;
    list) printf %%s %(list)s ;;
    ps) if [ "$format" = json ]; then printf %%s %(pslist)s; else printf %%s %(ps)s; fi ;;
    events)
        echo %(stats)s
        [ "$once" ] || while :; do sleep 0.01; echo %(stats)s; done ;;
    features) printf %%s %(features)s ;;
    version) echo %(version)s ;;
    spec) printf %%s %(spec)s >"$bundle/config.json" ;;
esac
"""

SENDER = """\
import array, os, socket, sys
path, *argv = sys.argv[1:]
ours, theirs = os.openpty()
pid = os.fork()
if not pid:
    os.setsid()
    for fd in range(3):
        os.dup2(theirs, fd)
    os.execvp(argv[0], argv)
peer = socket.socket(socket.AF_UNIX)
peer.connect(path)
peer.sendmsg([b"/dev/ptmx"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [ours]))])
print(pid)
"""


def write_runtime(directory: Path) -> str:
    """Write the runtime into a directory, and return its path."""
    sender = directory / "sender.py"
    sender.write_text(SENDER)
    words = {name: shlex.quote(answer) for name, answer in ANSWERS.items()}
    return write_program(
        directory / "runtime",
        SCRIPT % {**words, "python": shlex.quote(sys.executable), "sender": shlex.quote(str(sender))},
    )


def write_bundle(directory: Path, script: str) -> Path:
    """Write a bundle whose container runs a script of the shell's."""
    (directory / "rootfs").mkdir(parents=True)
    (directory / "config.json").write_bytes(spec.Spec.default().encode())
    (directory / PROGRAM).write_text(script)
    return directory
