"""What a pool type does itself; the driver does what is the same for all of them.

To add a type: a module here with a class of these methods, and its row in :data:`BACKENDS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterable, Iterator
from typing import Final, NamedTuple, Protocol

from hostel.drivers.base import Hole, Progress, VolumeCreateFlag, VolumeResizeFlag, WipeAlgorithm
from hostel.drivers.fault import fault
from hostel.drivers.storage.document import PoolDefinition, PoolSizes, VolumeDefinition, VolumeFacts
from hostel.errors import ErrorCode, ErrorDomain


class Source(NamedTuple):
    """What a clone is made of.

    Attributes:
        directories: the real paths of the active pools, in which a backing chain may lie.
    """

    facts: VolumeFacts
    directories: Collection[str]


class Backend(Protocol):
    """A pool type. Sizes are bytes; errors are VirtError."""

    def check(self, pool: PoolDefinition) -> None:
        """Refuse a definition that cannot work."""

    def is_running(self, pool: PoolDefinition) -> bool:
        """Whether a pool that was started is still there."""

    def build(self, pool: PoolDefinition) -> None:
        """Make what the pool stands on."""

    def delete(self, pool: PoolDefinition) -> None:
        """Remove what :meth:`build` made."""

    def start(self, pool: PoolDefinition) -> None:
        """Make its volumes reachable."""

    def stop(self, pool: PoolDefinition) -> None:
        """Undo :meth:`start`."""

    def refresh(self, pool: PoolDefinition) -> PoolDefinition:
        """Look again; the definition with the permissions as they are."""

    def sizes(self, pool: PoolDefinition) -> PoolSizes:
        """Capacity, allocation and free space now."""

    def volumes(self, pool: PoolDefinition) -> Iterator[tuple[str, str]]:
        """The name and key of every volume."""

    def volume(self, pool: PoolDefinition, name: str) -> VolumeFacts | None:
        """The facts of a volume; None when there is none of this name."""

    def path(self, pool: PoolDefinition, name: str) -> str | None:
        """Where a volume of this name is or would be; None for what cannot be a volume's name."""

    def create(self, pool: PoolDefinition, volume: VolumeDefinition, flags: VolumeCreateFlag) -> None:
        """Create an empty volume, whole or not at all."""

    def create_from(
        self,
        pool: PoolDefinition,
        volume: VolumeDefinition,
        source: Source,
        flags: VolumeCreateFlag,
        progress: Progress | None,
    ) -> None:
        """Create a volume with another's content, whole or not at all."""

    def remove(self, volume: VolumeFacts) -> None:
        """Remove a volume."""

    def resize(self, volume: VolumeFacts, capacity: int, flags: VolumeResizeFlag, directories: Collection[str]) -> None:
        """Change a volume's capacity; the driver has checked libvirt's rules."""

    def wipe(self, volume: VolumeFacts, algorithm: WipeAlgorithm, progress: Progress | None) -> None:
        """Overwrite a volume's bytes, so that they cannot be read back."""

    def download(self, volume: VolumeFacts, offset: int, length: int, *, sparse: bool) -> Iterator[memoryview | Hole]:
        """A volume's bytes; ``length`` 0 is to the end, and holes are told with ``sparse``."""

    def upload(
        self,
        volume: VolumeFacts,
        source: Iterable[bytes | memoryview | Hole],
        offset: int,
        length: int,
        *,
        trusted: bool = False,
    ) -> None:
        """Overwrite a volume's bytes; ``length`` 0 is no bound. What names other files is not followed later."""


BACKENDS: Final[dict[str, str]] = {
    "dir": "hostel.drivers.storage.backends.dir:DirBackend",
}


def backend_for(type: str) -> Backend:
    """The backend of a pool type.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``; there is none yet.
    """
    target = BACKENDS.get(type)
    if target is None:
        known = ", ".join(f"'{name}'" for name in BACKENDS)
        raise fault(
            ErrorCode.CONFIG_UNSUPPORTED,
            f"pool type '{type}' is not supported yet: supported is {known}",
            ErrorDomain.STORAGE,
        )
    module, _, name = target.partition(":")
    backend: Backend = getattr(importlib.import_module(module), name)()
    return backend
