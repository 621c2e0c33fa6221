"""Asyncio client library for runc and other OCI runtimes.

A call goes from `Runc` (client, _client) through an argument vector (_commands) into an `Invocation` (runner), is run
by a `Runner` (_process), and comes back as a struct (state, stats, ...) or an exception (errors, _answers).
What callers hold are handles (container), streams (_streams, console) and events (events).

Importing the package loads none of them: each public name is loaded with its module when it is first used.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import figures as figures, rootfs as rootfs, spec as spec
    from ._linux.subreaper import subreaper as subreaper
    from ._process.running import ProcessRunner as ProcessRunner
    from ._streams.pipes import PipeReader as PipeReader, PipeWriter as PipeWriter
    from .bundle import Bundle as Bundle
    from .change import Change as Change, ChangeKind as ChangeKind
    from .changes import ChangeStream as ChangeStream
    from .client import Runc as Runc
    from .console import AttachEnd as AttachEnd, Pty as Pty
    from .container import Container as Container
    from .containerprocess import ContainerProcess as ContainerProcess
    from .endreason import EndReason as EndReason
    from .errors import (
        ArchiveError as ArchiveError,
        ArgumentsTooLong as ArgumentsTooLong,
        BundleChanged as BundleChanged,
        BundleNotFound as BundleNotFound,
        CheckpointError as CheckpointError,
        CleanupWarning as CleanupWarning,
        CommandError as CommandError,
        ContainerExists as ContainerExists,
        ContainerNotFound as ContainerNotFound,
        ContainerNotPaused as ContainerNotPaused,
        ContainerNotRunning as ContainerNotRunning,
        ContainerPaused as ContainerPaused,
        ContainerRunning as ContainerRunning,
        ContainerStatusError as ContainerStatusError,
        CorruptState as CorruptState,
        DecodeError as DecodeError,
        ExecFormatError as ExecFormatError,
        ExecutableDenied as ExecutableDenied,
        ExecutableError as ExecutableError,
        ExecutableNotFound as ExecutableNotFound,
        ExitError as ExitError,
        HookError as HookError,
        InitNotFound as InitNotFound,
        InvalidContainerID as InvalidContainerID,
        InvalidSignal as InvalidSignal,
        InvalidSpec as InvalidSpec,
        InvalidUsage as InvalidUsage,
        LogRecord as LogRecord,
        MemoryLimitTooLow as MemoryLimitTooLow,
        PermissionDenied as PermissionDenied,
        ResourceError as ResourceError,
        RootfsError as RootfsError,
        RuncCrashed as RuncCrashed,
        RuncError as RuncError,
        RuncNotFound as RuncNotFound,
        RuncTimeout as RuncTimeout,
        SpawnError as SpawnError,
        TerminalError as TerminalError,
        UnsupportedError as UnsupportedError,
        UnsupportedUsage as UnsupportedUsage,
    )
    from .event import (
        Event as Event,
        OOMEvent as OOMEvent,
        StatsEvent as StatsEvent,
        StatsFailedEvent as StatsFailedEvent,
        UnknownEvent as UnknownEvent,
    )
    from .events import EventStream as EventStream
    from .exitstatus import ExitStatus as ExitStatus
    from .features import Features as Features, Version as Version
    from .ignored import Ignored as Ignored
    from .keeper import (
        Keeper as Keeper,
        KeeperError as KeeperError,
        KeeperLost as KeeperLost,
        Kept as Kept,
        StreamsInUse as StreamsInUse,
    )
    from .limits import Limits as Limits
    from .merge import (
        MergedEvents as MergedEvents,
        StreamEnded as StreamEnded,
        StreamFailed as StreamFailed,
        merge_events as merge_events,
    )
    from .pool import Pool as Pool, PoolStats as PoolStats
    from .response import Response as Response
    from .runner import Completed as Completed, Invocation as Invocation, Process as Process, Runner as Runner
    from .runtimes import Crun as Crun, Runsc as Runsc
    from .state import State as State, Status as Status
    from .stats import Stats as Stats
    from .statsreader import StatsReader as StatsReader
    from .stdio import (
        CapturedIO as CapturedIO,
        InheritedIO as InheritedIO,
        NullIO as NullIO,
        PipedIO as PipedIO,
        PtyIO as PtyIO,
        RedirectIO as RedirectIO,
    )
    from .swept import Swept as Swept
    from .top import Top as Top
    from .usage import Usage as Usage

__version__ = "0.1.0"

# The same names again, by module, for a running program: whoever wants one of them doesn't wait for all of them.
_NAMES = {
    "bundle": "Bundle",
    "runner": "Completed Invocation Process Runner",
    "change": "Change ChangeKind",
    "changes": "ChangeStream",
    "client": "Runc",
    "runtimes": "Crun Runsc",
    "console": "AttachEnd Pty",
    "container": "Container ContainerProcess",
    "endreason": "EndReason",
    "errors": """
        ArchiveError ArgumentsTooLong InitNotFound
        BundleChanged BundleNotFound CheckpointError CleanupWarning CommandError ContainerExists ContainerNotFound
        ContainerNotPaused ContainerNotRunning ContainerPaused ContainerRunning ContainerStatusError CorruptState
        DecodeError ExecFormatError ExecutableDenied ExecutableError ExecutableNotFound ExitError HookError
        InvalidContainerID InvalidSignal InvalidSpec InvalidUsage LogRecord MemoryLimitTooLow PermissionDenied
        ResourceError RootfsError RuncCrashed RuncError RuncNotFound RuncTimeout SpawnError TerminalError
        UnsupportedError UnsupportedUsage
    """,
    "event": "Event OOMEvent StatsEvent StatsFailedEvent UnknownEvent",
    "events": "EventStream",
    "_linux.subreaper": "subreaper",
    "exitstatus": "ExitStatus",
    "features": "Features Version",
    "ignored": "Ignored",
    "keeper": "Keeper KeeperError KeeperLost Kept StreamsInUse",
    "limits": "Limits",
    "merge": "MergedEvents StreamEnded StreamFailed merge_events",
    "pool": "Pool PoolStats",
    "response": "Response",
    "_process.running": "ProcessRunner",
    "state": "State Status",
    "stats": "Stats",
    "statsreader": "StatsReader",
    "stdio": "CapturedIO InheritedIO NullIO PipedIO PtyIO RedirectIO",
    "_streams.pipes": "PipeReader PipeWriter",
    "swept": "Swept",
    "top": "Top",
    "usage": "Usage",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}
_MODULES = ("figures", "rootfs", "spec")
_HOLDERS = (*(module for module in _NAMES if not module.startswith("_")), "testing")

if not TYPE_CHECKING:  # a type checker shall know the names above, and refuse all others
    __all__ = [*_HOMES, *_MODULES]  # noqa: PLE0604 - they are strings

    def __getattr__(name: str) -> object:
        """Load a public name, or a module, when it is first used."""
        if name in _HOMES:
            value = getattr(_import_module(f"{__name__}.{_HOMES[name]}"), name)
            globals()[name] = value
            return value
        if name in _MODULES or name in _HOLDERS:
            return _import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names, loaded or not."""
    return sorted({*globals(), *_HOMES, *_MODULES} - {"TYPE_CHECKING"})
