"""What a driver is: references, states and the calls that the object model makes.

Drivers speak in references (:class:`DomainRef` and its siblings), XML strings and plain records, never in object-model
handles: that keeps the layers acyclic and is what goes over the wire. A method's name is the name of libvirt's remote
procedure (``domain_define_xml`` is ``REMOTE_PROC_DOMAIN_DEFINE_XML``). Errors are :class:`hostel.errors.VirtError`.
"""

from __future__ import annotations

from hostel.drivers.base.domain import (
    ConsoleStream,
    CrashedReason,
    DestroyFlag,
    DomainInfo,
    DomainRef,
    DomainState,
    DomainXmlFlag,
    HypervisorDriver,
    PausedReason,
    RunningReason,
    SecurityLabel,
    SecurityModel,
    ShutdownFlag,
    ShutoffReason,
    StartFlag,
    StateInfo,
    UndefineFlag,
)
from hostel.drivers.base.network import (
    NetworkDriver,
    NetworkRef,
)
from hostel.drivers.base.storage import (
    Hole,
    PoolInfo,
    PoolRef,
    PoolState,
    Progress,
    StorageDriver,
    VolumeCreateFlag,
    VolumeInfo,
    VolumeRef,
    VolumeResizeFlag,
    VolumeRow,
    VolumeType,
    WipeAlgorithm,
)

__all__ = [
    "ConsoleStream",
    "CrashedReason",
    "DestroyFlag",
    "DomainInfo",
    "DomainRef",
    "DomainState",
    "DomainXmlFlag",
    "Hole",
    "HypervisorDriver",
    "NetworkDriver",
    "NetworkRef",
    "PausedReason",
    "PoolInfo",
    "PoolRef",
    "PoolState",
    "Progress",
    "RunningReason",
    "SecurityLabel",
    "SecurityModel",
    "ShutdownFlag",
    "ShutoffReason",
    "StartFlag",
    "StateInfo",
    "StorageDriver",
    "UndefineFlag",
    "VolumeCreateFlag",
    "VolumeInfo",
    "VolumeRef",
    "VolumeResizeFlag",
    "VolumeRow",
    "VolumeType",
    "WipeAlgorithm",
]
