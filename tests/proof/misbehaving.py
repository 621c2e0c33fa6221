"""A runtime that does what each command asks for, but for one thing that it does wrong: a small shell script.

It knows no containers. A directory under `--root` with the pid of a sleeping process stands for one, so that it can be
seen what is left of it.
"""

from __future__ import annotations

import itertools
import json
import shlex
import signal
import sys
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import sweep
from children import write_program

from runc_async import spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Effect: TypeAlias = Literal[
    "right", "crashes", "fails", "panics", "answers nonsense", "hangs", "anything", "can't be started"
]
"""What a caller has to see of a behaviour: see `promises.Table`."""

STATE = {"ociVersion": "1.0.2", "id": "web", "pid": 0, "status": "stopped", "bundle": "/b", "rootfs": "/b/rootfs"}
STATS = json.dumps({"type": "stats", "id": "web", "data": {"cpu": {"usage": {"total": 7}}}})
OOM = json.dumps({"type": "oom", "id": "web"})

ANSWERS = {
    "state": json.dumps(STATE),
    "list": json.dumps([STATE]),
    "ps": "[1, 2, 3]\n",
    "top": "UID PID CMD\nroot 1 sleep 1000\n",
    "stats": STATS + "\n",
    "events": f"{STATS}\n{OOM}\n",
    "features": json.dumps({"ociVersionMin": "1.0.0", "ociVersionMax": "1.2.0"}),
    "version": "runc version 1.1.15\nspec: 1.0.2\n",
    "spec": spec.Spec.default().encode().decode(),
}
"""What a runtime that behaves well says to each command that asks for something."""


class Behaviour(NamedTuple):
    """Something that a runtime does.

    Attributes:
        name: What it does, after the word "it".
        act: The same in the language of the shell, with the functions of `SCRIPT`.
        effect: What a caller has to see of it.
        code: The exit code with which it fails, -n for signal n.
        printed: What it prints instead of its answer.
        needs: The option without which it has no occasion to.
    """

    name: str
    act: str
    effect: Effect = "right"
    code: int = 0
    printed: bytes = b""
    needs: str = ""


SCRIPT = r"""#!/bin/sh
ulimit -c 0
command= id= root= log= pid_file= bundle= console= pidfd= detached= table= once=
while [ $# -gt 0 ]; do
    case $1 in
        --root) root=$2; shift ;;
        --log) log=$2; shift ;;
        --pid-file) pid_file=$2; shift ;;
        --bundle) bundle=$2; shift ;;
        --console-socket) console=$2; shift ;;
        --pidfd-socket) pidfd=$2; shift ;;
        --log-format | --process | --resources | --image-path | --interval | --env) shift ;;
        --format) [ "$2" = table ] && table=yes; shift ;;
        --detach) detached=yes ;;
        --stats) once=yes ;;
        --version) command=version ;;
        --) id=$2; break ;;
        --*) ;;
        *) command=$1 ;;
    esac
    shift
done
asked=$command
case $command$table$once in psyes) asked=top ;; eventsyes) asked=stats ;; esac
answer= half=
case $asked in
%(answers)s
esac
[ -z "$VERSION" ] || [ $asked != version ] || answer="runc version $VERSION"

# Start a program that lives on, and that the test ends.
keep() {
    "$@" &
    echo $! >>%(kept)s
}

# Begin with the work: half of the output, a container without its record, a process that nobody waits for.
half() {
    case $command in
        create | run | restore) mkdir -p "$root/$id"; begin; echo $! >"$root/$id/pid" ;;
        exec) begin; tell $! ;;
        spec) printf %%s "$half" >"$bundle/config.json" ;;
        *) printf %%s "$half" ;;
    esac
}

# Do the whole work.
whole() {
    case $command in
        create)
            half; tell $!; send ;;
        run | restore)
            if [ "$detached" ]; then
                half; tell $!; send
            else
                mkdir -p "$root/$id"; : & tell $!; wait $!; rmdir "$root/$id"
            fi ;;
        exec)
            if late; then begin; elif [ "$detached" ]; then keep sleep 1000; else : & fi
            tell $!; send
            [ "$detached" ] || wait $! ;;
        delete)
            [ ! -d "$root/$id" ] || { read -r pid <"$root/$id/pid" && kill -KILL "$pid"; rm -r "$root/$id"; } 2>&- ;;
        spec)
            printf %%s "$answer" >"$bundle/config.json" ;;
        *)
            printf %%s "$answer" ;;
    esac
}

# Start the process of a container; that of an exec with a terminal ends by itself once the runtime has.
begin() {
    if late; then
        while kill -0 $$ 2>&-; do sleep 0.01; done <&- >&- 2>&- &
    else
        sleep 1000 &
    fi
}

# Tell whether the pid file is written after the terminal was sent: that of an exec, as by runc.
late() {
    [ $command = exec ] && [ "$console" ]
}

# Write the pid file, or leave that to `send`.
tell() {
    late || write_pid "$1"
}

write_pid() {
    [ -z "$pid_file" ] || printf %%s "$1" >"$pid_file"
}

# Send something into the sockets that there are; without a word what should be sent.
send() {
    [ -z "$console" ] || %(python)s -IS %(sender)s "${1:-pty}" "$console"
    [ -z "$pidfd" ] || %(python)s -IS %(sender)s "${1:-pidfd}" "$pidfd" $!
    ! late || write_pid $!
}

# Write a record of an error into the log.
record() {
    printf '{"level":"error","msg":"%%s"}\n' "$1" >>"$log"
}

# Die by a signal.
die() {
    kill -"$1" $$
}

case " ${ONLY:-$command} " in *" $command "*) ;; *) whole; exit ;; esac
%(act)s
"""

