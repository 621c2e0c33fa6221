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
        path: Its binary, on the host.
        parameters: Its arguments.
    """

    path: str
    parameters: list[str] | None = None


class VMKernel(SpecObject, kw_only=True):
    """The guest's kernel: config-vm.md, "Kernel Object".

    Attributes:
        path: Its image, on the host.
        parameters: Its command line.
        initrd: Its initial ramdisk, on the host.
    """

    path: str
    parameters: list[str] | None = None
    initrd: str | None = None


class VMImage(SpecObject, kw_only=True):
    """The guest's root image: config-vm.md, "Image Object".

    Attributes:
        path: The image, on the host.
        format: Its format.
    """

    path: str
    format: RootImageFormat


class VMIOMem(SpecObject, kw_only=True):
    """Pages of I/O memory that the guest gets: config-vm.md, "HWConfig Object". Since 1.3.0.

    Attributes:
        first_gfn: First page inside; the same as outside when absent.
        first_mfn: First page outside.
        nr_mfns: How many pages.
    """

    first_gfn: UInt64 | None = None
    first_mfn: UInt64
    nr_mfns: UInt64


class VMHWConfig(SpecObject, kw_only=True):
    """The guest's hardware: config-vm.md, "HWConfig Object". Since 1.3.0.

    Attributes:
        device_tree: Device tree file, on the host.
        vcpus: How many CPUs.
        memory: Memory, in bytes.
        dtdevs: Device tree nodes that are passed through.
        iomems: I/O memory that is passed through.
        irqs: Interrupts that are passed through.
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
