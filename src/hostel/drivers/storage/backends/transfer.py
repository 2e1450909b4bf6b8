"""Volumes whose bytes this host has, in a file or on a device: read, written and wiped alike."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from hostel.block.permission import Permission, lock
from hostel.drivers.base import Hole, Progress, VolumeType, WipeAlgorithm
from hostel.drivers.fault import fault
from hostel.drivers.storage import content, provenance, wiping
from hostel.drivers.storage.backends.base import Backend
from hostel.drivers.storage.document import PoolDefinition, VolumeFacts
from hostel.drivers.storage.holding import held, translating
from hostel.errors import ErrorCode, ErrorDomain


class HostVolumes(Backend):
    """The part of a backend that moves bytes."""

    def wipe(
        self, pool: PoolDefinition, volume: VolumeFacts, algorithm: WipeAlgorithm, progress: Progress | None
    ) -> None:
        """Overwrite a volume's bytes, its metadata included."""
        check_content(volume, "wiped")
        wiping.check(algorithm)
        with (
            translating(f"cannot wipe volume '{volume.name}' at '{volume.path}'", volume.name, volume.path),
            held(volume.name, volume.path) as descriptor,
        ):
            wiping.wipe(descriptor, algorithm, progress)

    def download(
        self, pool: PoolDefinition, volume: VolumeFacts, offset: int, length: int, *, sparse: bool
    ) -> Iterator[memoryview | Hole]:
        """A volume's bytes; a machine may be using it meanwhile."""
        check_content(volume, "downloaded")
        with translating(f"cannot read volume '{volume.name}' at '{volume.path}'", volume.name, volume.path):
            descriptor = os.open(volume.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                lock(descriptor, volume.path, Permission.CONSISTENT_READ, Permission.ALL)
                yield from content.download(descriptor, offset, length, sparse=sparse)
            finally:
                os.close(descriptor)

    def upload(
        self,
        pool: PoolDefinition,
        volume: VolumeFacts,
        source: Iterable[bytes | memoryview | Hole],
        offset: int,
        length: int,
        *,
        trusted: bool,
    ) -> None:
        """Overwrite a volume's bytes; what names other files is not followed later, unless it is ``trusted``."""
        check_content(volume, "uploaded to")
        pieces = iter(source)
        with (
            translating(f"cannot write volume '{volume.name}' at '{volume.path}'", volume.name, volume.path),
            held(volume.name, volume.path) as descriptor,
        ):
            # Before the first byte: an upload that is cut off may have brought the header.
            marked = not trusted and provenance.mark(descriptor)
            content.upload(descriptor, volume.name, pieces, offset, length)
            name = None if trusted else provenance.named(volume.path)
            if name is None:
                provenance.clear(descriptor)
            elif not marked:
                raise provenance.unmarkable(f"volume '{volume.name}'", name)
        # Who has sent all that was announced may use the volume, and some never end their stream.
        content.expect_end(volume.name, pieces, length)


def check_content(volume: VolumeFacts, verb: str) -> None:
    """Refuse to do to a directory what is done to bytes.

    Raises:
        VirtError: ``OPERATION_INVALID``.
    """
    if volume.type is VolumeType.DIR:
        detail = f"volume '{volume.name}' is a directory and cannot be {verb}"
        raise fault(ErrorCode.OPERATION_INVALID, detail, ErrorDomain.STORAGE)
