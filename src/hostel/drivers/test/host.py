"""The invented host: what it holds at first, and that all open connections of a process share it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, NamedTuple

from hostel.drivers.base import DomainRef, DomainState, RunningReason, StateInfo
from hostel.drivers.events import EventBus
from hostel.drivers.fault import fault
from hostel.drivers.network.document import NetworkDefinition, parse_network
from hostel.drivers.secret.vault import MemoryVault
from hostel.drivers.storage.document import PoolDefinition, PoolSizes, parse_pool
from hostel.drivers.test.blockjob import Job
from hostel.drivers.test.document import DomainDefinition, parse_domain
from hostel.drivers.test.moments import Moments
from hostel.errors import ErrorCode, ErrorDomain
from hostel.model.interface import HostInterface, read_interface
from hostel.model.storage import Volume, VolumeTarget
from hostel.units import GiB

if TYPE_CHECKING:
    from hostel.model.checkpoint import Checkpoint
    from hostel.model.node_device import NodeDevice
    from hostel.model.nwfilter.filter import Filter
    from hostel.model.snapshot import Snapshot

# The facts of libvirt's own default host: scripts and tests know these names and numbers.
_DOMAIN: Final = """
<domain type='test'>
  <name>test</name>
  <uuid>6695eb01-f6a4-8304-79aa-97f2502e193f</uuid>
  <memory>8388608</memory>
  <currentMemory>2097152</currentMemory>
  <vcpu>2</vcpu>
  <os><type arch='i686'>hvm</type></os>
  <devices>
    <disk type='file' device='disk'>
      <source file='/guest/diskimage1'/>
      <target dev='vda' bus='virtio'/>
      <address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x0'/>
    </disk>
    <interface type='network'>
      <mac address='aa:bb:cc:dd:ee:ff'/>
      <source network='default'/>
      <target dev='testnet0'/>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x01' function='0x0'/>
    </interface>
    <memballoon model='virtio'>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x02' function='0x0'/>
    </memballoon>
  </devices>
</domain>
"""
_NETWORK: Final = """
<network>
  <name>default</name>
  <uuid>dd8fe884-6c02-601e-7551-cca97df1c5df</uuid>
  <forward mode='nat'/>
  <bridge name='virbr0' stp='on' delay='0'/>
  <ip address='192.168.122.1' netmask='255.255.255.0'>
    <dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp>
  </ip>
</network>
"""
_POOL: Final = """
<pool type='dir'>
  <name>default-pool</name>
  <uuid>dfe224cb-28fb-8dd0-c4b2-64eb3f0f4566</uuid>
  <target><path>/default-pool</path></target>
</pool>
"""
_INTERFACE: Final = """
<interface type='ethernet' name='eth1'>
  <start mode='onboot'/>
  <mac address='aa:bb:cc:dd:ee:ff'/>
  <mtu size='1492'/>
  <protocol family='ipv4'>
    <ip address='192.168.0.5' prefix='24'/>
    <route gateway='192.168.0.1'/>
  </protocol>
