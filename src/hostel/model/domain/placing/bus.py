"""PCI buses and their slots: what may be plugged in where, and what is taken (libvirt's ``domain_addr.c``)."""

from __future__ import annotations

import enum
import functools
import operator
from typing import Final, NamedTuple, Protocol

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.address import PciAddress

_LAST_SLOT: Final = 0x1F
_FUNCTIONS: Final = 8


class Connect(enum.Flag):
    """What a bus takes, or what a device needs."""

    NOTHING = 0
    AUTOASSIGN = enum.auto()
    HOTPLUGGABLE = enum.auto()
    AGGREGATE_SLOT = enum.auto()
    INTEGRATED = enum.auto()
    PCI_DEVICE = enum.auto()
    PCIE_DEVICE = enum.auto()
    ROOT_PORT = enum.auto()
    UPSTREAM_PORT = enum.auto()
    DOWNSTREAM_PORT = enum.auto()
    DMI_TO_PCI_BRIDGE = enum.auto()
    PCIE_TO_PCI_BRIDGE = enum.auto()
    PCI_EXPANDER = enum.auto()
    PCIE_EXPANDER = enum.auto()
    PCI_BRIDGE = enum.auto()


PCI: Final = Connect.PCI_DEVICE | Connect.AUTOASSIGN
PCIE: Final = Connect.PCIE_DEVICE | Connect.AUTOASSIGN
_ENDPOINTS: Final = Connect.PCI_DEVICE | Connect.PCIE_DEVICE
_NAMES: Final = {
    Connect.PCI_DEVICE: "standard PCI device",
    Connect.PCIE_DEVICE: "PCI Express device",
    Connect.ROOT_PORT: "pcie-root-port",
    Connect.UPSTREAM_PORT: "pcie-switch-upstream-port",
    Connect.DOWNSTREAM_PORT: "pcie-switch-downstream-port",
    Connect.DMI_TO_PCI_BRIDGE: "dmi-to-pci-bridge",
    Connect.PCIE_TO_PCI_BRIDGE: "pcie-to-pci-bridge",
    Connect.PCI_EXPANDER: "pci-expander-bus",
    Connect.PCIE_EXPANDER: "pcie-expander-bus",
    Connect.PCI_BRIDGE: "pci-bridge",
}
_TYPES: Final = functools.reduce(operator.or_, _NAMES)

# What a controller of a model needs from the bus above it.
CONTROLLER_NEEDS: Final = {
    "pci-bridge": Connect.PCI_BRIDGE,
    "pci-expander-bus": Connect.PCI_EXPANDER,
    "pcie-expander-bus": Connect.PCIE_EXPANDER,
    "dmi-to-pci-bridge": Connect.DMI_TO_PCI_BRIDGE,
    "pcie-to-pci-bridge": Connect.PCIE_TO_PCI_BRIDGE,
    "pcie-root-port": Connect.ROOT_PORT | Connect.AGGREGATE_SLOT,
    "pcie-switch-upstream-port": Connect.UPSTREAM_PORT,
    "pcie-switch-downstream-port": Connect.DOWNSTREAM_PORT,
}


class _Offer(NamedTuple):
    """What a controller of a model offers below it."""

    takes: Connect
    first: int
    last: int
    can_hotplug: bool


_PORT: Final = _Offer(PCIE | Connect.UPSTREAM_PORT | Connect.PCIE_TO_PCI_BRIDGE, 0, 0, True)
_OFFERS: Final = {
    "pci-root": _Offer(PCI | Connect.PCI_BRIDGE | Connect.PCI_EXPANDER, 1, _LAST_SLOT, True),
    "pci-bridge": _Offer(PCI | Connect.PCI_BRIDGE, 1, _LAST_SLOT, True),
    "pci-expander-bus": _Offer(PCI | Connect.PCI_BRIDGE, 0, _LAST_SLOT, True),
    "pcie-root": _Offer(
        Connect.PCIE_DEVICE | Connect.ROOT_PORT | Connect.DMI_TO_PCI_BRIDGE | Connect.PCIE_EXPANDER,
        1,
        _LAST_SLOT,
        False,
    ),
    "dmi-to-pci-bridge": _Offer(Connect.PCI_DEVICE | Connect.PCI_BRIDGE, 0, _LAST_SLOT, False),
    "pcie-to-pci-bridge": _Offer(PCI | Connect.PCI_BRIDGE, 1, _LAST_SLOT, True),
    "pcie-root-port": _PORT,
    "pcie-switch-downstream-port": _PORT,
    "pcie-switch-upstream-port": _Offer(Connect.DOWNSTREAM_PORT, 0, _LAST_SLOT, False),
    "pcie-expander-bus": _Offer(Connect.ROOT_PORT | Connect.DMI_TO_PCI_BRIDGE, 0, _LAST_SLOT, False),
}


