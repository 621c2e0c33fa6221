"""A whole process document for `exec`, made of the container's own process as the runtime itself would make it.

The values of `--env` stand in the runtime's command line, which every user of the host can read. With a document they
don't; but then the runtime takes nothing from the container's process, so that is done here, by the runtime's rules.
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
from .argv import Overrides
from .words import numeric_user

_LIMIT: Final = 16 << 20


class Template(NamedTuple):
    """Where a runtime looks for a container's own process.

    Attributes:
        dialect: By whose rules.
        config: The path of the config.json.
    """

    dialect: Dialect
    config: str

    def process(self) -> dict[str, Any] | None:
        """Read the process; None if it can't be read from here."""
        try:
            config = msgspec.json.decode(read_bounded(self.config, _LIMIT), type=_Config)
        except (OSError, *UNDECODABLE):
            return None
        return config.process or (None if config.spec is None else config.spec.process)


class ProcessDocument(msgspec.Struct, frozen=True):
    """A process document: what stands in it is the container's own and the caller's, and nothing is checked.

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
        """Its environment, as `name=value`."""
        env: list[str] = self.fields["env"]
        return env

    def encode(self) -> bytes:
        """Give the JSON document."""
        return msgspec.json.encode(self.fields)


class _Spec(msgspec.Struct):
    process: dict[str, Any]


class _Config(msgspec.Struct):
    """A config.json, or a record that has one in it."""

    process: dict[str, Any] | None = None
    spec: _Spec | None = None


def find_template(state_directory: str, container_id: str) -> Template | None:
    """Look for a container's own process in what the runtime keeps; None if there is no such record, or no access."""
    try:
        record = read_record(state_directory, container_id)
    except OSError:
        return None
    return None if record is None or not record.config else Template(DIALECTS[record.runtime], record.config)


def template_in(bundle: str, runtime: str) -> Template | None:
    """Return where a bundle has the process of a runtime's container; None for a runtime whose rules aren't known."""
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
    """Make the document that a runtime makes for itself of the container's own process and the options of `exec`.

    Args:
        dialect: By whose rules.
        template: The container's own process.
        args: The program and its arguments.
        overrides: The options.
        version: The numbers of the runtime's version, for what has changed; none for the newest.
        size: The rows and columns of its terminal, which has none yet.
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
    process.pop("consoleSize", None)
    if size is not None:
        process["consoleSize"] = {"height": size[0], "width": size[1]}
    return ProcessDocument(process)


def _changes(overrides: Overrides) -> ProcessChanges:
    """Return the changes in which runtimes differ."""
    uid = gid = None
    if overrides.user is not None:
        user, _, group = numeric_user(overrides.user).partition(":")
        uid, gid = int(user), int(group) if group else None
    return ProcessChanges(uid=uid, gid=gid, additional_gids=overrides.additional_gids, caps=overrides.caps)
