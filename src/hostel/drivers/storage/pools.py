"""Which pools there are: definitions, autostart marks and running pools, on disk and shared by all processes.

``<config>/storage/<name>.xml`` is a definition, ``<config>/storage/autostart/<name>`` a mark, and
``<state>/storage/<name>.xml`` says that a pool runs, and as what. Nothing is kept in memory: every question is
answered from disk, so what another process did is seen at once.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from hostel.drivers.fault import fault
from hostel.drivers.storage.document import PoolDefinition, format_pool, parse_pool
from hostel.drivers.store import Directories, Store, is_usable_name
from hostel.errors import ErrorCode, ErrorDomain, VirtError

if TYPE_CHECKING:
    from hostel.drivers.storage.backends.base import Backend

_PATIENCE: Final = 30.0  # seconds to wait for somebody who changes the same pool


class Pool(NamedTuple):
    """One pool: its definition, and what runs; at least one of them."""

    defined: PoolDefinition | None
    running: PoolDefinition | None

    @property
    def current(self) -> PoolDefinition:
        """What runs, or else the definition."""
        found = self.running or self.defined
        assert found is not None
        return found

    @property
    def is_redefined(self) -> bool:
        """Whether the definition says something else than what runs was started from."""
        if self.defined is None or self.running is None:
            return False
        # A running pool's permissions are those of its directory.
        return self.defined._replace(permissions=self.running.permissions) != self.running


# Every question about a volume asks for its pool's document, which rarely changes.
_parse_stored = functools.lru_cache(maxsize=64)(parse_pool)


class Pools:
    """All pools of a session."""

    def __init__(self, directories: Directories) -> None:
        self._definitions = Store(directories.config / "storage")
        self._autostarts = Store(directories.config / "storage" / "autostart", suffix="")
        self._running = Store(directories.state / "storage")
        self._changing = directories.state / "storage" / "changing"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep all other processes and threads from changing pools; not for long work."""
        with self._definitions.locked():
            yield

    @contextlib.contextmanager
    def changing(self, name: str) -> Iterator[None]:
        """Be the one who starts, stops, makes or removes a pool: that may take long, and keeps nobody off the others.

        Raises:
            VirtError: ``OPERATION_INVALID``; somebody else is at it and does not come to an end.
        """
        with self._holding(name, f"storage pool '{name}' is starting up"):
            yield

    @contextlib.contextmanager
    def changing_volumes(self, name: str, backend: Backend) -> Iterator[None]:
        """Be the one who makes or removes a volume, where a pool's own tool would have two get in each other's way."""
        if backend.has_files:
            yield  # a file is made beside its place, and put there at once
            return
        with self._holding(f"{name}/volumes", f"pool '{name}' has asynchronous jobs running."):
            yield

    @contextlib.contextmanager
    def _holding(self, what: str, busy: str) -> Iterator[None]:
        # Any name, however long and of whichever characters, has a folder of its own for its lock.
        lock = Store(self._changing / hashlib.sha256(os.fsencode(what)).hexdigest()[:32])
        try:
            held = contextlib.ExitStack()
            with held:
                held.enter_context(lock.locked(_PATIENCE))
                held = held.pop_all()
        except VirtError as error:
            if error.code is ErrorCode.OPERATION_TIMEOUT:
                raise fault(ErrorCode.OPERATION_INVALID, busy, ErrorDomain.STORAGE) from error
            raise
        with held:
            yield

    def all(self) -> list[Pool]:
        """Every pool, by name; a definition that cannot be read is left out, and refused when it is asked for."""
        pools = []
        for name in sorted({*self._definitions.names(), *self._running.names()}):
            with contextlib.suppress(VirtError):
                if (pool := self.find(name)) is not None:
                    pools.append(pool)
        return pools

    def find(self, name: str) -> Pool | None:
        """A pool by name.

        Raises:
            VirtError: its file is broken.
        """
        if not is_usable_name(name):
            return None
        defined = self._read(self._definitions, name)
        running = self._read(self._running, name)
        return Pool(defined, running) if defined or running else None

    def save_definition(self, pool: PoolDefinition) -> None:
        """Write a definition; the caller holds the lock."""
        self._definitions.sweep()
        self._definitions.write(pool.name, format_pool(pool))

    def drop_definition(self, name: str) -> None:
        """Remove a definition and its mark; the caller holds the lock."""
        self._autostarts.remove(name)
        self._definitions.remove(name)

    def save_running(self, pool: PoolDefinition) -> None:
        """Say that a pool runs; the caller holds the lock."""
        self._running.sweep()
        self._running.write(pool.name, format_pool(pool))

    def drop_running(self, name: str) -> None:
        """Say that a pool no longer runs; the caller holds the lock."""
        self._running.remove(name)

    def drop_all_running(self) -> None:
        """Say that no pool runs; the caller holds the lock."""
        for name in self._running.names():
            self._running.remove(name)

    def autostart(self, name: str) -> bool:
        """Whether a pool starts with the driver."""
        return self._autostarts.has(name)

    def set_autostart(self, name: str, value: bool) -> None:
        """Set whether a pool starts with the driver; the caller holds the lock."""
        if value:
            self._autostarts.write(name, "")
        else:
            self._autostarts.remove(name)

    def autostarts(self) -> list[str]:
        """The names of the pools that start with the driver."""
        return self._autostarts.names()

    def _read(self, store: Store, name: str) -> PoolDefinition | None:
        try:
            xml = store.read(name)
            if xml is None:
                return None
            pool = _parse_stored(xml)
        except VirtError as error:
            raise self._broken(store, name, str(error)) from error
        if pool.name != name:
            raise self._broken(store, name, f"it is about pool '{pool.name}'")
        return pool

    @staticmethod
    def _broken(store: Store, name: str, why: str) -> VirtError:
        return fault(ErrorCode.INTERNAL_ERROR, f"pool file '{store.path(name)}' is broken: {why}", ErrorDomain.STORAGE)