class Bus:
    """One bus: what it takes, and which functions of which slots are taken.

    Attributes:
        group: which isolation group's devices it has; 0 for those that need none.
        keeps_group: whether that never changes.
    """

    def __init__(self, model: str, *, allow_hotplug: bool = True) -> None:
        offer = _OFFERS[model]
        self.model = model
        self.takes = offer.takes | (Connect.HOTPLUGGABLE if offer.can_hotplug and allow_hotplug else Connect.NOTHING)
        self.first, self.last = offer.first, offer.last
        self._left = self.last - self.first + 1
        self._functions: dict[int, set[int]] = {}
        self._shared: set[int] = set()
        self.group = 0
        self.keeps_group = False

    def functions(self, slot: int) -> set[int]:
        """The functions of a slot that are taken."""
        return self._functions.get(slot, set())

    def take(self, slot: int, function: int, needs: Connect) -> None:
        """Mark a function as taken."""
        self._left -= slot not in self._functions and self.first <= slot <= self.last
        if slot not in self._functions and needs & Connect.AGGREGATE_SLOT:
            self._shared.add(slot)
        self._functions.setdefault(slot, set()).add(function)

    def join(self, group: int, *, is_written: bool) -> None:
        """Let the first device say which group the bus is for; one that is put elsewhere by hand ends the isolation."""
        if self.is_empty() and not self.keeps_group:
            self.group = group
        elif self.group != group and is_written:
            self.group = 0

    def is_empty(self) -> bool:
        """Whether nothing is in it."""
        return self._left == self.last - self.first + 1

    def is_full(self) -> bool:
        """Whether every slot has something in it."""
        return not self._left

    def has_room(self, needs: Connect) -> bool:
        """Whether it is worth while to look for a slot."""
        return bool(self._left or (self._shared and needs & Connect.AGGREGATE_SLOT))

    def find(self, needs: Connect, function: int | None) -> tuple[int, int] | None:
        """A slot and function for a device that needs a slot of its own, unless it may share."""
        if not self.has_room(needs):
            return None
        for slot in range(self.first, self.last + 1):
            taken = self.functions(slot)
            if not taken:
                return slot, function or 0
            if needs & Connect.AGGREGATE_SLOT and slot in self._shared:
                choices = range(_FUNCTIONS) if function is None else (function,)
                for choice in choices:
                    if choice not in taken:
                        return slot, choice
        return None


class _Numbered(Protocol):
    """An address on PCI, of a guest or of the host."""

    @property
    def domain(self) -> int | None: ...
    @property
    def bus(self) -> int | None: ...
    @property
    def slot(self) -> int | None: ...
    @property
    def function(self) -> int | None: ...


def spoken(address: _Numbered) -> str:
    """An address as libvirt's messages write it."""
    numbers = (address.domain or 0, address.bus or 0, address.slot or 0, address.function or 0)
    return "{:04x}:{:02x}:{:02x}.{:x}".format(*numbers)


