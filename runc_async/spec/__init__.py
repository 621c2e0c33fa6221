"""The OCI runtime-spec (version 1.3.0) as structs, with the specification's own names."""

from runc_async.spec._base import SpecObject as SpecObject
from runc_async.spec.process import (
    Box as Box,
    ExecCPUAffinity as ExecCPUAffinity,
    LinuxCapabilities as LinuxCapabilities,
    LinuxIOPriority as LinuxIOPriority,
    POSIXRlimit as POSIXRlimit,
    Process as Process,
    Scheduler as Scheduler,
    User as User,
)
from runc_async.spec.resources import (
    LinuxBlockIO as LinuxBlockIO,
    LinuxCPU as LinuxCPU,
    LinuxDeviceCgroup as LinuxDeviceCgroup,
    LinuxHugepageLimit as LinuxHugepageLimit,
    LinuxInterfacePriority as LinuxInterfacePriority,
    LinuxMemory as LinuxMemory,
    LinuxNetwork as LinuxNetwork,
    LinuxPids as LinuxPids,
    LinuxRdma as LinuxRdma,
    LinuxResources as LinuxResources,
    LinuxThrottleDevice as LinuxThrottleDevice,
    LinuxWeightDevice as LinuxWeightDevice,
)
