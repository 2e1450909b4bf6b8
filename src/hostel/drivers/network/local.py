"""What drivers of networks on this host have in common: definitions, and which of them are active.

How a network is made on the host, and unmade, is left to :class:`~hostel.drivers.network.driver.SessionNetworkDriver`
and :class:`~hostel.drivers.network.system.SystemNetworkDriver`.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from hostel.drivers.base import NetworkRef
from hostel.drivers.base.domain import Affect
from hostel.drivers.boot import Missed, nobody, noting
from hostel.drivers.document import canonical_uuid
from hostel.drivers.fault import fault
from hostel.drivers.network.document import (
    NetworkDefinition,
    parse_new_network,
    updated,
    with_bridge,
    with_connections,
)
from hostel.drivers.network.networks import Network, Networks
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.network_update import Command, Section

_SYSTEM_INTERFACES: Final = Path("/sys/class/net")
_MAC_PREFIX: Final = (0x52, 0x54, 0x00)  # KVM's


class LocalNetworkDriver(ABC):
    """The calls of :class:`hostel.drivers.base.NetworkDriver`, over files that all processes share."""

    def __init__(self, directories: Directories, *, starts_default: bool = True) -> None:
        self._networks = Networks(directories, starts_default=starts_default)

    def forget_running(self) -> None:
        """The host was started anew: nothing was started, and transient networks are gone."""
        with self._networks.locked():
            self._networks.drop_all_started()

    def connect_autostart(self, missed: Missed = nobody) -> list[NetworkRef]:
        """Activate the networks marked for it whose bridges exist; one that fails does not keep the others."""
        started = []
        for network in self._networks.all():
            if self._networks.autostart(network.current.name) and not self._is_active(network):
                name = network.current.name
                # Of the one that is there from the beginning nobody has said that it is to start.
                with noting(f"network '{name}'", nobody if self._networks.is_as_installed(name) else missed):
                    self.network_create(_ref(network.current))
                    started.append(_ref(network.current))
        return started

    def connect_list_all_networks(self) -> list[NetworkRef]:
        """Every network, by name."""
        return [_ref(network.current) for network in self._networks.all()]

    def network_lookup_by_name(self, name: str) -> NetworkRef:
        """Find by name."""
        found = self._networks.find(name)
        if found is None:
            raise network_fault(ErrorCode.NO_NETWORK, f"no network with matching name '{name}'")
        return _ref(found.current)

    def network_lookup_by_uuid(self, uuid: str) -> NetworkRef:
        """Find by UUID."""
        wanted = canonical_uuid(uuid)
        for network in self._networks.all():
            if network.current.uuid == wanted:
                return _ref(network.current)
        raise network_fault(ErrorCode.NO_NETWORK, f"no network with matching uuid '{uuid}'")

    def network_define_xml(self, xml: str) -> NetworkRef:
        """Make or replace a persistent definition."""
        network = parse_new_network(xml)
        with self._networks.locked():
            check_duplicate(network, self._known())
            check_bridge(network, self._known())
            self._networks.save_definition(self._completed(network))
        return _ref(network)

    def network_create_xml(self, xml: str) -> NetworkRef:
        """Activate a transient network, where the host has the bridge."""
        network = parse_new_network(xml)
        with self._networks.locked():
            check_duplicate(network, self._known())
            same = self._networks.find(network.name)
            if same is not None and self._is_active(same):
                raise network_fault(ErrorCode.OPERATION_INVALID, f"network is already active as '{network.name}'")
            check_bridge(network, self._known())
            self._start(network)
        return _ref(network)

    def network_update(
        self, network: NetworkRef, command: int, section: int, parent: int, xml: str, affect: Affect = Affect.CURRENT
    ) -> None:
        """Change a section of the active network, of the definition, or of both."""
        with self._networks.locked():
            found = self._by_ref(network)
            affect = checked_affect(affect, active=self._is_active(found), persistent=found.defined is not None)
            change = read_change(command, section)
            live = updated(found.current, *change, parent, xml) if affect & Affect.LIVE else None
            config = updated(found.defined, *change, parent, xml) if affect & Affect.CONFIG and found.defined else None
            if live is not None:
                self._change_live(found.current, live)
            if config is not None:
                self._networks.save_definition(config)

    def _change_live(self, before: NetworkDefinition, after: NetworkDefinition) -> None:
        self._networks.save_started(after)
        try:
            self._renew(before, after)
        except VirtError:
            self._networks.save_started(before)
            with contextlib.suppress(VirtError):  # what failed first is told
                self._renew(after, before)
            raise

    def network_undefine(self, network: NetworkRef) -> None:
        """Drop the definition; an active network becomes transient, and the host's bridge stays."""
        with self._networks.locked():
            found = self._by_ref(network)
            if found.defined is None:
                raise network_fault(ErrorCode.OPERATION_INVALID, "can't undefine transient network")
            if self._is_active(found):
                self._networks.save_started(found.current)
            self._networks.drop_definition(found.defined.name)

    def network_create(self, network: NetworkRef) -> None:
        """Activate, where the host has the bridge.

        Raises:
            VirtError: ``OPERATION_INVALID`` when it is active, ``OPERATION_UNSUPPORTED`` when there is no bridge.
        """
        with self._networks.locked():
            found = self._by_ref(network)
            if self._is_active(found):
                raise network_fault(ErrorCode.OPERATION_INVALID, "network is already active")
            self._start(found.defined or found.current)

    def network_destroy(self, network: NetworkRef) -> None:
        """Deactivate; a transient network is gone."""
        with self._networks.locked():
            found = self._by_ref(network)
            if not self._is_active(found):
                raise network_fault(ErrorCode.OPERATION_INVALID, f"network '{found.current.name}' is not active")
            self._stop(found)

    def network_is_active(self, network: NetworkRef) -> bool:
        """Whether guests can be attached."""
        return self._is_active(self._by_ref(network))

    def network_is_persistent(self, network: NetworkRef) -> bool:
        """Whether a definition exists."""
        return self._by_ref(network).defined is not None

    def network_get_autostart(self, network: NetworkRef) -> bool:
        """Whether it is activated with the driver."""
        return self._networks.autostart(self._by_ref(network).current.name)

    def network_set_autostart(self, network: NetworkRef, autostart: bool) -> None:
        """Set whether it is activated with the driver."""
        with self._networks.locked():
            found = self._by_ref(network)
            if found.defined is None:
                raise network_fault(ErrorCode.OPERATION_INVALID, "cannot set autostart for transient network")
            self._networks.set_autostart(found.defined, autostart)

    def network_get_xml_desc(self, network: NetworkRef, *, inactive: bool = False) -> str:
        """The network's document."""
        found = self._by_ref(network)
        if inactive:
            return (found.defined or found.current).xml
        ports = self._networks.ports(found.current.name).names() if self._is_active(found) else []
        return with_connections(found.current, len(ports))

    def network_get_bridge_name(self, network: NetworkRef) -> str:
        """The host bridge that guests are attached to."""
        found = self._by_ref(network).current
        if found.bridge is None:
            raise network_fault(ErrorCode.INTERNAL_ERROR, f"network '{found.name}' does not have a bridge name.")
        return found.bridge

    def close(self) -> None:
        """Nothing is held."""

    def _completed(self, network: NetworkDefinition) -> NetworkDefinition:
        """A network that libvirt itself would make a bridge for names one that is free, as libvirt chooses it."""
        if not network.is_managed:
            return network
        taken = {other.bridge for other in self._known() if other.name != network.name}
        free = (f"virbr{number}" for number in itertools.count())
        bridge = next(name for name in free if name not in taken and not self._exists(name))
        mac = ":".join(f"{byte:02x}" for byte in (*_MAC_PREFIX, *secrets.token_bytes(3)))
        return with_bridge(network, bridge, mac)

    def _known(self) -> list[NetworkDefinition]:
        return [network.current for network in self._networks.all()]

    def _by_ref(self, ref: NetworkRef) -> Network:
        found = self._networks.find(ref.name)
        # Another network may have taken the name since.
        if found is None or found.current.uuid != ref.uuid:
            raise network_fault(ErrorCode.NO_NETWORK, f"no network with matching uuid '{ref.uuid}' ({ref.name})")
        return found

    @abstractmethod
    def _exists(self, bridge: str) -> bool:
        """Whether the host has an interface of this name."""

    @abstractmethod
    def _start(self, network: NetworkDefinition) -> None:
        """Make what a network needs, and write down that it is active; the caller holds the lock.

        Raises:
            VirtError: it cannot be had; nothing is left then.
        """

    @abstractmethod
    def _stop(self, network: Network) -> None:
        """Take away what :meth:`_start` made, and write that down; the caller holds the lock."""

    @abstractmethod
    def _renew(self, before: NetworkDefinition, after: NetworkDefinition) -> None:
        """Bring an active network into line with its changed document; the caller holds the lock."""

    @abstractmethod
    def _is_active(self, network: Network) -> bool:
        """Whether guests can be attached."""


