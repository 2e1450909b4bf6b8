"""Connections: the way in to everything a hypervisor manages."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from types import TracebackType
from typing import Self

from hostel.drivers.base import DomainRef, StartFlag
from hostel.drivers.base.closing import CloseReason
from hostel.drivers.events import Event, Subject
from hostel.drivers.fault import fault
from hostel.drivers.registry import Drivers
from hostel.errors import ErrorCode, VirtError
from hostel.objects.document import Document, xml_of
from hostel.objects.domain import Domain
from hostel.objects.event import EventStream
from hostel.objects.network import Network
from hostel.objects.storage import StoragePool, StorageVolume


class Connection:
    """An open connection; :func:`hostel.open` makes one. Close it, or use it as a context manager.

    May be used from several threads.

    Attributes:
        uri: the canonical URI.
        hypervisor: the driver of domains; the handles are written over it, and there is rarely a need for it.
        storage: the driver of pools and volumes.
        network: the driver of networks.
        secret: the driver of secrets.
        node_device: the driver of the host's devices.
        interface: the driver of its network interfaces.
        nwfilter: the driver of filters of packets.
        host: the driver of its processors and memory.
        events: where events come from; None where the driver has none.
        is_read_only: whether every change is refused with ``OPERATION_DENIED``.
    """

    def __init__(self, drivers: Drivers, *, read_only: bool = False) -> None:
        self._drivers = drivers
        shown = drivers.read_only() if read_only else drivers
        self.uri = drivers.uri
        self.hypervisor = shown.hypervisor
        self.storage = shown.storage
        self.network = shown.network
        self.secret = shown.secret
        self.node_device = shown.node_device
        self.interface = shown.interface
        self.nwfilter = shown.nwfilter
        self.host = shown.host
        self.events = drivers.events
        self.is_read_only = read_only
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Connection {self.uri}{' read-only' if self.is_read_only else ''}>"

    def close(self) -> None:
        """Release the drivers; running machines run on. Once is enough."""
        if not self._is_closed:
            self._is_closed = True
            self._drivers.close()

    def set_keepalive(self, interval: int, count: int) -> bool:
        """Ask a silent daemon every ``interval`` seconds; after ``count`` questions without an answer it is gone.

        Args:
            interval: seconds; 0 does not ask.
            count: questions.

        Returns:
            Whether the daemon answers such questions.

        Raises:
            VirtError: ``NO_SUPPORT``: there is no daemon.
        """
        if self._drivers.keepalive is None:
            raise fault(ErrorCode.NO_SUPPORT, "virConnectSetKeepAlive")
        return self._drivers.keepalive(interval, count)

    def on_close(self, closed: Callable[[CloseReason], None]) -> None:
        """Have ``closed`` called with the reason when the connection to a daemon is over; in another thread.

        What drives machines in this process ends with the process, and tells nobody.
        """
        if self._drivers.on_close is not None:
            self._drivers.on_close(closed)

    @property
    def type(self) -> str:
        """The hypervisor's name: ``QEMU`` or ``TEST``."""
        return self.hypervisor.connect_get_type()

    @property
    def version(self) -> tuple[int, int, int]:
        """The hypervisor's version."""
        number = self.hypervisor.connect_get_version()
        return number // 1_000_000, number // 1000 % 1000, number % 1000

    @property
    def hostname(self) -> str:
        """The host's name."""
        return self.hypervisor.connect_get_hostname()

    def capabilities(self) -> str:
        """What host and hypervisor can do, as libvirt's capabilities document."""
        return self.hypervisor.connect_get_capabilities()

    def domains(self, *, active: bool | None = None, persistent: bool | None = None) -> list[Domain]:
        """The domains: those that run first, by id, then the others by name.

        Args:
            active: only those that run, or only those that do not.
            persistent: only those with a definition, or only those without.
        """
        found = []
        for ref in sorted(self.hypervisor.connect_list_all_domains(), key=_list_order):
            domain = Domain(self, ref)
            if active is not None and (ref.id != -1) != active:
                continue
            if persistent is not None and domain.is_persistent != persistent:
                continue
            found.append(domain)
        return found

    def domain(self, key: str | int) -> Domain:
        """Find a domain by its id (an ``int``), its UUID or its name.

        Raises:
            VirtError: ``NO_DOMAIN``.
        """
        if isinstance(key, int):
            return Domain(self, self.hypervisor.domain_lookup_by_id(key))
        if len(key) in (32, 36):
            with _unless(ErrorCode.NO_DOMAIN):
                return Domain(self, self.hypervisor.domain_lookup_by_uuid(key))
        return Domain(self, self.hypervisor.domain_lookup_by_name(key))

    def define_domain(self, document: str | Document) -> Domain:
        """Make a persistent domain, or replace its definition; it is not started."""
        return Domain(self, self.hypervisor.domain_define_xml(xml_of(document)))

    def create_domain(self, document: str | Document, *, paused: bool = False) -> Domain:
        """Start a transient domain, which is gone when it ends."""
        flags = StartFlag.PAUSED if paused else StartFlag.NONE
        return Domain(self, self.hypervisor.domain_create_xml(xml_of(document), flags))

    def listen(self, domain: Domain | None = None, kinds: Collection[str] | None = None) -> EventStream:
        """Begin to listen to events.

        Args:
            domain: only what happens to this domain.
            kinds: only events of these names: ``lifecycle``, ``block-job``, …; see :mod:`hostel.drivers.events`.

        Raises:
            VirtError: ``NO_SUPPORT`` where the driver tells none.
        """
        if self.events is None:
            raise fault(ErrorCode.NO_SUPPORT, "virConnectDomainEventRegisterAny")

        def is_wanted(event: Event) -> bool:
            is_asked_for = event.subject is not Subject.MONITOR if kinds is None else event.kind in kinds
            return is_asked_for and (domain is None or event.uuid == domain.uuid)

        return EventStream(self.events.listen(), is_wanted)

    def pools(self, *, active: bool | None = None) -> list[StoragePool]:
        """The storage pools, by name; only those that are started or are not, where ``active`` says so."""
        pools = (StoragePool(self, ref) for ref in sorted(self.storage.connect_list_all_storage_pools()))
        return [pool for pool in pools if active is None or pool.is_active == active]

    def pool(self, key: str) -> StoragePool:
        """Find a storage pool by its UUID or its name.

        Raises:
            VirtError: ``NO_STORAGE_POOL``.
        """
        if len(key) in (32, 36):
            with _unless(ErrorCode.NO_STORAGE_POOL):
                return StoragePool(self, self.storage.storage_pool_lookup_by_uuid(key))
        return StoragePool(self, self.storage.storage_pool_lookup_by_name(key))

    def define_pool(self, document: str | Document) -> StoragePool:
        """Make a persistent storage pool, or replace its definition; it is not started."""
        return StoragePool(self, self.storage.storage_pool_define_xml(xml_of(document)))

    def create_pool(self, document: str | Document, *, build: bool = False) -> StoragePool:
        """Start a transient storage pool; ``build`` makes what it stands on first."""
        return StoragePool(self, self.storage.storage_pool_create_xml(xml_of(document), build=build))

    def volume(self, key: str) -> StorageVolume:
        """Find a volume in any started pool by its path or its key.

        Raises:
            VirtError: ``NO_STORAGE_VOL``.
        """
        with _unless(ErrorCode.NO_STORAGE_VOL):
            return StorageVolume(self, self.storage.storage_vol_lookup_by_key(key))
        return StorageVolume(self, self.storage.storage_vol_lookup_by_path(key))

    def networks(self, *, active: bool | None = None) -> list[Network]:
        """The networks, by name; only those that are active or are not, where ``active`` says so."""
        networks = (Network(self, ref) for ref in sorted(self.network.connect_list_all_networks()))
        return [network for network in networks if active is None or network.is_active == active]

    def find_network(self, key: str) -> Network:
        """Find a network by its UUID or its name.

        Raises:
            VirtError: ``NO_NETWORK``.
        """
        if len(key) in (32, 36):
            with _unless(ErrorCode.NO_NETWORK):
                return Network(self, self.network.network_lookup_by_uuid(key))
        return Network(self, self.network.network_lookup_by_name(key))

    def define_network(self, document: str | Document) -> Network:
        """Make a persistent network, or replace its definition; it is not activated."""
        return Network(self, self.network.network_define_xml(xml_of(document)))

    def create_network(self, document: str | Document) -> Network:
        """Activate a transient network, which is gone when it is stopped."""
        return Network(self, self.network.network_create_xml(xml_of(document)))


@contextlib.contextmanager
def _unless(code: ErrorCode) -> Iterator[None]:
    """Go on to the next way of looking when this one finds nothing."""
    try:
        yield
    except VirtError as error:
        if error.code is not code:
            raise


def _list_order(ref: DomainRef) -> tuple[bool, int, str]:
    return ref.id == -1, ref.id, ref.name
