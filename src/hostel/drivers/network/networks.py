"""Which networks there are: definitions, autostart marks and active networks, on disk and shared by all processes.

``<config>/network/<name>.xml`` is a definition, ``<config>/network/autostart/<name>`` a mark, and
``<state>/network/<name>.xml`` says that a network is active, and as what. ``<state>/network/<name>.changing`` is there
while it is started or stopped, and is found by whoever comes after one who was killed at that. The network ``default``
is there for everybody who has not undefined it, as libvirt's packages install it.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from typing import Final, NamedTuple

from hostel.drivers.base.network import DEFAULT_NETWORK
from hostel.drivers.fault import fault
from hostel.drivers.network.document import NetworkDefinition, parse_network
from hostel.drivers.store import Directories, Store, is_usable_name
from hostel.errors import ErrorCode, ErrorDomain, VirtError

# What libvirt installs; the UUID is ours, and the same for everybody.
_DEFAULT_XML: Final = f"""
<network>
  <name>{DEFAULT_NETWORK}</name>
  <uuid>{uuid.uuid5(uuid.NAMESPACE_DNS, "default.network.hostel")}</uuid>
  <forward mode='nat'/>
  <bridge name='virbr0' stp='on' delay='0'/>
  <ip address='192.168.122.1' netmask='255.255.255.0'>
    <dhcp>
      <range start='192.168.122.2' end='192.168.122.254'/>
    </dhcp>
  </ip>
</network>
"""


class Network(NamedTuple):
    """One network: its definition, and what was started; at least one of them.

    Attributes:
        is_stopped: somebody stopped it since the host was started.
    """

    defined: NetworkDefinition | None
    started: NetworkDefinition | None
    is_stopped: bool

    @property
    def current(self) -> NetworkDefinition:
        """What was started, or else the definition."""
        found = self.started or self.defined
        assert found is not None
        return found


class Networks:
    """All networks of a session, or of the system.

    Args:
        directories: where they are kept.
        starts_default: whether the network ``default`` is marked for autostart from the beginning.
    """

    def __init__(self, directories: Directories, *, starts_default: bool = True) -> None:
        self._starts_default = starts_default
        self._definitions = Store(directories.config / "network")
        self._autostarts = Store(directories.config / "network" / "autostart", suffix="")
        self._undefined = Store(directories.config / "network" / "undefined", suffix="")
        self._started = Store(directories.state / "network")
        self._stopped = Store(directories.state / "network", suffix=".stopped")
        self._ports = directories.state / "network" / "ports"
        self._changing = Store(directories.state / "network", suffix=".changing")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep all other processes and threads from changing networks."""
        with self._definitions.locked():
            yield

    def all(self) -> list[Network]:
        """Every network, by name; one whose file cannot be read is left out, and refused when it is asked for."""
        networks = []
        for name in sorted({*self._definitions.names(), *self._started.names(), DEFAULT_NETWORK}):
            with contextlib.suppress(VirtError):
                if (network := self.find(name)) is not None:
                    networks.append(network)
        return networks

    def find(self, name: str) -> Network | None:
        """A network by name.

        Raises:
            VirtError: its file is broken.
        """
        if not is_usable_name(name):
            return None
        defined = self._read(self._definitions, name)
        if defined is None and self._is_built_in(name):
            defined = parse_network(_DEFAULT_XML)
        started = self._read(self._started, name)
        if defined is None and started is None:
            return None
        return Network(defined, started, self._stopped.has(name))

    def save_definition(self, network: NetworkDefinition) -> None:
        """Write a definition; the caller holds the lock."""
        self._definitions.sweep()
        self._definitions.write(network.name, network.xml)

    def drop_definition(self, name: str) -> None:
        """Remove a definition and its mark; the caller holds the lock."""
        if name == DEFAULT_NETWORK:
            self._undefined.write(name, "")
        self._autostarts.remove(name)
        self._definitions.remove(name)

    def save_started(self, network: NetworkDefinition) -> None:
        """Say that a network was started; the caller holds the lock."""
        self._started.sweep()
        self._started.write(network.name, network.xml)
        self._stopped.remove(network.name)

    def drop_started(self, network: Network) -> None:
        """Say that a network was stopped; the caller holds the lock."""
        name = network.current.name
        if network.defined is not None:
            self._stopped.write(name, "")
        self._started.remove(name)
        self._drop_ports(name)

    def drop_all_started(self) -> None:
        """Say that nobody started or stopped anything; the caller holds the lock."""
        for store in (self._started, self._stopped, self._changing):
            for name in store.names():
                store.remove(name)
        for folder in self._ports.iterdir() if self._ports.exists() else ():
            self._drop_ports(folder.name)

    def ports(self, name: str) -> Store:
        """The ports of a network that is active; whoever changes them holds the lock."""
        return Store(self._ports / name)

    def _drop_ports(self, name: str) -> None:
        store = self.ports(name)
        for port in store.names():
            store.remove(port)

    def any_started(self) -> bool:
        """Whether any network is recorded as active."""
        return bool(self._started.names())

    def is_changing(self, name: str) -> bool:
        """Whether somebody is starting or stopping a network, or was killed at that."""
        return self._changing.has(name)

    def begin_change(self, network: NetworkDefinition) -> None:
        """Say that a network is being started or stopped; the caller holds the lock."""
        self._changing.write(network.name, network.xml)

    def end_change(self, name: str) -> None:
        """Say that it has been, or that nothing of it is left; the caller holds the lock."""
        self._changing.remove(name)

    def unfinished(self) -> list[NetworkDefinition]:
        """The networks that somebody was starting or stopping; the caller holds the lock, so that it is nobody now."""
        found = (self._read(self._changing, name) for name in self._changing.names())
        return [network for network in found if network is not None]

    def autostart(self, name: str) -> bool:
        """Whether a network is activated with the driver."""
        return self._autostarts.has(name) or (self._starts_default and self.is_as_installed(name))

    def set_autostart(self, network: NetworkDefinition, value: bool) -> None:
        """Set whether a network is activated with the driver; the caller holds the lock."""
        if value:
            self._autostarts.write(network.name, "")
            return
        if self.is_as_installed(network.name):
            self.save_definition(network)  # a definition of its own is no longer marked by itself
        self._autostarts.remove(network.name)

    def is_as_installed(self, name: str) -> bool:
        """Whether it is the network ``default`` as it is from the beginning."""
        return self._is_built_in(name) and not self._definitions.has(name)

    def _is_built_in(self, name: str) -> bool:
        return name == DEFAULT_NETWORK and not self._undefined.has(name)

    def _read(self, store: Store, name: str) -> NetworkDefinition | None:
        try:
            xml = store.read(name)
            network = None if xml is None else parse_network(xml)
        except VirtError as error:
            raise _broken(store, name, str(error)) from error
        if network is not None and network.name != name:
            raise _broken(store, name, f"it is about network '{network.name}'")
        return network


def _broken(store: Store, name: str, why: str) -> VirtError:
    return fault(ErrorCode.INTERNAL_ERROR, f"network file '{store.path(name)}' is broken: {why}", ErrorDomain.NETWORK)
