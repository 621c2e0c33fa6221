"""Constraints on the parts of a configuration for other platforms than Linux.

These parts stay plain mappings, because nothing here runs on the other platforms; the structs serve validation only.
They follow config-freebsd.md, config-solaris.md, config-windows.md and config-zos.md.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from ._base import SpecObject
from ._reader import SHAPE
from ._types import UInt16, UInt32, UInt64

_UInt8 = Annotated[int, Meta(ge=0, le=2**8 - 1)]
_Sharing = Literal["disable", "new", "inherit"]
_SharingOn = Literal["new", "inherit"]


class _JailAllow(SpecObject, kw_only=True):
    set_hostname: bool | None = None
    raw_sockets: bool | None = None
    chflags: bool | None = None
    mount: list[str] | None = None
    quotas: bool | None = None
    socket_af: bool | None = None
    mlock: bool | None = None
    reserved_ports: bool | None = None
    suser: bool | None = None


class _Jail(SpecObject, kw_only=True):
    parent: str | None = None
    host: _SharingOn | None = None
    ip4: _Sharing | None = None
    ip4_addr: list[str] | None = None
    ip6: _Sharing | None = None
    ip6_addr: list[str] | None = None
    vnet: _SharingOn | None = None
    interface: str | None = None
    vnet_interfaces: list[str] | None = None
    sysvmsg: _Sharing | None = None
    sysvsem: _Sharing | None = None
    sysvshm: _Sharing | None = None
    enforce_statfs: _UInt8 | None = None
    allow: _JailAllow | None = None


class _FreeBSDDevice(SpecObject, kw_only=True):
    path: str | None = None
    mode: Annotated[int, Meta(ge=0, le=0o777)] | None = None


class _FreeBSD(SpecObject, kw_only=True):
    devices: list[_FreeBSDDevice] | None = None
    jail: _Jail | None = None


class _CappedCPU(SpecObject, kw_only=True):
    ncpus: str | None = None


class _CappedMemory(SpecObject, kw_only=True):
    physical: str | None = None
    swap: str | None = None


class _Anet(SpecObject, kw_only=True):
    linkname: str | None = None
    lower_link: str | None = None
    allowed_address: str | None = None
    configure_allowed_address: str | None = None
    defrouter: str | None = None
    mac_address: str | None = None
    link_protection: str | None = None


class _Solaris(SpecObject, kw_only=True):
    milestone: str | None = None
    limitpriv: str | None = None
    max_shm_memory: str | None = None
    capped_cpu: _CappedCPU | None = None
    capped_memory: _CappedMemory | None = None
    anet: list[_Anet] | None = None


class _WindowsDevice(SpecObject, kw_only=True):
    id: str
    id_type: Literal["class"]


class _WindowsMemory(SpecObject, kw_only=True):
    limit: UInt64 | None = None


class _WindowsAffinity(SpecObject, kw_only=True):
    mask: UInt64 | None = None
    group: UInt32 | None = None


class _WindowsCPU(SpecObject, kw_only=True):
    count: UInt64 | None = None
    shares: UInt16 | None = None
    maximum: UInt16 | None = None
    affinity: _WindowsAffinity | None = None


class _WindowsStorage(SpecObject, kw_only=True):
    iops: UInt64 | None = None
    bps: UInt64 | None = None
    sandbox_size: UInt64 | None = None


class _WindowsResources(SpecObject, kw_only=True):
    memory: _WindowsMemory | None = None
    cpu: _WindowsCPU | None = None
    storage: _WindowsStorage | None = None


class _WindowsNetwork(SpecObject, kw_only=True):
    endpoint_list: list[str] | None = None
    allow_unqualified_dns_query: bool | None = None
    dns_search_list: list[str] | None = None
    network_shared_container_name: str | None = None
    network_namespace: str | None = None


class _HyperV(SpecObject, kw_only=True):
    utility_vm_path: str | None = None


class _Windows(SpecObject, kw_only=True):
    layer_folders: Annotated[list[str], Meta(min_length=1)]
    devices: list[_WindowsDevice] | None = None
    resources: _WindowsResources | None = None
    network: _WindowsNetwork | None = None
    credential_spec: dict[str, Any] | None = None
    servicing: bool | None = None
    ignore_flushes_during_boot: bool | None = None
    hyperv: _HyperV | None = None


class _ZOSNamespace(SpecObject, kw_only=True):
    type: Literal["mount", "pid", "uts", "ipc"]
    path: str | None = None


class _ZOS(SpecObject, kw_only=True):
    namespaces: list[_ZOSNamespace] | None = None


FreeBSD = Annotated[dict[str, Any], Meta(extra={SHAPE: _FreeBSD})]
Solaris = Annotated[dict[str, Any], Meta(extra={SHAPE: _Solaris})]
Windows = Annotated[dict[str, Any], Meta(extra={SHAPE: _Windows})]
ZOS = Annotated[dict[str, Any], Meta(extra={SHAPE: _ZOS})]
