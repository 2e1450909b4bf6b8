"""Virtual networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostel.drivers.base import NetworkRef
from hostel.drivers.base.network import OnDemandNetworkDriver

if TYPE_CHECKING:
    from hostel.objects.connection import Connection


class Network:
    """A handle of a network."""

    def __init__(self, connection: Connection, ref: NetworkRef) -> None:
        self.connection = connection
        self._ref = ref

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Network) and other.uuid == self.uuid

    def __hash__(self) -> int:
        return hash(self.uuid)

    def __repr__(self) -> str:
        return f"<Network {self.name} {self.uuid}>"

    @property
    def name(self) -> str:
        """The network's name."""
        return self._ref.name

    @property
    def uuid(self) -> str:
        """The network's UUID, in its canonical text form."""
        return self._ref.uuid

    @property
    def starts_on_demand(self) -> bool:
        """Whether the first guest that wants it has it started."""
        driver = self.connection.network
        return isinstance(driver, OnDemandNetworkDriver) and driver.network_is_as_installed(self._ref)

    def start(self) -> None:
        """Activate it, so that guests can be attached."""
        self.connection.network.network_create(self._ref)

    def destroy(self) -> None:
        """Deactivate it; the definition stays, and a network without one is gone."""
        self.connection.network.network_destroy(self._ref)

    def undefine(self) -> None:
        """Drop the definition; an active network becomes transient."""
        self.connection.network.network_undefine(self._ref)

    @property
    def is_active(self) -> bool:
        """Whether guests can be attached."""
        return self.connection.network.network_is_active(self._ref)

    @property
    def is_persistent(self) -> bool:
        """Whether a definition exists."""
        return self.connection.network.network_is_persistent(self._ref)

    @property
    def autostart(self) -> bool:
        """Whether it is activated with the driver."""
        return self.connection.network.network_get_autostart(self._ref)

    @autostart.setter
    def autostart(self, value: bool) -> None:
        self.connection.network.network_set_autostart(self._ref, value)

    @property
    def bridge_name(self) -> str:
        """The host bridge that guests are attached to."""
        return self.connection.network.network_get_bridge_name(self._ref)

    def xml(self, *, inactive: bool = False) -> str:
        """The document of what is active; ``inactive``: the definition."""
        return self.connection.network.network_get_xml_desc(self._ref, inactive=inactive)
