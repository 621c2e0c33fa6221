"""Containers in virtual machines: config-vm.md. Since 1.0.2."""

from __future__ import annotations

from typing import Literal

from ._base import SpecObject
from ._types import UInt32, UInt64

RootImageFormat = Literal["raw", "qcow2", "vdi", "vmdk", "vhd"]
"""Formats of `VMImage`."""


class VMHypervisor(SpecObject, kw_only=True):
    """The hypervisor: config-vm.md, "Hypervisor Object".

    Attributes:
        path: The binary, on the host.
        parameters: The arguments.
    """

    path: str
    parameters: list[str] | None = None


class VMKernel(SpecObject, kw_only=True):
    """The guest's kernel: config-vm.md, "Kernel Object".

    Attributes:
        path: The image, on the host.
        parameters: The command line.
        initrd: The initial ramdisk, on the host.
    """

    path: str
    parameters: list[str] | None = None
    initrd: str | None = None


class VMImage(SpecObject, kw_only=True):
    """The guest's root image: config-vm.md, "Image Object".

    Attributes:
        path: The image, on the host.
        format: The format of the image.
    """

    path: str
    format: RootImageFormat


class VMIOMem(SpecObject, kw_only=True):
    """Pages of I/O memory for the guest: config-vm.md, "HWConfig Object". Since 1.3.0.

    Attributes:
        first_gfn: First page inside; the same as outside when absent.
        first_mfn: First page outside.
        nr_mfns: Number of pages.
    """

    first_gfn: UInt64 | None = None
    first_mfn: UInt64
    nr_mfns: UInt64


class VMHWConfig(SpecObject, kw_only=True):
    """The guest's hardware: config-vm.md, "HWConfig Object". Since 1.3.0.

    Attributes:
        device_tree: Device tree file, on the host.
        vcpus: Number of CPUs.
        memory: Memory, in bytes.
        dtdevs: Device tree nodes for passthrough.
        iomems: I/O memory for passthrough.
        irqs: Interrupts for passthrough.
    """

    device_tree: str | None = None
    vcpus: UInt32 | None = None
    memory: UInt64 | None = None
    dtdevs: list[str] | None = None
    iomems: list[VMIOMem] | None = None
    irqs: list[UInt32] | None = None


class VM(SpecObject, kw_only=True):
    """The virtual machine of a container: config-vm.md.

    Attributes:
        hypervisor: The hypervisor.
        kernel: The guest's kernel.
        image: The guest's root image.
        hw_config: The guest's hardware. Since 1.3.0.
    """

    hypervisor: VMHypervisor | None = None
    kernel: VMKernel
    image: VMImage | None = None
    hw_config: VMHWConfig | None = None