class Buses:
    """All buses of a machine; while ``can_grow``, what does not fit gets a new bus.

    Attributes:
        has_many_roots: whether new buses are roots of their own, as on POWER.
        has_express_bridge: whether there are bridges from PCI Express to conventional PCI.
    """

    def __init__(self, *, can_grow: bool, has_many_roots: bool = False, has_express_bridge: bool = True) -> None:
        self.buses: list[Bus] = []
        self.can_grow = can_grow
        self.has_many_roots = has_many_roots
        self.has_express_bridge = has_express_bridge

    def is_slot_used(self, bus: int, slot: int) -> bool:
        """Whether anything is in a slot."""
        return bool(self.buses[bus].functions(slot))

    def reserve(
        self, address: PciAddress, needs: Connect, path: str, *, is_written: bool = True, group: int = 0
    ) -> None:
        """Take an address; ``is_written`` for one that the document or the chipset gives.

        Raises:
            ModelError: the address is taken, or nothing of that kind can be there; ``path`` says whose it is.
        """
        code = ErrorCode.XML_ERROR if is_written else ErrorCode.INTERNAL_ERROR
        if self.can_grow and address.bus >= len(self.buses):
            self._grow(address, needs, path)
        self._validate(address, needs, path, code, is_written=is_written)
        bus = self.buses[address.bus]
        if address.function in bus.functions(address.slot):
            raise ModelError(path, f"Attempted double use of PCI Address {spoken(address)}", code=code)
        bus.join(group, is_written=is_written)
        bus.take(address.slot, address.function, needs)

    def reserve_next(self, needs: Connect, path: str, function: int | None = None, *, group: int = 0) -> PciAddress:
        """Take the first place that fits.

        Raises:
            ModelError: there is none.
        """
        if not self.buses:
            raise ModelError(path, "No PCI buses available")
        address = self._next(needs, function, group)
        if address is None:
            if not self.can_grow:
                raise ModelError(path, "No more available PCI slots", code=ErrorCode.INTERNAL_ERROR)
            address = PciAddress(bus=len(self.buses), function=function or 0)
            self._grow(address, needs, path)
            address.slot = self.buses[address.bus].first
        self.reserve(address, needs, path, is_written=False, group=group)
        return address

    def _next(self, needs: Connect, function: int | None, group: int) -> PciAddress | None:
        """A free place on a bus of the group, else on one that has nothing in it yet."""
        same = [(index, bus) for index, bus in enumerate(self.buses) if bus.group == group]
        empty = [(index, bus) for index, bus in enumerate(self.buses) if bus.is_empty() and not bus.keeps_group]
        for index, bus in (*same, *empty):
            if bus.has_room(needs) and self._problem(bus, index, needs, is_written=False) is None:
                found = bus.find(needs, function)
                if found is not None:
                    return PciAddress(bus=index, slot=found[0], function=found[1])
        return None

    def _validate(self, address: PciAddress, needs: Connect, path: str, code: ErrorCode, *, is_written: bool) -> None:
        where = spoken(address)
        if not self.buses:
            raise ModelError(path, "No PCI buses available", code=code)
        if address.domain:
            raise ModelError(path, f"Invalid PCI address {where}. Only PCI domain 0 is available", code=code)
        if address.bus >= len(self.buses):
            last = len(self.buses) - 1
            reason = f"Invalid PCI address {where}. Only PCI buses up to {last} are available"
            raise ModelError(path, reason, code=code)
        bus = self.buses[address.bus]
        problem = self._problem(bus, address.bus, needs, is_written=is_written)
        if problem is not None:
            raise ModelError(path, f"The device at PCI address {where} {problem}", code=code)
        if address.slot < bus.first:
            raise ModelError(path, f"Invalid PCI address {where}. slot must be >= {bus.first}", code=code)
        if address.slot > bus.last:
            raise ModelError(path, f"Invalid PCI address {where}. slot must be <= {bus.last}", code=code)

    @staticmethod
    def _problem(bus: Bus, index: int, needs: Connect, *, is_written: bool) -> str | None:
        """Why a device cannot be on a bus; None when it can."""
        takes = bus.takes
        if needs & Connect.INTEGRATED:
            if index:
                return "needs to be an integrated device (bus=0)"
            takes |= Connect.AUTOASSIGN
        if is_written:
            # By hand, either kind of device goes onto either kind of bus, and a bridge where a device goes.
            if takes & _ENDPOINTS:
                takes |= _ENDPOINTS
            if needs & Connect.PCI_BRIDGE:
                needs |= Connect.PCI_DEVICE
        elif needs & Connect.AUTOASSIGN and not takes & Connect.AUTOASSIGN:
            return (
                f"was auto-assigned this address, but the PCI controller with index='{index}' "
                "doesn't allow auto-assignment"
            )
        if needs & Connect.HOTPLUGGABLE and not takes & Connect.HOTPLUGGABLE:
            return f"requires hotplug capability, but the PCI controller with index='{index}' doesn't support hotplug"
        if not needs & takes & _TYPES:
            kind = next((name for flag, name in _NAMES.items() if flag & needs), "device of no kind")
            return (
                f"cannot be plugged into the PCI controller with index='{index}'. "
                f"It requires a controller that accepts a {kind}."
            )
        return None

    def _grow(self, address: PciAddress, needs: Connect, path: str) -> None:
        """Add the buses that an address needs; it may move up, behind a bridge that has to be there first."""
        count = address.bus - len(self.buses) + 1
        models: list[str] = []
        if needs & Connect.PCI_DEVICE and self.has_many_roots:
            model = "pci-root"
        elif needs & Connect.PCI_DEVICE:
            model = "pci-bridge"
            if not any(bus.takes & Connect.PCI_BRIDGE for bus in self.buses):
                models = ["pcie-root-port", "pcie-to-pci-bridge"] if self.has_express_bridge else ["dmi-to-pci-bridge"]
                if count == 1:
                    count += 1
                    address.bus += 1
        elif needs & (Connect.PCIE_DEVICE | Connect.UPSTREAM_PORT):
            model = "pcie-root-port"
        else:
            kind = next((name for flag, name in _NAMES.items() if flag & needs), "unknown")
            reason = (
                f"a PCI slot is needed to connect a PCI controller model='{kind}', but none is available, "
                "and it cannot be automatically added"
            )
            raise ModelError(path, reason, code=ErrorCode.INTERNAL_ERROR)
        for new in [*models, *[model] * (count - len(models))]:
            self.buses.append(Bus(new))
        if len(models) > 1:
            # The port is there for the bridge alone.
            self.buses[-count].takes = Connect.PCIE_TO_PCI_BRIDGE
