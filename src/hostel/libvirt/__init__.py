"""libvirt-python's module: its names, constants, signatures, errors and event loop, over the drivers of this package.

A program that says ``import libvirt`` runs on it with ``import hostel.libvirt as libvirt``; where the program cannot be
changed, :func:`hostel.libvirt.replace.replace_libvirt` puts it in the other module's place. Connections to drivers of
this process (``qemu:///session``, ``test:///default``) and to daemons (``qemu+unix:///system``) are alike: both are
made of calls of libvirt's remote procedures (:mod:`hostel.wire.rpc`); what needs no call, such as constants, is here.
"""

from __future__ import annotations

from hostel.libvirt.annotation import _T as _T
from hostel.libvirt.annotation import _BlkioParameter as _BlkioParameter
from hostel.libvirt.annotation import _DomainCB as _DomainCB
from hostel.libvirt.annotation import _EventAddHandleFunc as _EventAddHandleFunc
from hostel.libvirt.annotation import _EventAddTimeoutFunc as _EventAddTimeoutFunc
from hostel.libvirt.annotation import _EventCB as _EventCB
from hostel.libvirt.annotation import _EventRemoveHandleFunc as _EventRemoveHandleFunc
from hostel.libvirt.annotation import _EventRemoveTimeoutFunc as _EventRemoveTimeoutFunc
from hostel.libvirt.annotation import _EventUpdateHandleFunc as _EventUpdateHandleFunc
from hostel.libvirt.annotation import _EventUpdateTimeoutFunc as _EventUpdateTimeoutFunc
from hostel.libvirt.annotation import _MemoryParameter as _MemoryParameter
from hostel.libvirt.annotation import _SchedParameter as _SchedParameter
from hostel.libvirt.annotation import _TimerCB as _TimerCB
from hostel.libvirt.annotation import _TypedParameter as _TypedParameter
from hostel.libvirt.connection import virConnect as virConnect
from hostel.libvirt.constants.connect import *  # noqa: F403
from hostel.libvirt.constants.domain import *  # noqa: F403
from hostel.libvirt.constants.domain_event import *  # noqa: F403
from hostel.libvirt.constants.domain_job import *  # noqa: F403
from hostel.libvirt.constants.domain_signal import *  # noqa: F403
from hostel.libvirt.constants.error import *  # noqa: F403
from hostel.libvirt.constants.host import *  # noqa: F403
from hostel.libvirt.constants.network import *  # noqa: F403
from hostel.libvirt.constants.parameter import *  # noqa: F403
from hostel.libvirt.constants.storage import *  # noqa: F403
from hostel.libvirt.domain import virDomain as virDomain
from hostel.libvirt.error import libvirtError as libvirtError
from hostel.libvirt.error import registerErrorHandler as registerErrorHandler
from hostel.libvirt.error import virGetLastError as virGetLastError
from hostel.libvirt.error import virGetLastErrorCode as virGetLastErrorCode
from hostel.libvirt.error import virGetLastErrorDomain as virGetLastErrorDomain
from hostel.libvirt.error import virGetLastErrorMessage as virGetLastErrorMessage
from hostel.libvirt.error import virResetLastError as virResetLastError
from hostel.libvirt.event import _dispatchEventHandleCallback as _dispatchEventHandleCallback
from hostel.libvirt.event import _dispatchEventTimeoutCallback as _dispatchEventTimeoutCallback
from hostel.libvirt.event import _eventInvokeHandleCallback as _eventInvokeHandleCallback
from hostel.libvirt.event import _eventInvokeTimeoutCallback as _eventInvokeTimeoutCallback
from hostel.libvirt.event import virEventAddHandle as virEventAddHandle
from hostel.libvirt.event import virEventAddTimeout as virEventAddTimeout
from hostel.libvirt.event import virEventInvokeFreeCallback as virEventInvokeFreeCallback
from hostel.libvirt.event import virEventRegisterDefaultImpl as virEventRegisterDefaultImpl
from hostel.libvirt.event import virEventRegisterImpl as virEventRegisterImpl
from hostel.libvirt.event import virEventRemoveHandle as virEventRemoveHandle
from hostel.libvirt.event import virEventRemoveTimeout as virEventRemoveTimeout
from hostel.libvirt.event import virEventRunDefaultImpl as virEventRunDefaultImpl
from hostel.libvirt.event import virEventUpdateHandle as virEventUpdateHandle
from hostel.libvirt.event import virEventUpdateTimeout as virEventUpdateTimeout
from hostel.libvirt.host import virNodeDevice as virNodeDevice
from hostel.libvirt.host import virSecret as virSecret
from hostel.libvirt.network import virInterface as virInterface
from hostel.libvirt.network import virNetwork as virNetwork
from hostel.libvirt.network import virNetworkPort as virNetworkPort
from hostel.libvirt.network import virNWFilter as virNWFilter
from hostel.libvirt.network import virNWFilterBinding as virNWFilterBinding
from hostel.libvirt.opening import getVersion as getVersion
from hostel.libvirt.opening import open as open
from hostel.libvirt.opening import openAuth as openAuth
from hostel.libvirt.opening import openReadOnly as openReadOnly
from hostel.libvirt.opening import virInitialize as virInitialize
from hostel.libvirt.snapshot import virDomainCheckpoint as virDomainCheckpoint
from hostel.libvirt.snapshot import virDomainSnapshot as virDomainSnapshot
from hostel.libvirt.storage import virStoragePool as virStoragePool
from hostel.libvirt.storage import virStorageVol as virStorageVol
from hostel.libvirt.stream import virStream as virStream
