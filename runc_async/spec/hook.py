"""Programs that run at certain points of a container's life: config.md, section "POSIX-platform Hooks"."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ._base import SpecObject


class Hook(SpecObject, kw_only=True):
    """A program to run, with the container's state on stdin: config.md, "POSIX-platform Hooks".

    Attributes:
        path: The program, absolute.
        args: Arguments as for execv(3), with the name first.
        env: Environment, as ``NAME=value``.
        timeout: Seconds after which the hook is killed and has failed; at least 1. No limit when absent.
    """

    path: str
    args: list[str] | None = None
    env: list[str] | None = None
    timeout: Annotated[int, Meta(ge=1)] | None = None


class Hooks(SpecObject, kw_only=True):
    """Programs by when they run; each list in order: config.md, "POSIX-platform Hooks".

    Attributes:
        prestart: During create, after the namespaces are made; in the runtime's namespaces. Deprecated in favour
            of the next three.
        create_runtime: During create, before the root is changed; in the runtime's namespaces. Since 1.0.2.
        create_container: During create, before the root is changed; in the container's namespaces. Since 1.0.2.
        start_container: During start, before the program is executed; in the container's namespaces. Since 1.0.2.
        poststart: After the program is started; in the runtime's namespaces.
        poststop: After the container is deleted; in the runtime's namespaces.
    """

    prestart: list[Hook] | None = None
    create_runtime: list[Hook] | None = None
    create_container: list[Hook] | None = None
    start_container: list[Hook] | None = None
    poststart: list[Hook] | None = None
    poststop: list[Hook] | None = None
