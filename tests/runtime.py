"""The runtimes that the live tests drive: the host's runc, or those that `--runtime` names."""

from __future__ import annotations

import functools
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

HYBRID = Path("/sys/fs/cgroup/unified")

# crun refuses the hybrid layout of cgroups; without its second hierarchy the layout is plain v1.
WITHOUT_HYBRID = f"""\
#!/bin/sh
exec unshare -m sh -c 'umount {HYBRID}; exec "$0" "$@"' {{command}} "$@"
"""


class Runtime(NamedTuple):
    """A runtime on this machine.

    Attributes:
        command: What starts it: what `Runc(command=...)` takes.
        name: Its name, `runc` or `crun`.
        version: Its version's numbers, such as `1.1.5`.
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

    def has(self, feature: str) -> bool:
        """Say whether it has a command, such as `features`, or an option of one, such as `run --keep`."""
        command, _, option = feature.partition(" ")
        found = re.search(rf"^\s+{re.escape(command)}\s", _help(self.command), re.MULTILINE)
        return found is not None and (not option or re.search(rf"{option}\b", _help(self.command, command)) is not None)


@functools.cache
def describe(command: str) -> Runtime:
    """Ask a program which runtime it is; where it can't be asked, it gets its file's name and no version."""
    path = os.path.abspath(command) if os.sep in command else command
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
        name, number = re.findall(r"^(\S+) version ([\d.]+)", said)[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return Runtime(path, os.path.basename(path), "unknown")
    return Runtime(path, name, number)


def suited(runtime: Runtime, directory: Path) -> Runtime:
    """Return the runtime such as it runs on this machine, with a script of `directory` before it if need be."""
    if not (runtime.is_crun and os.path.ismount(HYBRID)):
        return runtime
    script = directory / str(runtime)
    script.write_text(WITHOUT_HYBRID.format(command=shlex.quote(runtime.command)))
    script.chmod(0o755)
    return runtime._replace(command=str(script))


@functools.cache
def _help(*words: str) -> str:
    """Return what the runtime prints about itself or a command of its own."""
    return subprocess.run([*words, "--help"], capture_output=True, text=True, check=False).stdout
