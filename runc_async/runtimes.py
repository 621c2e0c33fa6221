"""Clients of one runtime each, which is then known without asking: `Crun` and `Runsc`."""

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
    """The options of `Runc` that all runtimes have."""

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
    """A client of crun. It is `Runc` for that runtime, which is never asked for its name.

    Commands and options that crun lacks raise `UnsupportedError` before anything is started: see
    https://github.com/containers/crun and the table in docs/topics/runtimes.md.

    Args:
        command: The program: a name that is looked up in $PATH, or a path.
        rootless: Ignore cgroup permission errors: True, False or "auto"; the runtime's default if None.
        options: Those of `Runc`.

    Raises:
        ValueError: If an option can't be right.
        TypeError: If one is of a wrong type.
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
    """A client of runsc, gVisor's runtime: a container is a sandbox with a kernel of its own.

    It is `Runc` for that runtime, with runsc's own global options: ``Runsc(network="none")``.

    Processes of a container have process ids of the sandbox alone: `Runc.ps` and `Runc.top` return those, and
    `Container.pid` is the one process of the sandbox on the host. An exec that is cut short ends in the sandbox, with
    all processes that it has started. Commands and options that runsc lacks raise `UnsupportedError` before anything is
    started: see the table in docs/topics/runtimes.md.

    Args:
        command: The program: a name that is looked up in $PATH, or a path.
        network: "none", "host" (the host's own network), or "sandbox" (gVisor's network stack in the container's
            network namespace); runsc's default, "sandbox", if None.
        platform: How system calls are intercepted: "systrap", "ptrace" or "kvm"; runsc's default if None.
        ignore_cgroups: Make no cgroups, so that there are no limits.
        overlay2: Where changes of files go, such as "root:memory" or "none"; runsc's default, "root:self", if None.
        host_uds: Which sockets of the host containers may use: "none", "open", "create" or "all".
        rootless: Run without root.
        options: Those of `Runc`.

    Raises:
        ValueError: If an option can't be right.
        TypeError: If one is of a wrong type.
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
