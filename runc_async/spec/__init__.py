"""The OCI runtime-spec, version 1.3.0, as structs with the specification's own names.

`Spec` is config.json, `Process` the document of ``runc exec``, `LinuxResources` the document of ``runc update``.
Modules follow the specification's chapters (`process`, `linux`, `resources`, `seccomp`, `vm` ...); unknown fields of a
document are in the `extra` of the struct.
"""

from ._base import SpecObject as SpecObject
from ._json import MAX_DOCUMENT as MAX_DOCUMENT
from ._validate import validate as validate
from ._violation import Violation as Violation
from .config import (
    OCI_VERSION as OCI_VERSION,
    Spec as Spec,
)
from .hook import (
    Hook as Hook,
    Hooks as Hooks,
)
from .linux import (
    Linux as Linux,
    LinuxDevice as LinuxDevice,
    LinuxIDMapping as LinuxIDMapping,
    LinuxIntelRdt as LinuxIntelRdt,
    LinuxMemoryPolicy as LinuxMemoryPolicy,
    LinuxNamespace as LinuxNamespace,
    LinuxNamespaceType as LinuxNamespaceType,
    LinuxNetDevice as LinuxNetDevice,
    LinuxPersonality as LinuxPersonality,
    LinuxPersonalityDomain as LinuxPersonalityDomain,
    LinuxTimeOffset as LinuxTimeOffset,
    MemoryPolicyFlag as MemoryPolicyFlag,
    MemoryPolicyMode as MemoryPolicyMode,
    RootfsPropagation as RootfsPropagation,
)
from .mount import (
    Mount as Mount,
    Root as Root,
)
from .process import (
    Box as Box,
    ExecCPUAffinity as ExecCPUAffinity,
    IOPriorityClass as IOPriorityClass,
    LinuxCapabilities as LinuxCapabilities,
    LinuxIOPriority as LinuxIOPriority,
    POSIXRlimit as POSIXRlimit,
    Process as Process,
    Scheduler as Scheduler,
    SchedulerFlag as SchedulerFlag,
    SchedulerPolicy as SchedulerPolicy,
    User as User,
)
from .profile import (
    DENIED_SYSCALLS as DENIED_SYSCALLS,
    default_seccomp as default_seccomp,
)
from .resources import (
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
from .seccomp import (
    Arch as Arch,
    LinuxSeccomp as LinuxSeccomp,
    LinuxSeccompAction as LinuxSeccompAction,
    LinuxSeccompArg as LinuxSeccompArg,
    LinuxSeccompFlag as LinuxSeccompFlag,
    LinuxSeccompOperator as LinuxSeccompOperator,
    LinuxSyscall as LinuxSyscall,
)
from .vm import (
    VM as VM,
    VMHWConfig as VMHWConfig,
    VMHypervisor as VMHypervisor,
    VMImage as VMImage,
    VMIOMem as VMIOMem,
    VMKernel as VMKernel,
)
