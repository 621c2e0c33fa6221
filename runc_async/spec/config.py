"""The whole configuration of a container, config.json: config.md."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final, Self

from msgspec import structs

from ._fields import SpecFields
from ._units import UNLIMITED, is_whole, to_limit, to_rlimit, to_size
from .defaults import default_linux, default_mounts, default_process
from .linux import LinuxIDMapping, LinuxNamespace, LinuxNamespaceType
from .mount import Mount, Root
from .process import Box, POSIXRlimit, User
from .resources import LinuxCPU, LinuxMemory, LinuxPids
from .seccomp import LinuxSeccomp

OCI_VERSION: Final = "1.3.0"
"""The version of the runtime-spec that these structs follow."""

_LEAST_QUOTA: Final = 1000
_LONGEST_PERIOD: Final = 1_000_000


class Spec(SpecFields, kw_only=True):
    """The configuration of a container, config.json in its bundle: config.md.

    Fields can be set directly. The methods from `set_args` on make the usual changes: each changes the object in place,
    creates missing parts, and returns the object, so that calls can be chained::

        Spec.default().set_args("sleep", "60").limit_memory("64M").limit_cpu(0.5)

    Attributes:
        oci_version: Version of the runtime-spec used by the document.
        process: The program to run, with its user, environment and limits.
        root: The root filesystem.
        hostname: Host name inside; needs a ``uts`` namespace.
        domainname: NIS domain name inside; needs a ``uts`` namespace. Since 1.1.0.
        mounts: Mounts besides the root, in order.
        hooks: Programs that run at certain points of the container's life.
        annotations: Any other information on the container; runtimes print it with the state.
        linux: The Linux part.
        solaris: The Solaris part, as plain values.
        windows: The Windows part, as plain values.
        vm: The virtual machine, for runtimes that start one. Since 1.0.2.
        zos: The z/OS part, as plain values. Since 1.1.0.
        freebsd: The FreeBSD part, as plain values. Since 1.3.0.
    """

    @classmethod
    def default(cls, rootless: bool = False, *, cgroup_namespace: bool | None = None) -> Self:  # noqa: FBT001, FBT002  # runc's own and only flag
        """Make the configuration that ``runc spec`` of runc 1.2 and later writes, without running runc.

        Up to runc 1.1 the capabilities are in the ambient set too.

        Args:
            rootless: As ``runc spec --rootless``: for a caller without root, with a mapping of the caller's own ids
                only.
            cgroup_namespace: Whether to add a cgroup namespace, as runc does on cgroup v2; None checks this host.
        """
        return cls(
            oci_version=OCI_VERSION,
            process=default_process(),
            root=Root(path="rootfs", readonly=True),
            hostname="runc",
            mounts=default_mounts(rootless=rootless),
            linux=default_linux(rootless=rootless, cgroup_namespace=cgroup_namespace),
        )

    def set_args(self, *args: str) -> Self:
        """Set the program and its arguments.

        Raises:
            ValueError: If no program is given.
        """
        if not args:
            raise ValueError("a process needs a program to run")
        self._need_process().args = list(args)
        return self

    def set_env(self, variables: Mapping[str, str | None]) -> Self:
        """Set environment variables of the process; None removes a variable.

        Raises:
            ValueError: If a name is empty or contains an equals sign.
        """
        for name in variables:
            if not name or "=" in name:
                raise ValueError(f"not the name of a variable: {name!r}")
        process = self._need_process()
        kept = [entry for entry in process.env or [] if entry.partition("=")[0] not in variables]
        process.env = kept + [f"{name}={value}" for name, value in variables.items() if value is not None]
        return self

    def set_user(
        self, uid: int, gid: int, *, additional_gids: Iterable[int] | None = None, umask: int | None = None
    ) -> Self:
        """Set the user and group of the process, with ids as seen inside the container.

        A user other than root has no capabilities after execve(2), unless they are ambient (see `add_capabilities`).

        Args:
            uid: User id.
            gid: Group id.
            additional_gids: Supplementary groups; None keeps the current groups.
            umask: File mode creation mask; None keeps the current mask.
        """
        process = self._need_process()
        user = process.user = process.user or User()
        user.uid, user.gid = uid, gid
        if additional_gids is not None:
            user.additional_gids = list(additional_gids)
        if umask is not None:
            user.umask = umask
        return self

    def set_cwd(self, path: str) -> Self:
        """Set the working directory of the process.

        Raises:
            ValueError: If the path isn't absolute.
        """
        self._need_process().cwd = _absolute(path)
        return self

    def set_terminal(self, *, enabled: bool = True, rows: int | None = None, cols: int | None = None) -> Self:
        """Give the process a terminal, or none.

        Args:
            enabled: Whether the process gets a terminal.
            rows: Height in characters, together with `cols`. Without both the size stays unchanged.
            cols: Width in characters.

        Raises:
            ValueError: If only one of rows and cols is given.
        """
        if (rows is None) is not (cols is None):
            raise ValueError("a console has both rows and cols, or no size")
        process = self._need_process()
        process.terminal = enabled
        if rows is not None and cols is not None:
            process.console_size = Box(height=rows, width=cols)
        return self

    def set_rlimit(self, resource: str, soft: int, hard: int | None = None) -> Self:
        """Set a resource limit of the process, setrlimit(2).

        Args:
            resource: A name such as ``RLIMIT_NOFILE``, or ``NOFILE`` for short.
            soft: The enforced limit; -1 (`resource.RLIM_INFINITY`) is no limit.
            hard: The maximum to which the process may raise the soft limit; None: same as `soft`.

        Raises:
            ValueError: If a limit is less than -1, beyond 64 bits, or a float.
        """
        soft, hard = to_rlimit(soft), to_rlimit(soft if hard is None else hard)
        resource = resource if resource.startswith("RLIMIT_") else f"RLIMIT_{resource}"
        process = self._need_process()
        kept = [limit for limit in process.rlimits or [] if limit.type != resource]
        process.rlimits = [*kept, POSIXRlimit(type=resource, soft=soft, hard=hard)]
        return self

    def add_capabilities(self, *names: str, ambient: bool = False) -> Self:
        """Give the process capabilities.

        Args:
            names: Names such as ``CAP_NET_ADMIN``, or ``NET_ADMIN`` for short.
            ambient: Whether a process without root keeps the capabilities.
        """
        self._need_capabilities().add(*names, ambient=ambient)
        return self

    def drop_capabilities(self, *names: str) -> Self:
        """Remove capabilities of the process from all sets.

        Args:
            names: Names such as ``CAP_KILL``, or ``KILL`` for short; ``ALL`` leaves none.
        """
        self._need_capabilities().drop(*names)
        return self

    def set_root(self, path: str, *, readonly: bool | None = None) -> Self:
        """Set the root filesystem.

        Args:
            path: Directory on the host, absolute or relative to the bundle.
            readonly: Whether the container can't write to the root; None keeps the current setting.
        """
        root = self.root or Root(path=path)
        self.root: Root | None = root
        root.path = path
        if readonly is not None:
            root.readonly = readonly
        return self

    def add_mount(self, mount: Mount) -> Self:
        """Add a mount, on top of earlier mounts."""
        self.mounts = [*(self.mounts or []), mount]
        return self

    def bind(
        self,
        source: str,
        destination: str,
        *,
        readonly: bool = False,
        recursive: bool = False,
        options: Iterable[str] = (),
    ) -> Self:
        """Show a file or directory of the host inside the container.

        Args:
            source: Path on the host, absolute or relative to the bundle.
            destination: Absolute path inside.
            readonly: Whether the container can't write there. In a recursive bind, mounts further down stay writable;
                the option ``rro`` (Linux 5.12, runc 1.1) makes them read-only too.
            recursive: Whether mounts below the directory are shown too.
            options: More options, such as ``nosuid``, ``nodev`` or ``noexec``.

        Raises:
            ValueError: If the destination isn't absolute.
        """
        flags = ["rbind" if recursive else "bind", *(["ro"] if readonly else []), *options]
        return self.add_mount(Mount(destination=_absolute(destination), type="none", source=source, options=flags))

    def tmpfs(
        self, destination: str, *, size: int | str | None = None, mode: int = 0o1777, options: Iterable[str] = ()
    ) -> Self:
        """Mount an empty filesystem in memory; its files count against the container's memory limit.

        Args:
            destination: Absolute path inside.
            size: Maximum in bytes, or a size such as ``64M`` or ``64Mi``; None: half of the host's memory.
            mode: Permissions of the root directory. Some versions of runc (such as 1.1.5) keep the permissions of an
                existing directory.
            options: More options, such as ``noexec``. nosuid and nodev are always set.

        Raises:
            ValueError: If the destination isn't absolute, or the size is 0 (no limit for the kernel), negative, or a
                float.
        """
        flags = ["nosuid", "nodev", f"mode={mode:o}"]
        flags += [] if size is None else [f"size={to_size(size)}"]
        return self.add_mount(
            Mount(destination=_absolute(destination), type="tmpfs", source="tmpfs", options=[*flags, *options])
        )

    def remove_mounts(self, destination: str) -> Self:
        """Remove all mounts on one destination."""
        self.mounts: list[Mount] | None = [mount for mount in self.mounts or [] if mount.destination != destination]
        return self

    def set_hostname(self, name: str) -> Self:
        """Set the host name inside, and add a ``uts`` namespace if there is none yet."""
        self.hostname: str | None = name
        self._need_namespace("uts")
        return self

    def limit_memory(
        self, limit: int | str, *, swap: int | str | None = None, reservation: int | str | None = None
    ) -> Self:
        """Limit the container's memory.

        Args:
            limit: Bytes, or a size such as ``64M`` or ``64Mi``; -1 is no limit.
            swap: Memory and swap together; the same as `limit` allows no swap, None keeps the current limit.
            reservation: Memory that stays with the container when the host runs short; None keeps the current value.

        Raises:
            ValueError: If a size is 0 (no limit for the runtimes), less than -1, or a float.
        """
        wanted = {"limit": limit, "swap": swap, "reservation": reservation}
        amounts = {name: to_limit(size) for name, size in wanted.items() if size is not None}
        resources = self._need_resources()
        resources.memory = structs.replace(resources.memory or LinuxMemory(), **amounts)
        return self

    def limit_cpu(self, cpus: float, *, period: int = 100_000) -> Self:
        """Limit the container's CPU time.

        Args:
            cpus: CPU time as a number of CPUs: 0.5, 2 ...
            period: Microseconds per period of the measurement, from 1000 to 1000000 (the kernel's limits).

        Raises:
            ValueError: If the period is out of range, or the CPU time in each period is less than a millisecond, the
                kernel's minimum.
        """
        if not is_whole(period) or not _LEAST_QUOTA <= period <= _LONGEST_PERIOD:
            raise ValueError(f"not a period from a millisecond to a second: {period!r} microseconds")
        if not _LEAST_QUOTA <= cpus * period < math.inf:
            raise ValueError(f"not a millisecond or more in each period: {cpus} cpus, {period} microseconds")
        quota = round(cpus * period)
        resources = self._need_resources()
        cpu = resources.cpu = resources.cpu or LinuxCPU()
        cpu.quota, cpu.period = quota, period
        return self

    def limit_pids(self, limit: int) -> Self:
        """Limit the number of processes and threads.

        Args:
            limit: Maximum number; -1 is no limit.

        Raises:
            ValueError: If the limit is 0 (no limit for the runtimes), less than -1, or a float.
        """
        if not is_whole(limit) or (limit < 1 and limit != UNLIMITED):
            raise ValueError(f"not a limit on processes: {limit!r}")
        self._need_resources().pids = LinuxPids(limit=limit)
        return self

    def set_namespace(self, kind: LinuxNamespaceType, path: str | None = None) -> Self:
        """Give the container a new namespace, or an existing namespace to join.

        Args:
            kind: Kind of namespace.
            path: Namespace file to join, such as ``/run/netns/a``; None: a new namespace.
        """
        linux = self._need_linux()
        others = [namespace for namespace in linux.namespaces or [] if namespace.type != kind]
        linux.namespaces = [*others, LinuxNamespace(type=kind, path=path)]
        return self

    def remove_namespace(self, kind: LinuxNamespaceType) -> Self:
        """Share a kind of namespace with the runtime."""
        linux = self._need_linux()
        linux.namespaces = [namespace for namespace in linux.namespaces or [] if namespace.type != kind]
        return self

    def map_uids(self, container_id: int, host_id: int, size: int = 1) -> Self:
        """Map user ids of the container to the host's, and add a user namespace if there is none yet.

        Args:
            container_id: First id inside.
            host_id: First id on the host.
            size: Number of ids.
        """
        linux = self._need_linux()
        mapping = LinuxIDMapping(container_id=container_id, host_id=host_id, size=size)
        linux.uid_mappings = [*(linux.uid_mappings or []), mapping]
        self._need_namespace("user")
        return self

    def map_gids(self, container_id: int, host_id: int, size: int = 1) -> Self:
        """Map group ids of the container to the host's, as `map_uids` does for users.

        Args:
            container_id: First id inside.
            host_id: First id on the host.
            size: Number of ids.
        """
        linux = self._need_linux()
        mapping = LinuxIDMapping(container_id=container_id, host_id=host_id, size=size)
        linux.gid_mappings = [*(linux.gid_mappings or []), mapping]
        self._need_namespace("user")
        return self

    def set_seccomp(self, profile: LinuxSeccomp | None) -> Self:
        """Filter the container's system calls; None removes the filter.

        Args:
            profile: The filter, such as from `runc_async.spec.default_seccomp`.
        """
        self._need_linux().seccomp = profile
        return self


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"not an absolute path: {path!r}")
    return path
