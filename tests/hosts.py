"""Hosts that lack nothing, and how to take something from them."""

from __future__ import annotations

import msgspec

from runc_async._doctor import Cgroups, Host, Privileges, Rootless, Runtime
from runc_async.features import Version

HOST = Host(
    runtime=Runtime(
        command="runc",
        path="/usr/sbin/runc",
        version=Version(runtime="runc", version="1.1.5"),
        root="/run/runc",
        root_writable=True,
    ),
    cgroups=Cgroups(mode="v2", controllers=("cpu", "memory", "pids")),
    privileges=Privileges(uid=0, missing_capabilities=()),
    rootless=Rootless(user_namespaces=True, forbidden_by=None, newuidmap="/usr/bin/newuidmap", subordinate_ids=65536),
    kernel="6.18.0",
    keeps_exit_status=True,
    criu="/usr/sbin/criu",
    busybox="/usr/bin/busybox",
)
"""A host that lacks nothing."""


def change(host: Host, **parts: dict[str, object]) -> Host:
    """Return a host with some fields of its parts replaced."""
    changed = {name: msgspec.structs.replace(getattr(host, name), **fields) for name, fields in parts.items()}
    return msgspec.structs.replace(host, **changed)


USER = change(HOST, privileges={"uid": 1000, "missing_capabilities": ("CAP_SYS_ADMIN",)})
"""The same seen by a user other than root."""
