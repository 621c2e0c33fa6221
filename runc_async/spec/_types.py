"""Scalars of the runtime-spec with their ranges, and how its names are spelled in JSON."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
UInt16 = Annotated[int, Meta(ge=0, le=2**16 - 1)]
UInt32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
# Meta(le=) takes no more than an int64, so the upper bound travels beside it.
UInt64 = Annotated[int, Meta(ge=0, extra={"le": 2**64 - 1})]

# Where the specification's spelling is not plain camelCase.
_SPELLING: Final = {
    "block_io": "blockIO",
    "class_": "class",
    "class_id": "classID",
    "clos_id": "closID",
    "container_id": "containerID",
    "disable_oom_killer": "disableOOMKiller",
    "dns_search_list": "DNSSearchList",
    "exec_cpu_affinity": "execCPUAffinity",
    "first_gfn": "firstGFN",
    "first_mfn": "firstMFN",
    "host_id": "hostID",
    "kernel_tcp": "kernelTCP",
    "nr_mfns": "nrMFNs",
    "capped_cpu": "cappedCPU",
    "allow_unqualified_dns_query": "allowUnqualifiedDNSQuery",
    "throttle_read_iops_device": "throttleReadIOPSDevice",
    "throttle_write_iops_device": "throttleWriteIOPSDevice",
    "utility_vm_path": "utilityVMPath",
}


def json_name(name: str) -> str:
    """Give the specification's spelling of a field's Python name."""
    first, *rest = name.split("_")
    return _SPELLING.get(name, first + "".join(word.capitalize() for word in rest))
