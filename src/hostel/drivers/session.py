"""The user's own machines, pools and networks, or the host's, in this process and without a daemon.

``qemu:///session`` and root's ``qemu:///system`` are the same drivers over other directories.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import SplitResult

from hostel.drivers.announcing import announcing
from hostel.drivers.boot import Missed, Start, claim_start, nobody
from hostel.drivers.deferred import deferred
from hostel.drivers.events import EventBus, EventSource, Subject
from hostel.drivers.fault import fault
from hostel.drivers.registry import Drivers
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, ErrorDomain

if TYPE_CHECKING:
    from hostel.drivers.asking import Asking
    from hostel.drivers.host.driver import LinuxHostDriver
    from hostel.drivers.interface.driver import SysfsInterfaceDriver
    from hostel.drivers.network.driver import SessionNetworkDriver
    from hostel.drivers.network.system import SystemNetworkDriver
    from hostel.drivers.nodedev.driver import SysfsNodeDeviceDriver
    from hostel.drivers.nwfilter.session import SessionNwfilterDriver
    from hostel.drivers.nwfilter.system import SystemNwfilterDriver
    from hostel.drivers.qemu.driver import QemuDriver
    from hostel.drivers.secret.driver import VaultSecretDriver
    from hostel.drivers.storage.driver import SessionStorageDriver

_PATHS = ("/session", "/system")


def open_session(
    uri: SplitResult, directories: Directories, asking: Asking | None = None, missed: Missed = nobody
) -> Drivers | None:
    """Open the drivers of this process; None for another scheme.

    Args:
        uri: ``qemu:///session`` or ``qemu:///system``.
        directories: where everything is kept.
        asking: nobody is asked for anything here.
        missed: is told what was to start by itself and did not.

    Raises:
        VirtError: the URI has another path.
    """
    if uri.scheme != "qemu":
        return None
    if uri.path not in _PATHS:
        known = "qemu:///system" if os.geteuid() == 0 else "qemu:///session"
        raise fault(ErrorCode.INTERNAL_ERROR, f"unexpected QEMU URI path '{uri.path}', try {known}", ErrorDomain.QEMU)
    from hostel.drivers.qemu.driver import QemuDriver

    bus = EventBus(directories.state / "events")
    storage = announcing(deferred(lambda: _storage(directories)), Subject.POOL, bus)
    is_system = uri.path == "/system"
    network = announcing(deferred(lambda: _network(directories, is_system=is_system)), Subject.NETWORK, bus)
    secret = deferred(lambda: _secret(directories, bus))
    nwfilter = deferred(lambda: _nwfilter(directories, is_system=is_system))
    hypervisor = QemuDriver(directories, storage=storage, network=network, nwfilter=nwfilter)
    start = claim_start(directories)
    if start is Start.AFTER_REBOOT:
        storage.forget_running()
        network.forget_running()
        _forget_ephemeral_secrets(directories)
    if start is not Start.ANOTHER:
        # What libvirt's daemon does as it starts; machines last, since they need the others.
        storage.connect_autostart(missed)
        network.connect_autostart(missed)
        hypervisor.connect_autostart(missed)
    node_device = deferred(lambda: _node_device(hypervisor))
    host = (node_device, deferred(_interface), nwfilter, deferred(_host))
    events = deferred(lambda: _events(hypervisor, node_device))
    return Drivers(f"qemu://{uri.path}", hypervisor, storage, network, secret, *host, events)


def _events(hypervisor: QemuDriver, node_device: SysfsNodeDeviceDriver) -> EventSource:
    from hostel.drivers.nodedev.watch import WatchedDevices

    return WatchedDevices(hypervisor.events, lambda: node_device.look())


def _storage(directories: Directories) -> SessionStorageDriver:
    from hostel.drivers.storage.driver import SessionStorageDriver

    return SessionStorageDriver(directories)


def _network(directories: Directories, *, is_system: bool) -> SessionNetworkDriver | SystemNetworkDriver:
    from hostel.drivers.link.device import may_administer

    if is_system and may_administer():
        from hostel.drivers.network.system import SystemNetworkDriver

        return SystemNetworkDriver(directories)
    from hostel.drivers.network.driver import SessionNetworkDriver

    return SessionNetworkDriver(directories)


def _nwfilter(directories: Directories, *, is_system: bool) -> SessionNwfilterDriver | SystemNwfilterDriver:
    from hostel.drivers.link.device import may_administer

    if is_system and may_administer():
        from hostel.drivers.nwfilter.system import SystemNwfilterDriver

        return SystemNwfilterDriver(directories)
    from hostel.drivers.nwfilter.session import SessionNwfilterDriver

    return SessionNwfilterDriver()


def _host() -> LinuxHostDriver:
    from hostel.drivers.host.driver import LinuxHostDriver

    return LinuxHostDriver()


def _node_device(hypervisor: QemuDriver) -> SysfsNodeDeviceDriver:
    from hostel.drivers.nodedev.driver import SysfsNodeDeviceDriver

    return SysfsNodeDeviceDriver(user_of=hypervisor.user_of_function)


def _interface() -> SysfsInterfaceDriver:
    from hostel.drivers.interface.driver import SysfsInterfaceDriver

    return SysfsInterfaceDriver()


def _secret(directories: Directories, bus: EventBus) -> VaultSecretDriver:
    from hostel.drivers.secret.driver import VaultSecretDriver
    from hostel.drivers.secret.vault import DiskVault

    return VaultSecretDriver(DiskVault(directories), bus)


def _forget_ephemeral_secrets(directories: Directories) -> None:
    from hostel.drivers.secret.vault import DiskVault

    DiskVault(directories).forget_running()
