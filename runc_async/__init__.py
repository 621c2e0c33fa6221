"""Asyncio client library for runc and other OCI runtimes.

A call goes from `Runc` (client) through an argument vector (_argv) into an `Invocation` (_call), is run by a `Runner`
(_runner, _process), and comes back as a struct (state, stats, ...) or an exception (errors, _failures).
What callers hold are handles (container), streams (_streams, console) and events (events).
"""

from . import figures as figures, rootfs as rootfs, spec as spec
from ._call import (
    Completed as Completed,
    Invocation as Invocation,
    Process as Process,
    Runner as Runner,
)
from ._exit import subreaper as subreaper
from ._runner import ProcessRunner as ProcessRunner
from ._streams import PipeReader as PipeReader, PipeWriter as PipeWriter
from .bundle import Bundle as Bundle
from .client import Runc as Runc
from .console import AttachEnd as AttachEnd, Pty as Pty
from .container import Container as Container, ContainerProcess as ContainerProcess
from .errors import (
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
    InvalidContainerID as InvalidContainerID,
    InvalidSignal as InvalidSignal,
    InvalidSpec as InvalidSpec,
    InvalidUsage as InvalidUsage,
    LogRecord as LogRecord,
    MemoryLimitTooLow as MemoryLimitTooLow,
    PermissionDenied as PermissionDenied,
    ResourceError as ResourceError,
    RuncCrashed as RuncCrashed,
    RuncError as RuncError,
    RuncNotFound as RuncNotFound,
    RuncTimeout as RuncTimeout,
    TerminalError as TerminalError,
    UnsupportedError as UnsupportedError,
    UnsupportedUsage as UnsupportedUsage,
)
from .event import Event as Event, OOMEvent as OOMEvent, StatsEvent as StatsEvent, UnknownEvent as UnknownEvent
from .events import EventStream as EventStream
from .exitstatus import ExitStatus as ExitStatus
from .features import Features as Features, Version as Version
from .merge import (
    MergedEvents as MergedEvents,
    StreamEnded as StreamEnded,
    StreamFailed as StreamFailed,
    merge_events as merge_events,
)
from .response import Response as Response
from .rootfs import RootfsError as RootfsError
from .state import State as State, Status as Status
from .stats import Stats as Stats
from .stdio import (
    CapturedIO as CapturedIO,
    InheritedIO as InheritedIO,
    NullIO as NullIO,
    PipedIO as PipedIO,
    PtyIO as PtyIO,
    RedirectIO as RedirectIO,
)
from .top import Top as Top

__version__ = "0.1.0"