</interface>
"""
POOL_CAPACITY: Final = 100 * GiB


class TestDomain:
    """A domain: its definition, and while it runs what it runs as."""

    __test__ = False  # not a test case, whatever its name says

    def __init__(self, definition: DomainDefinition, *, persistent: bool) -> None:
        self.definition = definition
        self.live: DomainDefinition | None = None
        self.id = -1
        self.persistent = persistent
        self.autostart = False
        self.state = StateInfo(DomainState.SHUTOFF, 0)
        self.saved = False  # the next start would go on from saved memory
        self.frozen: set[str] = set()  # mount points of stopped file systems
        self.clock = (627319920, 0)  # the guest's: seconds and nanoseconds
        self.sizes: dict[str, int] = {}  # bytes that disks were resized to
        self.jobs: dict[str, Job] = {}  # of disks, by their targets
        self.snapshots: Moments[Snapshot] = Moments("snapshot", ErrorCode.NO_DOMAIN_SNAPSHOT)
        self.checkpoints: Moments[Checkpoint] = Moments("checkpoint", ErrorCode.NO_DOMAIN_CHECKPOINT)

    @property
    def current(self) -> DomainDefinition:
        """What runs, or else the definition."""
        return self.live or self.definition


class TestNetwork:
    """A network."""

    __test__ = False

    def __init__(self, definition: NetworkDefinition, *, persistent: bool) -> None:
        self.definition = definition
        self.live: NetworkDefinition | None = None
        self.persistent = persistent
        self.active = False
        self.autostart = False

    @property
    def current(self) -> NetworkDefinition:
        """What is active, or else the definition."""
        return self.live or self.definition


class TestVolume:
    """A volume: its completed document, in which its path is written.

    Attributes:
        capacity: bytes.
        allocation: bytes.
    """

    __test__ = False

    def __init__(self, document: Volume, path: str) -> None:
        self.document = document
        self.name = document.name or ""
        self.path = path
        self.capacity = document.capacity.value if document.capacity else 0
        self.allocation = document.allocation.value if document.allocation else 0
        document.key = path
        document.target = document.target or VolumeTarget()
        document.target.path = path


class TestPool:
    """A pool with invented space; volumes by name.

    Attributes:
        next: the definition from when it is stopped on, where that is another.
    """

    __test__ = False

    def __init__(self, definition: PoolDefinition, *, persistent: bool) -> None:
        self.definition = definition
        self.next: PoolDefinition | None = None
        self.persistent = persistent
        self.active = False
        self.autostart = False
        self.volumes: dict[str, TestVolume] = {}

    @property
    def sizes(self) -> PoolSizes:
        """Capacity, allocation and free space."""
        allocation = sum(volume.allocation for volume in self.volumes.values())
        return PoolSizes(POOL_CAPACITY, allocation, POOL_CAPACITY - allocation)


class InterfaceEntry(NamedTuple):
    """An interface of the host; not changed, but replaced."""

    definition: HostInterface
    active: bool


class Host:
    """Everything there is; ``lock`` is held for every look and every change, and ``bus`` told of these.

    Args:
        furnished: with what libvirt's default host has at first.
    """

    def __init__(self, *, furnished: bool = True) -> None:
        self.lock = threading.RLock()
        self.users: dict[str, str | None] = {}  # who may open it, and with which password; everybody where empty
        self.bus = EventBus(None)
        self.secrets = MemoryVault()
        self._next_id = 1
        self.domains: dict[str, TestDomain] = {}
        self.networks: dict[str, TestNetwork] = {}
        self.pools: dict[str, TestPool] = {}
        self.nwfilters: dict[str, Filter] = {}
        self.node_devices: dict[str, NodeDevice] | None = None  # the default host's, until they are asked for
        self.interfaces: dict[str, InterfaceEntry] = {}
        self.interfaces_before: dict[str, InterfaceEntry] | None = None  # while a transaction runs
        if furnished:
            self._furnish()

    def _furnish(self) -> None:
        domain = TestDomain(parse_domain(_DOMAIN), persistent=True)
        self.domains[domain.definition.name] = domain
        self.boot(domain)
        domain.state = StateInfo(DomainState.RUNNING, RunningReason.UNKNOWN)
        network = TestNetwork(parse_network(_NETWORK), persistent=True)
        network.live = network.definition
        network.active = True
        self.networks[network.definition.name] = network
        pool = TestPool(parse_pool(_POOL), persistent=True)
        pool.active = True
        self.pools[pool.definition.name] = pool
        interface = read_interface(_INTERFACE)
        self.interfaces[interface.name] = InterfaceEntry(interface, active=True)

    def domain(self, ref: DomainRef) -> TestDomain:
        """Find a domain.

        Raises:
            VirtError: ``NO_DOMAIN``.
        """
        found = self.domains.get(ref.name)
        if found is None or found.definition.uuid != ref.uuid:
            reason = f"no domain with matching uuid '{ref.uuid}' ({ref.name})"
            raise fault(ErrorCode.NO_DOMAIN, reason, ErrorDomain.TEST)
        return found

    def boot(self, domain: TestDomain) -> None:
        """Start a domain under the next id."""
        domain.id = self._next_id
        self._next_id += 1
        domain.live = domain.definition
        domain.saved = False
        domain.state = StateInfo(DomainState.RUNNING, RunningReason.BOOTED)

    def close(self) -> None:
        """Nobody has it open any more: what its machines were about goes no further."""
        with self.lock:
            for domain in self.domains.values():
                for job in domain.jobs.values():
                    job.cancel()

    def same(self, definition: DomainDefinition) -> TestDomain | None:
        """The domain that a document is about; refuses one that takes another's UUID or name.

        Raises:
            VirtError: ``OPERATION_FAILED``.
        """
        for domain in self.domains.values():
            known = domain.definition
            if known.uuid == definition.uuid and known.name != definition.name:
                what = f"domain '{known.name}' is already defined with uuid {known.uuid}"
                raise fault(ErrorCode.OPERATION_FAILED, what, ErrorDomain.DOMAIN)
            if known.name == definition.name and known.uuid != definition.uuid:
                what = f"domain '{known.name}' already exists with uuid {known.uuid}"
                raise fault(ErrorCode.OPERATION_FAILED, what, ErrorDomain.DOMAIN)
        return self.domains.get(definition.name)


class _Shared:
    """The default host, there while somebody has it open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._host: Host | None = None

    def acquire(self) -> Host:
        """Get the host, or a new one when nobody has it open."""
        with self._lock:
            self._users += 1
            if self._host is None:
                self._host = Host()
            return self._host

    def release(self) -> None:
        """Give it back; the last one to do so ends it."""
        with self._lock:
            self._users -= 1
            if not self._users and self._host is not None:
                self._host.close()
                self._host = None


shared: Final = _Shared()