SENDER = r"""
import array, os, pty, socket, sys, time
what, path, *pid = sys.argv[1:]
peer = socket.socket(socket.AF_UNIX)
peer.connect(path)
ours, theirs = os.openpty()
reading, writing = os.pipe()
regular = os.open(os.path.devnull if what == "null" else __file__, os.O_RDONLY)
data = {"junk": b"\0\xff\x1b[31m" * 200, "no data": b""}.get(what, b"/dev/ptmx")
fds = {
    "pty": [ours], "two": [ours, theirs], "file": [regular], "null": [regular], "pipe": [reading],
    "socket": [peer.fileno()],
    "many": [ours] * 253, "dead": [ours], "other end": [theirs], "no data": [ours],
    "pidfd": [os.pidfd_open(int(number)) for number in pid], "our own": [os.pidfd_open(os.getpid())],
}.get(what, [])
if what == "dead":
    os.close(theirs)
if what != "hang up":
    try:
        peer.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])
    except OSError:
        peer.setblocking(False)
if what == "twice":
    peer.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs]))])
"""


def write_runtime(directory: Path, behaviour: Behaviour) -> str:
    """Write a runtime that behaves so, and return its path. What it leaves on purpose is told by `kept`."""
    sender = directory / "sender.py"
    sender.write_text(SENDER)
    text = SCRIPT % {
        "answers": "\n".join(_answer(command, answer) for command, answer in ANSWERS.items()),
        "kept": shlex.quote(str(directory / "kept")),
        "python": shlex.quote(sys.executable),
        "sender": shlex.quote(str(sender)),
        "act": behaviour.act,
    }
    number = sum(1 for _ in directory.iterdir())
    return write_program(directory / f"runtime-{number}", text)


def _answer(command: str, answer: str) -> str:
    """Write a case of the shell's: what is said to a command, and the first half of it."""
    return f"    {command}) answer={shlex.quote(answer)} half={shlex.quote(answer[: len(answer) // 2])} ;;"


def kept(directory: Path) -> list[int]:
    """Tell the pids of what the runtimes of a directory have left on purpose."""
    file = directory / "kept"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def octal(data: bytes) -> str:
    """Write bytes for printf(1)."""
    return shlex.quote("".join(f"\\{byte:03o}" for byte in data))


