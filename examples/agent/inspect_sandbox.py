"""The sandbox for inspect_ai: import this module, and `Task(sandbox="runc_async")` gets a container for each sample."""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

import errno
import os
import posixpath
import secrets
from contextlib import AsyncExitStack
from typing import Any

from inspect_ai import util

from runc_async import CapturedIO, ExecutableDenied, ExecutableNotFound, Runc

from .sandbox import HOME, Sandbox, open_sandbox

USERS = {None: None, "root": 0, "nobody": 65534}
"""The names of users that the sandbox knows."""


@util.sandboxenv(name="runc_async")
class RuncSandbox(util.SandboxEnvironment):
    """One container."""

    def __init__(self, sandbox: Sandbox, stack: AsyncExitStack) -> None:
        super().__init__()
        self.container, self.stack = sandbox.container, stack

    @classmethod
    async def sample_init(cls, *_: Any) -> dict[str, util.SandboxEnvironment]:
        """Make the container of a sample."""
        stack = AsyncExitStack()
        sandbox = await stack.enter_async_context(open_sandbox(Runc(), f"inspect-{secrets.token_hex(6)}"))
        return {"default": cls(sandbox, stack)}

    @classmethod
    async def sample_cleanup(cls, _: Any, __: Any, environments: dict[str, util.SandboxEnvironment], *___: Any) -> None:
        """Delete it."""
        await environments["default"].as_type(cls).stack.aclose()

    async def exec(self, cmd: list[str], input: str | bytes | None = None, **options: Any) -> util.ExecResult[str]:  # noqa: A002
        """Run a command; out of time, it ends with all that it has started, and `TimeoutError` is raised."""
        user, cwd = options.get("user"), posixpath.join(HOME, options.get("cwd") or "")
        if user not in USERS and not str(user).isdecimal():
            raise util.SandboxUserUnsupportedError(f"no such user: {user}")
        given: dict[str, Any] = {"user": USERS.get(user, user), "cwd": cwd}
        given |= {name: options.get(name) for name in ("env", "timeout")}
        io, data = CapturedIO(limit=util.SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE), _encoded(input)
        try:
            ended = await self.container.exec(cmd, io=io, input=data, grace=0, **given)
        except ExecutableDenied as error:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), cmd[0]) from error
        except ExecutableNotFound as error:
            return util.ExecResult(success=False, returncode=127, stdout="", stderr=str(error))
        output = (stream.decode(errors="replace") for stream in (ended.stdout, ended.stderr))
        return util.ExecResult(ended.exit_code == 0, -1 if ended.exit_code is None else ended.exit_code, *output)

    async def write_file(self, file: str, contents: str | bytes) -> None:
        """Write a file, and make its directories."""
        await self.container.write_file(posixpath.join(HOME, file), _encoded(contents) or b"", parents=True)

    async def read_file(self, file: str, text: bool = True) -> Any:  # noqa: FBT001, FBT002
        """Read a file."""
        limit = util.SandboxEnvironmentLimits.MAX_READ_FILE_SIZE
        try:
            data = await self.container.read_file(posixpath.join(HOME, file), limit=limit)
        except OSError as error:
            if error.errno == errno.EFBIG:
                raise util.OutputLimitExceededError(
                    util.SandboxEnvironmentLimits.MAX_READ_FILE_SIZE_STR, None
                ) from error
            raise
        return data.decode() if text else data


def _encoded(data: str | bytes | None) -> bytes | None:
    """Encode text."""
    return data.encode() if isinstance(data, str) else data
