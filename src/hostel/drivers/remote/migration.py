"""The steps of a migration, made by a daemon; see :class:`hostel.drivers.base.migration.MigrationDriver`."""

from __future__ import annotations

from typing import Final

from hostel.drivers.adapters import uuid_text
from hostel.drivers.base import DomainRef
from hostel.drivers.base.migration import MigrateFlag, Parameters, Tunnel
from hostel.drivers.parameters import write_parameters
from hostel.drivers.remote.client import RpcClient, RpcStream
from hostel.drivers.remote.machine import wire
from hostel.wire.rpc.packet import STREAM_MAX

_POSTCOPY: Final = 1  # of virDomainMigrateMaxSpeedFlags


class RemoteMigration:
    """The steps, and what may be set."""

    _client: RpcClient

    def supports(self, feature: int) -> bool:
        """Whether the daemon, or its driver, has a feature (``virDrvFeature``)."""
        return bool(self._client.call("connect_supports_feature", int(feature))[0])

    def domain_migrate_begin3_params(
        self, domain: DomainRef, params: Parameters, flags: MigrateFlag
    ) -> tuple[bytes, str]:
        """Begin."""
        cookie, xml = self._client.call(
            "domain_migrate_begin3_params", wire("domain", domain), write_parameters(params), int(flags)
        )
        return bytes(cookie), str(xml)

    def domain_migrate_prepare3_params(
        self, params: Parameters, cookie_in: bytes, flags: MigrateFlag
    ) -> tuple[bytes, str | None]:
        """Prepare."""
        cookie, uri = self._client.call(
            "domain_migrate_prepare3_params", write_parameters(params), cookie_in, int(flags)
        )
        return bytes(cookie), uri

    def domain_migrate_prepare_tunnel3_params(
        self, params: Parameters, cookie_in: bytes, flags: MigrateFlag
    ) -> tuple[bytes, Tunnel]:
        """Prepare, where the machine comes through a stream."""
        stream = self._client.open_stream(
            "domain_migrate_prepare_tunnel3_params", write_parameters(params), cookie_in, int(flags)
        )
        return bytes(stream.result[0]), _StreamTunnel(stream)

    def domain_migrate_perform3_params(
        self, domain: DomainRef, dconnuri: str | None, params: Parameters, cookie_in: bytes, flags: MigrateFlag
    ) -> bytes:
        """Perform."""
        given = wire("domain", domain), dconnuri, write_parameters(params), cookie_in, int(flags)
        return bytes(self._client.call("domain_migrate_perform3_params", *given)[0])

    def domain_migrate_finish3_params(
        self, params: Parameters, cookie_in: bytes, flags: MigrateFlag, cancelled: bool
    ) -> tuple[DomainRef, bytes]:
        """Finish."""
        given = write_parameters(params), cookie_in, int(flags), int(cancelled)
        domain, cookie = self._client.call("domain_migrate_finish3_params", *given)
        return DomainRef(domain.name, uuid_text(domain.uuid), domain.id), bytes(cookie)

    def domain_migrate_confirm3_params(
        self, domain: DomainRef, params: Parameters, cookie_in: bytes, flags: MigrateFlag, cancelled: bool
    ) -> None:
        """Confirm."""
        given = wire("domain", domain), write_parameters(params), cookie_in, int(flags), int(cancelled)
        self._client.call("domain_migrate_confirm3_params", *given)

    def domain_migrate_get_max_downtime(self, domain: DomainRef) -> int:
        """How long the guest may stand still, in milliseconds."""
        return self._number("domain_migrate_get_max_downtime", domain)

    def domain_migrate_set_max_downtime(self, domain: DomainRef, downtime: int) -> None:
        """Set that."""
        self._client.call("domain_migrate_set_max_downtime", wire("domain", domain), downtime, 0)

    def domain_migrate_get_max_speed(self, domain: DomainRef, *, postcopy: bool = False) -> int:
        """How much may be sent, in MiB a second."""
        return self._number("domain_migrate_get_max_speed", domain, _POSTCOPY if postcopy else 0)

    def domain_migrate_set_max_speed(self, domain: DomainRef, bandwidth: int, *, postcopy: bool = False) -> None:
        """Set that."""
        flags = _POSTCOPY if postcopy else 0
        self._client.call("domain_migrate_set_max_speed", wire("domain", domain), bandwidth, flags)

    def domain_migrate_get_compression_cache(self, domain: DomainRef) -> int:
        """The size of the cache of pages that were sent, in bytes."""
        return self._number("domain_migrate_get_compression_cache", domain)

    def domain_migrate_set_compression_cache(self, domain: DomainRef, cache_size: int) -> None:
        """Set that."""
        self._client.call("domain_migrate_set_compression_cache", wire("domain", domain), cache_size, 0)

    def domain_migrate_start_post_copy(self, domain: DomainRef) -> None:
        """Let the guest run at the destination now."""
        self._client.call("domain_migrate_start_post_copy", wire("domain", domain), 0)

    def _number(self, procedure: str, domain: DomainRef, flags: int = 0) -> int:
        return int(self._client.call(procedure, wire("domain", domain), flags)[0])


class _StreamTunnel:
    """A :class:`hostel.drivers.base.migration.Tunnel` through a stream."""

    def __init__(self, stream: RpcStream) -> None:
        self._stream = stream
        self._is_over = False

    def send(self, data: bytes | memoryview) -> None:
        """Send all of ``data``."""
        view = memoryview(data)
        for start in range(0, len(view), STREAM_MAX):
            self._stream.send(view[start : start + STREAM_MAX])

    def finish(self) -> None:
        """End in order."""
        self._is_over = True
        self._stream.finish()

    def abort(self) -> None:
        """Give up, unless it has ended."""
        if not self._is_over:
            self._is_over = True
            self._stream.abort()