def printing(name: str, data: bytes) -> Behaviour:
    """Make the behaviour that prints these bytes as if they were the answer."""
    act = f'if [ "$command" = spec ]; then exec >"$bundle/config.json"; fi; printf {octal(data)}; exit 0'
    return Behaviour(f"prints {name}", act, "answers nonsense", printed=data)


def failing(name: str, act: str, code: int) -> Behaviour:
    """Make the behaviour that fails with an exit code."""
    return Behaviour(name, f"{act}\nexit {code}", "fails", code=code)


HANGING = (
    Behaviour("hangs", "exec sleep 1000", "hangs"),
    Behaviour("hangs and ignores SIGTERM", "trap '' TERM; exec sleep 1000", "hangs"),
    Behaviour("hangs after half of its work", "half; exec sleep 1000 2>&-", "hangs"),
    Behaviour("hangs after all of its work", "whole; exec sleep 1000", "hangs"),
    Behaviour("writes to its log and hangs", "record 'so it is'; exec sleep 1000", "hangs"),
    Behaviour("closes its streams and hangs", "exec <&- >&- 2>&-; exec sleep 1000", "hangs"),
    Behaviour("stops itself", "die STOP", "hangs"),
    Behaviour("takes a minute", "keep sleep 60; wait; whole", "hangs"),
)

SIGNALS = ("TERM", "KILL", "SEGV")
HARMLESS = {"CHLD", "CONT", "URG", "WINCH", "STOP", "TSTP", "TTIN", "TTOU"}
OTHER_SIGNALS = tuple(
    each.name.removeprefix("SIG")
    for each in sorted(signal.Signals)
    if each.name.removeprefix("SIG") not in {*SIGNALS, *HARMLESS}
)
"""The others that end a process; of those for real time, which differ in nothing but their numbers, the two ends."""
STAGES = {"at once": "", "after half of its work": "half", "after its work": "whole", "after a record": "record broken"}
DYING = tuple(
    Behaviour(
        f"dies by SIG{name} {stage}",
        f"{act}\ndie {signal.Signals[f'SIG{name}']:d}",
        "crashes",
        -signal.Signals[f"SIG{name}"],
    )
    for name, stage in (
        *itertools.product((*SIGNALS, *OTHER_SIGNALS) if sweep.ALL else SIGNALS, STAGES),
        # else each of the others at one of the stages: how a process dies tells the caller no more than its number
        *(() if sweep.ALL else zip(OTHER_SIGNALS, itertools.cycle(STAGES))),
    )
    for act in (STAGES[stage],)
)

HOSTILE = b"\x1b[2Jred\r\0\x07 \xe2\x80\xae right to left \xff\xfe" + b"\xc2\x85" * 3
"""What a terminal should not be shown as it is."""

PANIC = r"""panic: runtime error: invalid memory address or nil pointer dereference

goroutine 1 [running]:
github.com/opencontainers/runc/libcontainer.(*linuxFactory).Load(0xc00)
"""

FAILING = (
    *(failing(f"exits with {code} without a word", "", code) for code in (1, 2, 127, 255)),
    failing("fails in words of its own", "echo 'out of cheese' >&2; record 'out of cheese'", 1),
    failing("fails after half of its work", "half; record 'out of cheese'", 1),
    failing("fails after all of its work", "whole; record 'out of cheese'", 1),
    failing("fails in hostile words", f"printf {octal(HOSTILE * 50)} >&2", 1),
    failing(
        "logs hostile words",
        f'printf {octal(HOSTILE * 50)} >>"$log"; echo >>"$log"; record \'\\u001b[2J\\u202e\'',
        1,
    ),
    failing("logs three megabytes", 'head -c 3000000 /dev/zero >>"$log"; echo >>"$log"; record x', 1),
    failing("logs half a record", 'printf \'{"level":"error","msg":"so\' >>"$log"', 3),
    Behaviour("panics", f"printf %s {shlex.quote(PANIC)} >&2; exit 2", "panics", 2),
)

