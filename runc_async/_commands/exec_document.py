"""A whole process document for `exec`, made of the container's own process as the runtime itself would make it.

The values of `--env` stand in the runtime's command line, which every user of the host can read. With a document they
don't; but then the runtime takes nothing from the container's process, so that is done here, by the runtime's rules.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec

from .._answers.decode import UNDECODABLE
from .._bundles.check import CONFIG
from .._linux.files import read_bounded
from .argv import Overrides
from .words import numeric_user

_LIMIT: Final = 16 << 20

Kind = Literal["runc", "crun"]

_KINDS: Final = ("bounding", "effective", "permitted", "ambient")


class Template(NamedTuple):
    """Where a runtime looks for a container's own process.

    Attributes:
        kind: By whose rules.
        config: The path of the config.json.
    """

    kind: Kind
    config: str

    def process(self) -> dict[str, Any] | None:
        """Read the process; None if it can't be read from here."""
        try:
            process = msgspec.json.decode(read_bounded(self.config, _LIMIT), type=_Config).process
        except (OSError, *UNDECODABLE):
            return None
        return process


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


class _Config(msgspec.Struct):
    process: dict[str, Any]


class _Labels(msgspec.Struct):
    labels: list[str] = []


class _Record(msgspec.Struct):
    config: _Labels


def find_template(state_directory: str, container_id: str) -> Template | None:
    """Look for a container's own process in what the runtime keeps; None if there is no such record, or no access.

    runc reads the config.json of the bundle anew for each `exec`, and notes where that is; crun keeps a copy.
    """
    directory = os.path.join(state_directory, container_id)
    try:
        record = msgspec.json.decode(read_bounded(os.path.join(directory, "state.json"), _LIMIT), type=_Record)
    except (OSError, *UNDECODABLE):
        copy = os.path.join(directory, CONFIG)
        return Template("crun", copy) if os.path.exists(copy) else None
    bundles = (label.removeprefix("bundle=") for label in record.config.labels if label.startswith("bundle="))
    return next((template_in(bundle, "runc") for bundle in bundles), None)


def template_in(bundle: str, runtime: str) -> Template | None:
    """Return where a bundle has the process of a runtime's container; None for a runtime whose rules aren't known."""
    config = os.path.join(bundle, CONFIG)
    return {"runc": Template("runc", config), "crun": Template("crun", config)}.get(runtime)


def exec_document(  # noqa: PLR0917 - all that a runtime makes it of
    kind: Kind,
    template: Mapping[str, Any],
    args: Sequence[str],
    overrides: Overrides,
    version: tuple[int, ...],
    size: tuple[int, int] | None = None,
) -> ProcessDocument:
    """Make the document that a runtime makes for itself of the container's own process and the options of `exec`.

    Args:
        kind: By whose rules.
        template: The container's own process.
        args: The program and its arguments.
        overrides: The options.
        version: The numbers of the runtime's version, for what has changed; none for the newest.
        size: The rows and columns of its terminal, which has none yet.
    """
    process = _of_runc(template, overrides, version) if kind == "runc" else _of_crun(template, overrides)
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


def _of_runc(template: Mapping[str, Any], overrides: Overrides, version: tuple[int, ...]) -> dict[str, Any]:
    """Take the container's process, and change its user and capabilities: `getProcess` of runc's exec.go."""
    process = dict(template)
    user: dict[str, Any] = dict(process.get("user") or {})
    if overrides.user is not None:
        uid, _, gid = numeric_user(overrides.user).partition(":")
        user["uid"] = int(uid)
        if gid:  # else the group stays that of the container's process
            user["gid"] = int(gid)
    if overrides.additional_gids:
        user["additionalGids"] = [*(user.get("additionalGids") or ()), *overrides.additional_gids]
    process["user"] = user
    if overrides.caps:
        process["capabilities"] = _with_caps(process.get("capabilities") or {}, overrides.caps, version)
    return process


def _with_caps(held: Mapping[str, Any], caps: Sequence[str], version: tuple[int, ...]) -> dict[str, Any]:
    """Add capabilities, to the sets to which this version of runc does."""
    kinds = [*_KINDS]
    if version and version < (1, 1, 2):  # that is the mending of CVE-2022-29162
        kinds.append("inheritable")
    elif (not version or version >= (1, 2)) and held.get("inheritable") is None:
        kinds.remove("ambient")
    return {**held, **{kind: [*(held.get(kind) or ()), *caps] for kind in kinds}}


def _of_crun(template: Mapping[str, Any], overrides: Overrides) -> dict[str, Any]:
    """Take nothing of the container's process but what crun takes for any document: its user, labels, capabilities.

    Its working directory and no_new_privs aren't taken over, nor its limits: `crun_command_exec` of crun's exec.c.
    """
    process: dict[str, Any] = {"cwd": "/"}
    user = template.get("user")
    if overrides.user is not None:
        uid, _, gid = numeric_user(overrides.user).partition(":")
        process["user"] = {"uid": int(uid), "gid": int(gid or 0)}
    elif user is not None:
        process["user"] = user
    if overrides.caps:
        process["capabilities"] = {
            kind: list(overrides.caps) for kind in ("bounding", "effective", "permitted", "ambient")
        }
    return process
