"""Devices of the host given to machines: taken from it at the start, given back however the machine ends.

What a machine has is said by its live document; that one is on disk before the host is asked for anything, and so is a
record of each PCI function that is to be given back, with the network settings that it had. Whoever finds the machine
gone, or its starter killed, gives back what is recorded. The records' lock is held while devices are looked for among
those that others have, so that of two machines that start at once one is refused.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from hostel.drivers import procstat
from hostel.drivers.fault import fault
from hostel.drivers.link import switchport
from hostel.drivers.link.switchport import Guest
from hostel.drivers.passthrough import network
from hostel.drivers.passthrough.pci import DRIVER, PciFunctions
from hostel.drivers.qemu import hostdevs, process
from hostel.drivers.qemu.hostdevs import Function, functions, of_host
from hostel.drivers.qemu.machines import Machines
from hostel.drivers.qemu.status import Status
from hostel.drivers.store import Store
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.device import Device
from hostel.model.domain.devices.interface import Interface
from hostel.model.domain.domain import Domain

_REBOUND: Final = "rebound"  # in a record: the host's driver had the function


class Assignment:
    """Takes devices of the host for machines of one driver, and gives them back.

    Args:
        machines: the machines.
        root: where the host's files lie.
    """

    def __init__(self, machines: Machines, root: Path = Path("/")) -> None:
        self._machines = machines
        self._root = root
        self._functions = PciFunctions(root, ErrorDomain.QEMU)
        # "DOMAIN" and what was done, by the function's name.
        self._records = Store(machines.directories.state / "qemu" / "hostdev", suffix="")

    def take(
        self, domain: Domain, devices: Iterable[Device], write: Callable[[], None], *, is_cold: bool = True
    ) -> list[str]:
        """Find devices of a live document, and take them from the host; returns notes on what was left out.

        Args:
            domain: the document; USB devices have the place where they are afterwards.
            devices: those of it that are to be taken.
            write: writes the document down.
            is_cold: whether the guest boots, and does not go on from what another run left.

        Raises:
            VirtError: one cannot be had; the caller lets go of what was taken (:meth:`settle`).
        """
        wanted = list(devices)
        if not wanted:
            return []
        self._settle_dead(domain.name)
        with self._records.locked():
            held = self._held(domain.name)
            held[domain.name] = [item for item in of_host(domain) if all(item is not device for device in wanted)]
            notes = hostdevs.check(domain.name, wanted, held, self._root, is_cold=is_cold)
            found = list(functions(wanted))
            write()
            places = [self._record(domain.name, function) for function in found]
        for function, place in zip(found, places, strict=True):
            self._take(domain, function, place)
        for function in found:
            self._check_group(function)
        return notes

    def _record(self, name: str, function: Function) -> network.Place | None:
        """Write down what of a function is about to change; returns where a card's settings are.

        What is recorded already for this machine was not given back yet, and is what the host had.
        """
        owner, done, settings, *_ = [*(self._records.read(function.name) or "").split("\n"), "", "", ""]
        if owner != name:
            done = settings = ""
        if function.is_managed and self._functions.driver(function.name) != DRIVER:
            done = _REBOUND
        place = None
        if function.interface is not None:
            _check_card(function.interface)
            found: network.Settings | network.Association
            if function.interface.virtualport is not None:
                found = network.Association(network.locate(self._functions, function.name))
            else:
                found = network.read(self._functions, function.name)
            place, settings = found.place, settings or found.format()
        self._records.write(function.name, f"{name}\n{done}\n{settings}\n")
        return place

    def _take(self, domain: Domain, function: Function, place: network.Place | None) -> None:
        if function.is_managed:
            self._functions.take(function.name)
        if function.interface is None or place is None:
            return
        mac = function.interface.mac.address if function.interface.mac is not None else ""
        port = function.interface.virtualport
        if port is None:
            network.write(network.Settings(place, mac, _vlan(function.interface)))
            return
        from hostel.drivers.qemu.capabilities import host_uuid

        profile = (port.parameters.profileid if port.parameters is not None else None) or ""
        guest = Guest(mac, profile, uuid.UUID(domain.uuid or ""), uuid.UUID(host_uuid(self._root)))
        switchport.associate(place.link, place.number, guest)

    def _check_group(self, function: Function) -> None:
        """Refuse what QEMU would: the kernel opens no group of which the host drives a part."""
        other = self._functions.in_group_of_others(function.name)
        if other is not None:
            reason = (
                f"vfio {function.name}: group {self._functions.group(function.name)} is not viable: {other} is bound "
                f"to {self._functions.driver(other)}. Please ensure all devices within the iommu_group are bound to "
                "their vfio bus driver."
            )
            raise fault(ErrorCode.INTERNAL_ERROR, reason, ErrorDomain.QEMU)

    def settle(self, domain: Domain) -> None:
        """Give back what a machine has of the host's and its document no longer names; what cannot be is logged.

        Of a group of which the document still names a part nothing is given back: the kernel keeps it as a whole.
        """
        kept = {other for item in functions(of_host(domain)) for other in self._functions.companions(item.name)}
        self._give_back(domain.name, kept)

    def release(self, domain: Domain) -> None:
        """Give back all that a machine had, which is no more."""
        self._give_back(domain.name, set())

    def user_of(self, name: str) -> str | None:
        """The machine that has a PCI function, which runs or is being started; None where none has."""
        self._settle_dead("")
        held = self._held("")
        return next((user for user in held if any(item.name == name for item in functions(held[user]))), None)

    def _give_back(self, name: str, kept: set[str]) -> None:
        if not self._records.directory.is_dir():
            return
        with self._records.locked():
            mine = {
                function: lines[1:]
                for function in self._records.names()
                if (lines := (self._records.read(function) or "").split("\n"))[0] == name and function not in kept
            }
        for function, (done, settings, *_) in mine.items():
            steps: list[Callable[[], None]] = []
            if settings:
                steps.append(lambda text=settings: network.give_back(network.parse(text)))  # type: ignore[misc]
            if done == _REBOUND:
                steps.append(lambda which=function: self._functions.give_back(which))  # type: ignore[misc]
            for step in steps if self._functions.exists(function) else ():
                try:
                    step()
                except (VirtError, ValueError) as error:
                    self._log(name, f"PCI device {function} is not as it was before: {error}")
            with self._records.locked():
                self._records.remove(function)

    def _log(self, name: str, note: str) -> None:
        process.write_log(self._machines.log(name), [note])

    def _settle_dead(self, name: str) -> None:
        """Have other machines give back what they had that have ended, or whose starter has."""
        for other in self._machines.statuses.names():
            status = self._status(other)
            if other == name or status is None or not of_host(status.domain) or _runs(status):
                continue
            with contextlib.suppress(VirtError), self._machines.locked(other, timeout=0):
                self._machines.live(other)

    def _held(self, name: str) -> dict[str, list[Device]]:
        """What other machines have of the host's, those that are being started or stopped, too."""
        found = {other: self._status(other) for other in self._machines.statuses.names() if other != name}
        return {other: of_host(status.domain) for other, status in found.items() if status is not None}

    def _status(self, name: str) -> Status | None:
        text = self._machines.statuses.read(name)
        with contextlib.suppress(ValueError):
            return Status.parse(text) if text is not None else None
        return None


def _runs(status: Status) -> bool:
    return status.pid != 0 and procstat.runs(status.pid, status.started)


def _check_card(interface: Interface) -> None:
    """Refuse what a virtual function is not told.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``.
    """
    port, vlan = interface.virtualport, interface.vlan
    if port is not None and vlan is not None:
        reason = f"direct setting of the vlan tag is not allowed for hostdev devices using {port.type or 'none'} mode"
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, reason, ErrorDomain.QEMU)
    if port is not None and port.type != "802.1Qbh":
        reason = f"virtualport type {port.type or 'none'} is currently not supported on interfaces of type hostdev"
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, reason, ErrorDomain.QEMU)
    if vlan is not None and (vlan.trunk or len(vlan.tags) > 1):
        reason = "vlan trunking is not supported by SR-IOV network devices"
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, reason, ErrorDomain.QEMU)


def _vlan(interface: Interface) -> int:
    return interface.vlan.tags[0].id if interface.vlan is not None and interface.vlan.tags else 0
