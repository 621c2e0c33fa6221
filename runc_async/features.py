"""Capabilities and version of a runtime: the output of `features` and `--version`."""

from __future__ import annotations

import re

import msgspec

# The digits that a version begins with; nine of them at most, so that no int() is slow or refused.
_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})*")


class Feature(msgspec.Struct, frozen=True):
    """A feature that is compiled in or not.

    Attributes:
        enabled: Whether it was compiled in; None if the runtime doesn't report it. The host may lack the feature in any
            case.
    """

    enabled: bool | None = None


class CgroupFeatures(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The compiled-in cgroup managers, whatever the host has; None: not reported.

    Attributes:
        v1: cgroup v1.
        v2: cgroup v2.
        systemd: systemd's system manager.
        systemd_user: systemd's user managers.
        rdma: The RDMA controller.
    """

    v1: bool | None = None
    v2: bool | None = None
    systemd: bool | None = None
    systemd_user: bool | None = None
    rdma: bool | None = None


class SeccompFeatures(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Values that `linux.seccomp` of a config.json may contain; None: not reported.

    Attributes:
        enabled: Whether seccomp was compiled in.
        actions: Actions, such as `SCMP_ACT_ERRNO`.
        operators: Operators, such as `SCMP_CMP_EQ`.
        archs: Architectures, such as `SCMP_ARCH_X86_64`.
        known_flags: Flags known to the runtime.
        supported_flags: Flags that this kernel and libseccomp support too.
    """

    enabled: bool | None = None
    actions: list[str] | None = None
    operators: list[str] | None = None
    archs: list[str] | None = None
    known_flags: list[str] | None = None
    supported_flags: list[str] | None = None


class IntelRdtFeatures(msgspec.Struct, frozen=True, kw_only=True):
    """Support of Intel RDT; None: not reported.

    Attributes:
        enabled: Whether it was compiled in.
        schemata: Whether `linux.intelRdt.schemata` of a config.json has an effect.
        monitoring: Whether `linux.intelRdt.enableMonitoring` has an effect.
    """

    enabled: bool | None = None
    schemata: bool | None = None
    monitoring: bool | None = None


class MountExtensions(msgspec.Struct, frozen=True, kw_only=True):
    """Extensions of mounts; None: not reported.

    Attributes:
        idmap: Mounts with `uidMappings` and `gidMappings`.
    """

    idmap: Feature | None = None


class MemoryPolicyFeatures(msgspec.Struct, frozen=True, kw_only=True):
    """Values that `linux.memoryPolicy` of a config.json may contain; None: not reported.

    Attributes:
        modes: Modes, such as `MPOL_BIND`.
        flags: Flags, such as `MPOL_F_STATIC_NODES`.
    """

    modes: list[str] | None = None
    flags: list[str] | None = None


class LinuxFeatures(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Features on Linux (runtime-spec features-linux.md); None: not reported, which doesn't mean "no".

    Attributes:
        namespaces: Types of namespaces, such as `pid`.
        capabilities: Capabilities, such as `CAP_SYS_ADMIN`.
        cgroup: cgroup managers.
        seccomp: System call filters.
        apparmor: AppArmor.
        selinux: SELinux.
        intel_rdt: Intel RDT.
        memory_policy: NUMA memory policies.
        mount_extensions: Extensions of mounts.
        net_devices: Moving network devices into the container.
    """

    namespaces: list[str] | None = None
    capabilities: list[str] | None = None
    cgroup: CgroupFeatures | None = None
    seccomp: SeccompFeatures | None = None
    apparmor: Feature | None = None
    selinux: Feature | None = None
    intel_rdt: IntelRdtFeatures | None = None
    memory_policy: MemoryPolicyFeatures | None = None
    mount_extensions: MountExtensions | None = None
    net_devices: Feature | None = None


class Features(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Features of a runtime, as printed by `runc features` (runtime-spec features.md).

    runc 1.0 and crun 1.8 have no such command. None means "not reported", never "no".

    Attributes:
        oci_version_min: The oldest supported `ociVersion` of a config.json.
        oci_version_max: The newest.
        hooks: Names of hooks, such as `createRuntime`.
        mount_options: Options of mounts that the runtime itself handles; a filesystem may know more.
        linux: Features on Linux.
        annotations: Facts under the runtime's own names, such as `org.opencontainers.runc.version`. The line
            break at the end of that value in runc 1.3 and 1.4 is removed.
        potentially_unsafe_config_annotations: Annotations of a config.json that change the runtime's behaviour;
            an entry that ends in a dot is a prefix.
    """

    oci_version_min: str
    oci_version_max: str
    hooks: list[str] | None = None
    mount_options: list[str] | None = None
    linux: LinuxFeatures | None = None
    annotations: dict[str, str] = {}
    potentially_unsafe_config_annotations: list[str] | None = None


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """Name and version of a runtime, as printed by `--version`; None: not reported.

    Attributes:
        runtime: The runtime's name: `runc`, `crun`.
        version: The version in full, additions of the distribution included: `1.1.5+ds1`.
        commit: The commit, or the packager's text in its place.
        spec: The implemented version of the runtime-spec.
        go: The version of the Go compiler, such as `go1.19.8`; runc only.
        libseccomp: The version of libseccomp in use; runc only, and None without seccomp.
        raw: The whole output.
    """

    runtime: str
    version: str
    commit: str | None = None
    spec: str | None = None
    go: str | None = None
    libseccomp: str | None = None
    raw: str = ""

    @property
    def number(self) -> tuple[int, ...]:
        """The numbers at the beginning of the version, for comparing: (1, 1, 5) for `1.1.5+ds1`.

        A release candidate has the numbers of its release. The tuple is empty for a version without numbers, and so
        less than any other.
        """
        match = _NUMBER.match(self.version)
        return tuple(map(int, match[0].split("."))) if match else ()
