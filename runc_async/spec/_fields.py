"""The fields of a configuration, and missing parts created for editing."""

from __future__ import annotations

from ._base import SpecObject
from ._platforms import ZOS, FreeBSD, Solaris, Windows
from .hook import Hooks
from .linux import Linux, LinuxNamespace, LinuxNamespaceType
from .mount import Mount, Root
from .process import LinuxCapabilities, Process
from .resources import LinuxResources
from .vm import VM


class SpecFields(SpecObject, kw_only=True):
    """The fields of `runc_async.spec.Spec`, which documents them."""

    oci_version: str
    process: Process | None = None
    root: Root | None = None
    hostname: str | None = None
    domainname: str | None = None
    mounts: list[Mount] | None = None
    hooks: Hooks | None = None
    annotations: dict[str, str] | None = None
    linux: Linux | None = None
    solaris: Solaris | None = None
    windows: Windows | None = None
    vm: VM | None = None
    zos: ZOS | None = None
    freebsd: FreeBSD | None = None

    def _need_process(self) -> Process:
        self.process = self.process or Process(cwd="/")
        return self.process

    def _need_capabilities(self) -> LinuxCapabilities:
        process = self._need_process()
        process.capabilities = process.capabilities or LinuxCapabilities()
        return process.capabilities

    def _need_linux(self) -> Linux:
        self.linux = self.linux or Linux()
        return self.linux

    def _need_resources(self) -> LinuxResources:
        linux = self._need_linux()
        linux.resources = linux.resources or LinuxResources()
        return linux.resources

    def _need_namespace(self, kind: LinuxNamespaceType) -> None:
        linux = self._need_linux()
        namespaces = linux.namespaces or []
        if all(namespace.type != kind for namespace in namespaces):
            linux.namespaces = [*namespaces, LinuxNamespace(type=kind)]
