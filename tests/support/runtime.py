"""The runtimes that the live tests drive: the host's runc, or those that `--runtime` names."""

from __future__ import annotations

import functools
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

from runc_async._runtimes.known import DIALECTS
from runc_async._runtimes.runsc import RUNSC

FORKS = {"fork": {"any", "read-only root"}, "fork by criu": {"read-only root"}}
"""Features that say whether containers can be copied, and of which kind they are: see `Dialect.forks`."""

NOT_IN_SANDBOX = {
    "files",
    "host pids",
    "user namespaces",
    "process details",
    "forwarded signals",
    "missing controllers",
    "record directory",
    "rootless",
    "bare usage",
    "cheap containers",
    "criu",
    "fast events",
    "host kernel",
    "watch",
    "stats_reader",
}
"""Features that only a runtime has whose containers are processes of this host: see `Runtime.has`."""

CGROUPS = Path("/sys/fs/cgroup")
HYBRID = CGROUPS / "unified"
KERNEL_KEEPS = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 15)
"""Whether the kernel keeps the exit status of a process for whoever has a pidfd."""

# crun refuses the hybrid layout of cgroups; without its second hierarchy the layout is plain v1.
WITHOUT_HYBRID = f"""\
#!/bin/sh
exec unshare -m sh -c 'umount {HYBRID}; exec "$0" "$@"' {{command}} "$@"
"""

# runsc by itself refuses to give a container the network of the host's namespace.
WITHOUT_NETWORK = """\
#!/bin/sh
exec {command} {options} "$@"
"""


class Runtime(NamedTuple):
    """A runtime on this machine.

    Attributes:
        command: What starts it: what `Runc(command=...)` takes.
        name: Its name, `runc`, `crun` or `runsc`.
        version: Its version's numbers, such as `1.1.5`; of runsc its date.
    """

    command: str
    name: str
    version: str

    def __str__(self) -> str:
        """Show as in the ids of the tests."""
        return f"{self.name}-{self.version}"

    @property
    def is_crun(self) -> bool:
        """Whether it is crun, which words its errors otherwise, and takes some for none."""
        return self.name == "crun"

    @property
    def is_sandbox(self) -> bool:
        """Whether a container is a kernel of its own, whose processes the host doesn't have."""
        return self.name == "runsc"

    @property
    def removes_cgroups(self) -> bool:
        """Whether it removes a container's cgroup in any case.

        On cgroup v2, runc 1.1 doesn't wait for the last processes of a container without a pid namespace, nor for those
        of a `create` that was cut short: the empty cgroup stays, and `delete` succeeds.
        """
        return not (is_cgroup2() and self.name == "runc" and self.version.startswith("1.1."))

    def has(self, feature: str) -> bool:
        """Say whether it has a command, such as `features`, or an option of one, such as `run --keep`.

        These are features too:

        - `cgroup removal`: see there.
        - `files`: that the library can reach a container's files, for which it needs no command.
        - `fork`, `fork by criu`: that a running container can be copied.
        - `host pids`: that processes of a container are processes of the host. Those of a sandbox aren't.
        - `forwarded signals`: that a `run` in the foreground passes signals on to the container. runsc just ends.
        - `missing controllers`: that a container without limits starts where cgroup v2 has no controllers.
        - `record directory`: that a container has a directory below the root directory, with its record.
        - `bare usage`: that a container uses the memory and the CPU time of its program, without a kernel of its own.
        - `cheap containers`: that fifty containers or processes at once are no load; a sandbox is a kernel.
        - `criu`: that checkpoints are made by criu; tests/live/test_runsc.py has those of a sandbox.
        - `fast events`: that `events` takes a part of a second.
        - `host kernel`: that a program sees the host's kernel: its cgroups, namespaces, filters and limits.
        - `rootless`: that a user without privileges can run containers with the default options.
        - `user namespaces`: that ids of a container are other ids on the host.
        - `process details`: the state of signals and NoNewPrivs in /proc/PID/status, names of terminals in tty(1), raw
          sockets and limits of an `exec`, which gVisor's kernel doesn't have.
        - `rootfs errors`: crun 1.28 says of a missing root filesystem no more than `open X: No such file or directory`,
          as of any other file.
        - `exec errors`: crun 1.21 prints `exec: Exec format error` of an `exec`, and ends with 1, as a program may.
        - `clean failures`: crun keeps `.empty-directory` in its root; one that is killed, or has no room, leaves the
          process that makes the container, or half of its record.
        """
        if feature == "cgroup removal":
            return self.removes_cgroups
        if feature in FORKS:
            dialect = DIALECTS.get(self.name)
            return dialect is not None and dialect.forks in FORKS[feature]
        if self.is_sandbox:
            # Its options aren't those that the library names; tests/proof/test_runsc_calls.py holds the table.
            return feature not in NOT_IN_SANDBOX and RUNSC.features.get(feature, ()) == ()
        if feature in NOT_IN_SANDBOX:
            return True
        if feature in {"rootfs errors", "clean failures", "exec errors"}:
            return not self.is_crun or (feature == "exec errors" and self.version != "1.21")
        command, _, option = feature.partition(" ")
        found = re.search(rf"^\s+{re.escape(command)}\s", _help(self.command), re.MULTILINE)
        return found is not None and (not option or re.search(rf"{option}\b", _help(self.command, command)) is not None)


@functools.cache
def describe(command: str) -> Runtime:
    """Ask a program which runtime it is; where it can't be asked, it gets its file's name and no version."""
    path = os.path.abspath(command) if os.sep in command else command
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
        name, number = re.findall(r"^(\S+) version (?:0\.0~)?([\d.]+)", said)[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return Runtime(path, os.path.basename(path), "unknown")
    return Runtime(path, name, number)


def suited(runtime: Runtime, directory: Path) -> Runtime:
    """Return the runtime such as it runs on this machine, with a script of `directory` before it if need be."""
    if runtime.is_sandbox:
        template = WITHOUT_NETWORK
    elif runtime.is_crun and os.path.ismount(HYBRID):
        template = WITHOUT_HYBRID
    else:
        return runtime
    script = directory / str(runtime)
    script.write_text(template.format(command=shlex.quote(runtime.command), options=" ".join(RUNSC.trial_options)))
    script.chmod(0o755)
    return runtime._replace(command=str(script))


def is_cgroup2() -> bool:
    """Tell whether cgroup v2 is all there is: the one hierarchy has the file in its root."""
    return (CGROUPS / "cgroup.controllers").exists()


def has_controller(name: str) -> bool:
    """Tell whether the cgroups that are mounted here have a controller, such as `memory`, so that limits can be set."""
    if is_cgroup2():
        return name in (CGROUPS / "cgroup.controllers").read_text().split()
    return (CGROUPS / name).is_dir()


def provides(feature: str) -> bool | None:
    """Tell whether this host has `cgroup v2` or a controller, as in `memory controller`; None for other features."""
    if feature == "cgroup v2":
        return is_cgroup2()
    name, _, kind = feature.partition(" ")
    return has_controller(name) if kind == "controller" else None


@functools.cache
def _help(*words: str) -> str:
    """Return what the runtime prints about itself or a command of its own."""
    return subprocess.run([*words, "--help"], capture_output=True, text=True, check=False).stdout
