"""The process of an `exec` of arguments, put together as runc does it from the container's own process.

runc has no option for the size of a terminal: a process that shall see one at its start needs a whole document.
"""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING

from .argv import Overrides
from .words import numeric_user

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..spec import Process
    from ..stdio import PtyIO


def sized(process: Process, io: PtyIO) -> Process:
    """Return a process with a terminal of the size of `io`, unless it has a size of its own, or no terminal."""
    from ..spec import Box  # noqa: PLC0415 - there is a `Process`, so the module is loaded

    if not process.terminal or process.console_size is not None:
        return process
    found = copy.copy(process)
    found.console_size = Box(height=io.rows, width=io.cols)
    return found


def from_template(template: Process, args: Sequence[str], overrides: Overrides, io: PtyIO) -> Process:
    """Return the process that runc makes of a container's own for arguments and options: runc-exec(8).

    Args:
        template: The process of the container's configuration.
        args: The arguments.
        overrides: The options, all of them but `caps`, of which each version of runc makes another thing.
        io: The terminal.
    """
    from ..spec import Box, User  # noqa: PLC0415 - there is a `Process`, so the module is loaded

    made = copy.deepcopy(template)
    made.args = list(args)
    made.terminal = True
    made.console_size = Box(height=io.rows, width=io.cols)
    if overrides.cwd:
        made.cwd = os.fspath(overrides.cwd)
    made.apparmor_profile = overrides.apparmor or made.apparmor_profile
    made.selinux_label = overrides.process_label or made.selinux_label
    made.env = [*(made.env or []), *(f"{name}={value}" for name, value in (overrides.env or {}).items())]
    if overrides.no_new_privs:
        made.no_new_privileges = True
    user = made.user = made.user or User()
    if overrides.user is not None:
        uid, _, gid = numeric_user(overrides.user).partition(":")
        user.uid = int(uid)
        user.gid = int(gid) if gid else user.gid
    if overrides.additional_gids:
        user.additional_gids = [*(user.additional_gids or []), *overrides.additional_gids]
    return made
