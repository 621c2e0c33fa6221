"""`Crun` and `Runsc`: clients for one runtime each, without detection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict, Unpack

from ._commands import words
from ._commands.words import StrPath
from ._runtimes.crun import CRUN
from ._runtimes.runsc import RUNSC
from .client import Runc
from .runner import Runner

__all__ = ["Crun", "Runsc"]


class ClientOptions(TypedDict, total=False):
    """Options of `Runc` that all runtimes have."""

    root: StrPath | None
    debug: bool
    log: StrPath | None
    log_format: Literal["text", "json"] | None
    systemd_cgroup: bool
    extra_args: Sequence[str]
    env: Mapping[str, str] | None
    cwd: StrPath | None
    timeout: float | None
    pdeathsig: int | str | None
    process_group: int | None
    restore_signals: bool
    max_concurrency: int | None
    runner: Runner | None


class Crun(Runc):
    """A client for crun: a `Runc` that never asks the runtime for its name.

    Commands and options missing in crun raise `UnsupportedError` before a process is started: see
    https://github.com/containers/crun and the table in docs/topics/runtimes.md.

    Args:
        command: The program: a name to look up in $PATH, or a path.
        rootless: Ignore cgroup permission errors: True, False or "auto"; the runtime's default if None.
        options: The options of `Runc`.

    Raises:
        ValueError: If an option is invalid.
        TypeError: If an option has a wrong type.
    """

    _dialect = CRUN

    def __init__(
        self,
        command: StrPath = "crun",
        *,
        rootless: bool | Literal["auto"] | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        super().__init__(command, rootless=rootless, **options)


class Runsc(Runc):
    """A client for runsc, gVisor's runtime, where each container is a sandbox with its own kernel.

    A `Runc` for this runtime, with runsc's own global options: ``Runsc(network="none")``.

    Processes of a container have process ids only inside the sandbox: `Runc.ps` and `Runc.top` return these, and
    `Container.pid` is the single process of the sandbox on the host. A cancelled exec is ended inside the sandbox, with
    all descendants. Commands and options missing in runsc raise `UnsupportedError` before a process is started: see the
    table in docs/topics/runtimes.md.

    Args:
        command: The program: a name to look up in $PATH, or a path.
        network: "none", "host" (the host's own network), or "sandbox" (gVisor's network stack in the container's
            network namespace); runsc's default, "sandbox", if None.
        platform: The interception of system calls: "systrap", "ptrace" or "kvm"; runsc's default if None.
        ignore_cgroups: Create no cgroups, so that there are no limits.
        overlay2: The place for changes of files, such as "root:memory" or "none"; runsc's default, "root:self", if
            None.
        host_uds: Sockets of the host that containers may use: "none", "open", "create" or "all"; runsc's default if
            None.
        rootless: Run without root.
        options: The options of `Runc`.

    Raises:
        ValueError: If an option is invalid.
        TypeError: If an option has a wrong type.
    """

    _dialect = RUNSC

    def __init__(
        self,
        command: StrPath = "runsc",
        *,
        network: Literal["none", "host", "sandbox"] | None = None,
        platform: str | None = None,
        ignore_cgroups: bool = False,
        overlay2: str | None = None,
        host_uds: Literal["none", "open", "create", "all"] | None = None,
        rootless: bool = False,
        **options: Unpack[ClientOptions],
    ) -> None:
        chosen = {"network": (network, _NETWORKS), "host_uds": (host_uds, _SOCKETS)}
        for name, (value, known) in chosen.items():
            if value is not None and value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}: {value!r}")
        if not isinstance(rootless, bool):
            raise TypeError(f"rootless must be True or False: {rootless!r}")
        own = (
            *words.option("--network", network),
            *words.option("--platform", platform),
            *words.switches(ignore_cgroups=ignore_cgroups),
            *words.option("--overlay2", overlay2),
            *words.option("--host-uds", host_uds),
        )
        options["extra_args"] = (*own, *options.get("extra_args", ()))
        super().__init__(command, rootless=rootless or None, **options)


_NETWORKS = ("none", "host", "sandbox")
_SOCKETS = ("none", "open", "create", "all")
