"""Domains that move to another host: libvirt's third protocol of migration, in which a client or the source leads.

Begin asks the source what moves, Prepare lets the destination wait for it, Perform sends it, Finish lets it run there,
and Confirm tells the source whether it does. Each gives the next a cookie, which the one in between does not read.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Final, Protocol, runtime_checkable

from hostel.drivers.base.domain import DomainRef

Parameters = Mapping[str, "int | str | Sequence[str]"]  # by libvirt's names; several of one name are a sequence

URI: Final = "migrate_uri"
DEST_NAME: Final = "destination_name"
DEST_XML: Final = "destination_xml"
PERSIST_XML: Final = "persistent_xml"
BANDWIDTH: Final = "bandwidth"
BANDWIDTH_POSTCOPY: Final = "bandwidth.postcopy"
GRAPHICS_URI: Final = "graphics_uri"
LISTEN_ADDRESS: Final = "listen_address"
MIGRATE_DISKS: Final = "migrate_disks"
DISKS_PORT: Final = "disks_port"
DISKS_URI: Final = "disks_uri"
COMPRESSION: Final = "compression"
TLS_DESTINATION: Final = "tls.destination"
# Those that are numbers, with libvirt's number of their type: an int, or an unsigned long long.
NUMBERS: Final = {
    BANDWIDTH: 4, BANDWIDTH_POSTCOPY: 4, DISKS_PORT: 1, "compression.mt.level": 1, "compression.mt.threads": 1,
    "compression.mt.dthreads": 1, "compression.xbzrle.cache": 4, "auto_converge.initial": 1,
    "auto_converge.increment": 1, "parallel.connections": 1,
}  # fmt: skip
TEXTS: Final = frozenset(
    {URI, DEST_NAME, DEST_XML, PERSIST_XML, GRAPHICS_URI, LISTEN_ADDRESS, DISKS_URI, TLS_DESTINATION}
)
LISTS: Final = frozenset({MIGRATE_DISKS, COMPRESSION})


class MigrateFlag(enum.IntFlag):
    """``virDomainMigrateFlags``."""

    NONE = 0
    LIVE = 1 << 0
    PEER2PEER = 1 << 1
    TUNNELLED = 1 << 2
    PERSIST_DEST = 1 << 3
    UNDEFINE_SOURCE = 1 << 4
    PAUSED = 1 << 5
    NON_SHARED_DISK = 1 << 6
    NON_SHARED_INC = 1 << 7
    CHANGE_PROTECTION = 1 << 8
    UNSAFE = 1 << 9
    OFFLINE = 1 << 10
    COMPRESSED = 1 << 11
    ABORT_ON_ERROR = 1 << 12
    AUTO_CONVERGE = 1 << 13
    RDMA_PIN_ALL = 1 << 14
    POSTCOPY = 1 << 15
    TLS = 1 << 16
    PARALLEL = 1 << 17
    NON_SHARED_SYNCHRONOUS_WRITES = 1 << 18
    POSTCOPY_RESUME = 1 << 19
    ZEROCOPY = 1 << 20


COPIES_DISKS: Final = MigrateFlag.NON_SHARED_DISK | MigrateFlag.NON_SHARED_INC
# What is the source's business alone.
SOURCE_ONLY: Final = MigrateFlag.ABORT_ON_ERROR | MigrateFlag.AUTO_CONVERGE


class Feature(enum.IntEnum):
    """``virDrvFeature``, as far as it is about migration."""

    P2P = 4
    DIRECT = 5
    V3 = 6
    CHANGE_PROTECTION = 7
    XML_MIGRATABLE = 11
    OFFLINE = 12
    PARAMS = 13


# What drivers with these calls can do.
FEATURES: Final = frozenset(
    {Feature.P2P, Feature.V3, Feature.CHANGE_PROTECTION, Feature.XML_MIGRATABLE, Feature.OFFLINE, Feature.PARAMS}
)


@runtime_checkable
class Tunnel(Protocol):
    """Where the source puts what QEMU sends, when the destination is reached through its daemon."""

    def send(self, data: bytes | memoryview) -> None:
        """Send all of ``data``."""

    def finish(self) -> None:
        """All was sent; returns when the destination has it."""

    def abort(self) -> None:
        """Give up."""


@runtime_checkable
class MigrationDriver(Protocol):
    """The steps. A step that fails leaves the source as it was before it."""

    def domain_migrate_begin3_params(
        self, domain: DomainRef, params: Parameters, flags: MigrateFlag
    ) -> tuple[bytes, str]:
        """At the source: whether it may move; the cookie for Prepare, and the document for the destination."""

    def domain_migrate_prepare3_params(
        self, params: Parameters, cookie_in: bytes, flags: MigrateFlag
    ) -> tuple[bytes, str | None]:
        """At the destination: wait for the machine; the cookie for Perform, and where it waits."""

    def domain_migrate_prepare_tunnel3_params(
        self, params: Parameters, cookie_in: bytes, flags: MigrateFlag
    ) -> tuple[bytes, Tunnel]:
        """Likewise, where the machine comes through the daemon's connection."""

    def domain_migrate_perform3_params(
        self, domain: DomainRef, dconnuri: str | None, params: Parameters, cookie_in: bytes, flags: MigrateFlag
    ) -> bytes:
        """At the source: send the machine, which is paused then; or with ``PEER2PEER`` lead all steps."""

    def domain_migrate_finish3_params(
        self, params: Parameters, cookie_in: bytes, flags: MigrateFlag, cancelled: bool
    ) -> tuple[DomainRef, bytes]:
        """At the destination: let it run, or end it where it was ``cancelled``; ``MIGRATE_FINISH_OK`` says so."""

    def domain_migrate_confirm3_params(
        self, domain: DomainRef, params: Parameters, cookie_in: bytes, flags: MigrateFlag, cancelled: bool
    ) -> None:
        """At the source: end what is left, or let it go on where it was ``cancelled``."""


@runtime_checkable
class MigrationSettings(Protocol):
    """What may be set while a domain moves, or before."""

    def domain_migrate_get_max_downtime(self, domain: DomainRef) -> int:
        """How long it may stand still, in milliseconds."""

    def domain_migrate_set_max_downtime(self, domain: DomainRef, downtime: int) -> None:
        """Set that."""

    def domain_migrate_get_max_speed(self, domain: DomainRef, *, postcopy: bool = False) -> int:
        """How much may be sent, in MiB a second."""

    def domain_migrate_set_max_speed(self, domain: DomainRef, bandwidth: int, *, postcopy: bool = False) -> None:
        """Set that."""

    def domain_migrate_get_compression_cache(self, domain: DomainRef) -> int:
        """The size of the cache of pages that were sent, in bytes."""

    def domain_migrate_set_compression_cache(self, domain: DomainRef, cache_size: int) -> None:
        """Set that."""

    def domain_migrate_start_post_copy(self, domain: DomainRef) -> None:
        """Let it run at the destination now; what is missing follows."""
