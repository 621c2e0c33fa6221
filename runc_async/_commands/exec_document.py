"""Process documents for `exec`, built from the container's own process by the runtime's rules.

Values of `--env` would appear in the runtime's command line, which every user of the host can read. A document avoids
this; but the runtime then ignores the container's process, so the rules are implemented here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from .._bundles.check import CONFIG
from .._linux.files import read_bounded
from .._runtimes.dialect import UNDECODABLE, Dialect, ProcessChanges
from .._runtimes.known import DIALECTS, read_record
from .._text import capability_name
from .argv import Overrides
from .words import numeric_user

_LIMIT: Final = 16 << 20


class Template(NamedTuple):
    """The place of a container's own process.

    Attributes:
        dialect: The dialect of the runtime.
        config: The path of the config.json.
    """

    dialect: Dialect
    config: str

    def process(self) -> dict[str, Any] | None:
        """Read the process; None if unreadable from here."""
        try:
            config = msgspec.json.decode(read_bounded(self.config, _LIMIT), type=_Config)
        except (OSError, *UNDECODABLE):
            return None
        return config.process or (None if config.spec is None else config.spec.process)


class ProcessDocument(msgspec.Struct, frozen=True):
    """A process document with fields of the container and of the caller, unchecked.

    Attributes:
        fields: The keys of the document.
    """

    fields: dict[str, Any]

    @property
    def args(self) -> list[str]:
        """The program and its arguments."""
        args: list[str] = self.fields["args"]
        return args

    @property
    def env(self) -> list[str]:
        """The environment, as `name=value`."""
        env: list[str] = self.fields["env"]
        return env

    def encode(self) -> bytes:
        """Return the JSON document."""
        return msgspec.json.encode(self.fields)


class _Spec(msgspec.Struct):
    process: dict[str, Any]


class _Config(msgspec.Struct):
    """A config.json, or a record that includes one."""

    process: dict[str, Any] | None = None
    spec: _Spec | None = None


def find_template(state_directory: str, container_id: str) -> Template | None:
    """Find a container's own process through the runtime's record; None without a readable record."""
    try:
        record = read_record(state_directory, container_id)
    except OSError:
        return None
    return None if record is None or not record.config else Template(DIALECTS[record.runtime], record.config)


def template_in(bundle: str, runtime: str) -> Template | None:
    """Return the place of the process in a bundle; None for a runtime with unknown rules."""
    dialect = DIALECTS.get(runtime)
    return None if dialect is None else Template(dialect, os.path.join(bundle, CONFIG))


def exec_document(  # noqa: PLR0917 - all that a runtime makes it of
    dialect: Dialect,
    template: Mapping[str, Any],
    args: Sequence[str],
    overrides: Overrides,
    version: tuple[int, ...],
    size: tuple[int, int] | None = None,
) -> ProcessDocument:
    """Return the document that a runtime would build from the container's own process and the options of `exec`.

    Args:
        dialect: The dialect of the runtime.
        template: The container's own process.
        args: The program and its arguments.
        overrides: The options.
        version: The numbers of the runtime's version; empty for the newest rules.
        size: Rows and columns of the terminal.
    """
    process = dialect.make_process(template, _changes(overrides), version)
    changes = {
        "args": list(args),
        "cwd": None if overrides.cwd is None else os.fspath(overrides.cwd),
        "apparmorProfile": overrides.apparmor,
        "selinuxLabel": overrides.process_label,
        "noNewPrivileges": overrides.no_new_privs or None,
    }
    process.update({name: value for name, value in changes.items() if value})
    own: list[str] = template.get("env") or []
    process["env"] = [*own, *(f"{name}={value}" for name, value in (overrides.env or {}).items())]
    process["terminal"] = overrides.tty
    # The size belongs to the terminal of the container's own process.
    process.pop("consoleSize", None)
    if size is not None:
        process["consoleSize"] = {"height": size[0], "width": size[1]}
    return ProcessDocument(process)


def _changes(overrides: Overrides) -> ProcessChanges:
    """Return the changes that differ between runtimes."""
    uid = gid = None
    if overrides.user is not None:
        user, _, group = numeric_user(overrides.user).partition(":")
        uid, gid = int(user), int(group) if group else None
    caps = tuple(map(capability_name, overrides.caps))
    return ProcessChanges(uid=uid, gid=gid, additional_gids=overrides.additional_gids, caps=caps)
