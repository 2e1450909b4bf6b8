"""Pool type ``iscsi-direct``: the logical units of a target, reached by libiscsi without the kernel."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Final

from hostel.block.protocols.iscsi.library import Login, Unit
from hostel.block.protocols.iscsi.target import Target, Who
from hostel.drivers.base import Progress, VolumeType, WipeAlgorithm
from hostel.drivers.fault import fault
from hostel.drivers.storage.backends.base import Backend
from hostel.drivers.storage.backends.finding import one_host, port_of
from hostel.drivers.storage.backends.iscsi import portal_of
from hostel.drivers.storage.backends.library import translating_library
from hostel.drivers.storage.document import Permissions, PoolDefinition, PoolSizes, VolumeFacts
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.source import Host as ServerName
from hostel.model.pool_sources import PoolSources
from hostel.model.storage import PoolDevice, PoolSource

_PORT: Final = 3260
_PREFIX: Final = "unit:0:0:"
_AT_ONCE: Final = 128  # blocks that are written by one command


class IscsiDirectBackend(Backend):
    """A target."""

    def check(self, pool: PoolDefinition) -> None:
        """One server and one target.

        Raises:
            VirtError: in libvirt's words.
        """
        one_host(pool.source, "iscsi")
        if len(pool.source.devices) != 1:
            raise _internal("missing source device")
        if pool.source.auth is not None and pool.source.auth.type != "chap":
            detail = "iscsi-direct pool only supports 'chap' auth type"
            raise fault(ErrorCode.XML_ERROR, detail, ErrorDomain.STORAGE)

    def refresh(self, pool: PoolDefinition) -> PoolDefinition:
        """Make sure that the target lets us in, and tells of its units."""
        self.describe_all(pool)
        return pool

    def describe(self, pool: PoolDefinition) -> tuple[PoolDefinition, PoolSizes]:
        """The sum of the units; nothing is free."""
        total = sum(facts.capacity for facts in self.describe_all(pool))
        return pool, PoolSizes(total, total, 0)

    def describe_all(self, pool: PoolDefinition) -> Iterable[VolumeFacts]:
        """Every unit of the target."""
        with self._target(pool) as target:
            return [self._facts(pool, number, target.capacity(number)) for number in target.units()]

    def wipe(
        self, pool: PoolDefinition, volume: VolumeFacts, algorithm: WipeAlgorithm, progress: Progress | None
    ) -> None:
        """Write zeroes over a unit.

        Raises:
            VirtError: ``INVALID_ARG`` for another algorithm.
        """
        if algorithm is not WipeAlgorithm.ZERO:
            raise fault(ErrorCode.INVALID_ARG, f"unsupported algorithm {algorithm.value}", ErrorDomain.STORAGE)
        who = self._who(pool)
        number = int(volume.name.removeprefix(_PREFIX))
        login = Login(who.portal, pool.device, number, who.initiator, user=who.user, password=who.password)
        with translating_library(f"failed to write to LUN {number}", ErrorCode.INTERNAL_ERROR):
            unit = Unit(login)
            try:
                zeroes = memoryview(bytes(unit.block_size * _AT_ONCE))
                for block in range(0, unit.blocks, _AT_ONCE):
                    count = min(_AT_ONCE, unit.blocks - block)
                    unit.write(block, zeroes[: count * unit.block_size])
                    if progress is not None:
                        progress((block + count) * unit.block_size, unit.blocks * unit.block_size)
                unit.sync()
            finally:
                unit.close()

    def find_sources(self, source: PoolSource | None) -> PoolSources:
        """The targets of a server.

        Raises:
            VirtError: it cannot be asked, or it is not said as whom.
        """
        host, port = one_host(source, "iscsi")
        initiator = None if source is None else source.initiator
        if initiator is None or initiator.iqn is None:
            raise fault(ErrorCode.CONFIG_UNSUPPORTED, "missing initiator IQN", ErrorDomain.STORAGE)
        who = Who(portal_of(host, port or _PORT), initiator.iqn)
        with translating_library(f"cannot ask '{who.portal}'", ErrorCode.INTERNAL_ERROR), Target(who, None) as server:
            names = server.names()
        hosts = [ServerName(name=host, port=str(port) if port else None)]
        return PoolSources(
            sources=[PoolSource(hosts=hosts, devices=[PoolDevice(path=name)], initiator=initiator) for name in names]
        )

    def _facts(self, pool: PoolDefinition, number: int, capacity: int) -> VolumeFacts:
        path = f"ip-{self._portal(pool)}-iscsi-{pool.device}-lun-{number}"
        name = f"{_PREFIX}{number}"
        return VolumeFacts(name, path, VolumeType.NETWORK, "", capacity, capacity, 0, Permissions(), None)

    def _portal(self, pool: PoolDefinition) -> str:
        host = pool.source.hosts[0]
        return portal_of(host.name or "", port_of(host.port) or _PORT)

    def _who(self, pool: PoolDefinition) -> Who:
        assert pool.source.initiator is not None  # the document's rules
        who = Who(self._portal(pool), pool.source.initiator.iqn or "")
        auth = pool.source.auth
        if auth is None or auth.secret is None:
            return who
        return who._replace(user=auth.username, password=self.host.secret(auth.secret, "iscsi"))

    @contextlib.contextmanager
    def _target(self, pool: PoolDefinition) -> Iterator[Target]:
        with (
            translating_library(f"target '{pool.device}' of '{self._portal(pool)}'", ErrorCode.INTERNAL_ERROR),
            Target(self._who(pool), pool.device) as target,
        ):
            yield target


def _internal(detail: str) -> VirtError:
    return fault(ErrorCode.INTERNAL_ERROR, detail, ErrorDomain.STORAGE)