NONSENSE = (
    Behaviour("does nothing", "exit 0", "answers nonsense"),
    printing("random bytes", bytes(range(255, -1, -1))),
    printing("invalid UTF-8", b'{"id": "\xff\xfe", "status": "\xc3"}'),
    printing("a lone surrogate", b'{"id": "\\ud800", "status": "running", "bundle": "\xed\xa0\x80"}'),
    printing("null", b"null"),
    printing("an empty object", b"{}"),
    printing("a number", b"7"),
    printing("large numbers", b'{"id":"a","status":"b","bundle":"c","pid":1%s}' % (b"0" * 5000)),
    printing("a large number", b'{"id":"a","status":"running","bundle":"c","pid":1%s}' % (b"0" * 300))._replace(
        effect="anything"
    ),
    printing(
        "infinite numbers", b'{"id":"a","status":"b","bundle":"c","pid":1e999,"type":"stats","data":{"cpu":1e999}}'
    ),
    printing("wrong types", b'{"id":1,"status":[],"bundle":{},"type":"stats","data":7,"ociVersion":{}}'),
    printing("a type that nobody knows", b'{"type":"surprise","id":"web"}'),
    printing("text", b"Error: it is a beautiful day\n\ttoday\r\n"),
    printing("brackets without end", b"[" * 3000),
    printing("lines without anything", b"\n \n\t\n\r\n"),
    Behaviour("answers twice", 'whole; [ "$command" = spec ] || printf %s "$answer"', "anything"),
    Behaviour("answers, and prints on", "whole; printf '\\0\\377{'; exit 0", "anything"),
    Behaviour("answers half", "half; exit 0", "anything"),
    printing("hostile words", HOSTILE),
    Behaviour("closes stdout early", "exec >&-; whole 2>/dev/null; exit 0", "anything"),
    Behaviour("closes all that it has", "exec 0<&- 1>&- 2>&- 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; exit 0", "anything"),
    Behaviour("opens its stdout anew", "whole >/dev/stdout", "anything"),
    Behaviour("prints its log", "record out; whole; exit 0", "right"),
)

SPECIAL = tuple(
    Behaviour(f"makes {name} of its file", f'{act} "$bundle/config.json"; exit 0', "answers nonsense", needs="spec")
    for name, act in {"a directory": "mkdir", "a FIFO": "mkfifo", "a link without end": "ln -s /dev/zero"}.items()
)

LOUD = (
    Behaviour("prints a gigabyte", "head -c 1000000000 /dev/zero 2>&-; exit 0", "anything"),
    Behaviour("prints a gigabyte on stderr", "head -c 1000000000 /dev/zero >&2; whole", "anything"),
    Behaviour("writes a gigabyte", 'truncate -s 1G "$bundle/config.json"', "anything", needs="spec"),
    Behaviour("nests too deep", "head -c 200000 /dev/zero | tr '\\0' '['; exit 0", "anything"),
    Behaviour("prints three megabytes in one line", "head -c 3000000 /dev/zero | tr '\\0' x >&2; exit 1", "anything"),
)

WELL_BUT_LOUD = Behaviour("prints a gigabyte and ends well", "head -c 1000000000 /dev/zero; whole")

WELL = Behaviour("behaves well", "whole")

ORPHANING = (
    Behaviour("leaves a child that holds its streams", "keep sleep 1000; whole"),
    Behaviour("goes on in the background", "keep sleep 1000; exit 0", "answers nonsense"),
    Behaviour("leaves a child and dies", "keep sleep 1000; die KILL", "crashes", -signal.SIGKILL),
    Behaviour("leaves a child in a session of its own", "keep setsid sleep 1000; whole"),
    Behaviour("leaves a child that prints on", "keep sh -c 'while sleep 0.05; do echo; done'; whole", "anything"),
)