def read_change(command: int, section: int) -> tuple[Command, Section]:
    """Libvirt's numbers of what is done to which section.

    Raises:
        VirtError: they are none.
    """
    try:
        where = Section(section)
    except ValueError:
        what = "can't update unrecognized section of network"
        raise network_fault(ErrorCode.OPERATION_UNSUPPORTED, what) from None
    try:
        return Command(command), where
    except ValueError:
        what = f"unrecognized network update command code {command}"
        raise network_fault(ErrorCode.OPERATION_UNSUPPORTED, what) from None


def checked_affect(affect: Affect, *, active: bool, persistent: bool) -> Affect:
    """What a change is about: an active network, or else the definition, where it was not said.

    Raises:
        VirtError: ``OPERATION_INVALID``: it has not what was said.
    """
    if affect is Affect.CURRENT:
        affect = Affect.LIVE if active else Affect.CONFIG
    if affect & Affect.LIVE and not active:
        raise network_fault(ErrorCode.OPERATION_INVALID, "network is not running")
    if affect & Affect.CONFIG and not persistent:
        raise network_fault(ErrorCode.OPERATION_INVALID, "cannot change persistent config of a transient network")
    return affect


def check_duplicate(network: NetworkDefinition, others: Iterable[NetworkDefinition]) -> None:
    """Refuse a document that takes another network's UUID or name.

    Raises:
        VirtError: ``OPERATION_FAILED``.
    """
    for other in others:
        if other.uuid == network.uuid and other.name != network.name:
            raise network_fault(
                ErrorCode.OPERATION_FAILED, f"network '{other.name}' is already defined with uuid {other.uuid}"
            )
        if other.name == network.name and other.uuid != network.uuid:
            raise network_fault(
                ErrorCode.OPERATION_FAILED, f"network '{network.name}' already exists with uuid {other.uuid}"
            )


def check_bridge(network: NetworkDefinition, others: Iterable[NetworkDefinition]) -> None:
    """Refuse a managed network the bridge of another one.

    Raises:
        VirtError: ``INTERNAL_ERROR``; the words are libvirt's.
    """
    taken = {other.bridge for other in others if other.name != network.name}
    if network.is_managed and network.bridge is not None and network.bridge in taken:
        raise network_fault(ErrorCode.INTERNAL_ERROR, f"bridge name '{network.bridge}' already in use.")


def _ref(network: NetworkDefinition) -> NetworkRef:
    return NetworkRef(network.name, network.uuid)


def network_fault(code: ErrorCode, detail: str) -> VirtError:
    """An error about a network."""
    return fault(code, detail, ErrorDomain.NETWORK)
