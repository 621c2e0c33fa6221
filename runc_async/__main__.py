"""`python -m runc_async`: features of this host, and remedies for missing ones."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator, Sequence

import msgspec

from . import _doctor as _doctor_module
from ._doctor import Host, Runtime
from ._linux.reaping import LIMIT, Reaping
from ._text import one_line
from .features import Features

_KEEPS = {True: "keeps", False: "does not keep", None: "unknown whether it keeps"}
PROMPT = 0.1
"""Seconds in which a process 1 that waits for its children reaps them, even on a busy machine."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report about this host.

    Args:
        arguments: The command line after the program's name; the process's own if left out.

    Returns:
        0 if containers can run here, else 1.
    """
    options = parser().parse_args(arguments)
    host = asyncio.run(_doctor_module.probe(options.runtime))
    # Names of files and errors of runtimes are foreign text, and may have control characters.
    shown = as_json(host) if options.json else "\n".join(map(one_line, lines(host)))
    print(shown)  # noqa: T201 - what this program is for
    return 0 if host.ready else 1


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(prog="python -m runc_async", description="Show what this host can do.")
    made.add_argument("--runtime", metavar="PATH", default="runc", help="the runtime, by name or path (runc)")
    made.add_argument("--json", action="store_true", help="print everything that was found out, as JSON")
    return made


def as_json(host: Host) -> str:
    """Return the report as an indented JSON document."""
    document = {"ready": host.ready, "problems": host.problems, **msgspec.structs.asdict(host)}
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def lines(host: Host) -> Iterator[str]:
    """Yield the lines of the report."""
    rows = {
        "runtime": _runtime(host.runtime),
        "features": _features(host.runtime.features),
        "root": host.runtime.root,
        "cgroups": f"{host.cgroups.mode}: {' '.join(host.cgroups.controllers) or 'no controllers'}",
        "user": _user(host),
        "rootless": _rootless(host),
        "kernel": f"{host.kernel}, {_KEEPS[host.keeps_exit_status]} exit statuses",
        "process 1": _reaping(host.reaping),
        "criu": host.criu or "not found",
        "busybox": host.busybox or "not found",
        "init": host.init or "not found",
        "left over": f"{host.left} things of killed processes; Runc.sweep() removes them" if host.left else "nothing",
    }
    yield from (f"{name:<9} {value}" for name, value in rows.items())
    yield from (f"{other.name:<9} {other}" for other in host.others)
    for problem in host.problems:
        yield ""
        yield f"{'MISSING' if problem.blocking else 'missing'}   {problem.missing}"
        yield f"remedy    {problem.remedy}"
    yield ""
    if host.ready:
        yield "Containers can run here."
    elif any(problem.blocking for problem in host.problems):
        yield "Containers can't run here."
    else:
        yield "No container was tried here: there is no busybox for it."


def _runtime(runtime: Runtime) -> str:
    """Describe the runtime and its place."""
    if runtime.path is None or runtime.version is None:
        return f"{runtime.command}: {'not found' if runtime.path is None else 'does not answer'}"
    version = runtime.version
    return f"{version.runtime} {version.version} at {runtime.path}, runtime-spec {version.spec or 'unknown'}"


def _features(features: Features | None) -> str:
    """Return the names of features that differ between builds."""
    if features is None or features.linux is None:
        return "not told"
    linux = features.linux
    parts = {
        "seccomp": linux.seccomp,
        "apparmor": linux.apparmor,
        "selinux": linux.selinux,
        "intel_rdt": linux.intel_rdt,
    }
    compiled_in = [name for name, part in parts.items() if part is not None and part.enabled]
    counted = {
        "namespaces": linux.namespaces,
        "capabilities": linux.capabilities,
        "mount options": features.mount_options,
    }
    counts = [f"{len(names)} {what}" for what, names in counted.items() if names]
    return ", ".join([*compiled_in, *counts]) or "none"


def _user(host: Host) -> str:
    """Describe the user and its privileges."""
    if host.privileges.sufficient:
        return "root, with all capabilities that a runtime needs"
    lacking = ", ".join(host.privileges.missing_capabilities) or "nothing"
    return f"{'root' if host.privileges.uid == 0 else host.privileges.uid}, lacking {lacking}"


def _reaping(reaping: Reaping | None) -> str:
    """Describe the delay of reaping, and the effect on the exit statuses of detached containers."""
    if reaping is None:
        return "not measured"
    if reaping.reaper == os.getpid():
        return "is this process, which reaps its containers itself"
    who = "" if reaping.reaper == 1 else f"is not the reaper, but process {reaping.reaper}, which "
    zombie = "wait() reads the exit status from the zombie"
    if reaping.seconds is None:
        return f"{who}does not reap in {LIMIT:.0f} s: {zombie}"
    if reaping.seconds < PROMPT:
        return f"{who}reaps at once"
    return f"{who}reaps after {reaping.seconds:.1f} s: {zombie}"


def _rootless(host: Host) -> str:
    """Describe the prerequisites of containers without root."""
    rootless = host.rootless
    namespaces = f"no user namespaces ({rootless.forbidden_by})" if rootless.forbidden_by else "user namespaces"
    helper = "newuidmap" if rootless.newuidmap else "no newuidmap"
    return f"{namespaces}, {helper}, {rootless.subordinate_ids} subordinate user ids"


if __name__ == "__main__":
    sys.exit(main())