LITTER = """\
for place in "${pid_file%/*}" "${console%/*}" "${pidfd%/*}" "$bundle"; do
    if [ -n "$place" ] && [ -d "$place/." ]; then
        mkdir -p "$place/deep/er"
        : >"$place/left" >"$place/deep/er/left"
    fi
done
whole"""

REMOVAL = """\
[ -z "$console" ] || { rm "$console"; rmdir "$(readlink -f "${console%/*}")"; }
[ -z "$pidfd" ] || { rm "$pidfd"; rmdir "$(readlink -f "${pidfd%/*}")"; }
[ -z "$pid_file" ] || rmdir "$(readlink "${pid_file%/*}")"
[ -z "$bundle" ] || rmdir "$bundle"
whole 2>/dev/null
exit 0"""

WANDERING = (
    WELL,
    Behaviour("changes its working directory", "cd /; whole"),
    Behaviour("removes its working directory", 'mkdir here && cd here && rmdir "$PWD"; whole'),
    Behaviour("leaves files where it works", ": >left; mkdir -p deep/er; : >deep/er/left; whole"),
    Behaviour("leaves files in our directories", LITTER),
    Behaviour("removes our directories", REMOVAL, "anything"),
)


def _pid_files() -> Iterator[Behaviour]:
    """Yield the behaviours of a runtime that writes something else than a pid."""
    for name, data in {
        "nothing": b"",
        "a word": b"web",
        "zero": b"0",
        "a negative number": b"-1",
        "a number beyond all pids": b"99999999",
        "a number beyond all integers": b"9" * 30,
        "a number beyond all sense": b"9" * 5000,
        "NULs": bytes(10),
        "another alphabet": b"\xff\xfe1",
        "two numbers": b"1 2\n3",
    }.items():
        act = f'file=$pid_file; pid_file=; whole; [ -z "$file" ] || printf {octal(data)} >"$file"'
        yield Behaviour(f"writes {name} as its pid", act, "anything", needs="pid file")
    yield Behaviour(
        "tells a process that has ended", "sh -c : & wait $!; tell $!; exit 0", "anything", needs="pid file"
    )
    yield Behaviour(
        "makes a directory of its pid file",
        'file=$pid_file; pid_file=; whole; mkdir "$file"',
        "anything",
        needs="pid file",
    )


PID_FILES = tuple(_pid_files())

BEGINNING = (
    '[ -n "$console$pidfd" ] || { whole; exit; }; begin; tell $!; '
    '[ $command = exec ] || { mkdir -p "$root/$id"; echo $! >"$root/$id/pid"; }; '
)

TELLING = tuple(
    Behaviour(name, f"{BEGINNING}{act}", "anything", needs="socket")
    for name, act in {
        "hangs up without a word": "send 'hang up'",
        "sends no descriptor": "send nothing",
        "sends two descriptors": "send two",
        "sends as many descriptors as can be sent": "send many",
        "sends a file": "send file",
        "sends /dev/null": "send null",
        "sends a pipe": "send pipe",
        "sends the socket itself": "send socket",
        "sends a terminal that is dead": "send dead",
        "sends the other end of the terminal": "send 'other end'",
        "sends a descriptor without data": "send 'no data'",
        "sends much junk": "send junk",
        "sends two messages": "send twice",
        "sends a pidfd of a process that is gone": "send 'our own'",
        "sends twice": "send; send two",
        "sends and fails": "send; exit 1",
        "sends and dies": "send; die KILL",
        "sends and removes the socket": 'send; rm "$console$pidfd"',
    }.items()
)

NOT_PROGRAMS: dict[str, Callable[[Path], object]] = {
    "isn't there": lambda _: None,
    "is a directory": lambda path: path.mkdir(),
    "isn't executable": lambda path: path.write_text("#!/bin/sh\n"),
    "is empty": lambda path: write_program(path, ""),
    "is a text": lambda path: write_program(path, "What a beautiful day\n"),
    "has an interpreter that isn't there": lambda path: write_program(path, "#!/no/such/interpreter\n"),
}
"""What there is in place of a runtime."""
