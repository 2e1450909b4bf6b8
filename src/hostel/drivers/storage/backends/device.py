"""Volumes that are devices of this host: what disks, volume groups and logical units have in common."""

from __future__ import annotations

import os
import stat
import time
from typing import Final

from hostel.block import graph
from hostel.block.trust import Trust
from hostel.drivers.base import Progress, VolumeCreateFlag, VolumeType
from hostel.drivers.fault import fault
from hostel.drivers.storage import content, lineage, provenance
from hostel.drivers.storage.backends.base import Source
from hostel.drivers.storage.backends.transfer import HostVolumes, check_content
from hostel.drivers.storage.document import Permissions, PoolDefinition, VolumeDefinition, VolumeFacts
from hostel.drivers.storage.holding import translating
from hostel.errors import ErrorCode, ErrorDomain, VirtError

_PATIENCE: Final = 5.0  # seconds for a device's files to appear
_POLL: Final = 0.1


class DeviceVolumes(HostVolumes):
    """The volume half of a backend whose volumes are devices."""

    def check(self, pool: PoolDefinition) -> None:
        """Refuse a relative path.

        Raises:
            VirtError: ``INVALID_ARG``.
        """
        if not pool.path.startswith("/"):
            raise fault(ErrorCode.INVALID_ARG, f"path '{pool.path}' is not absolute", ErrorDomain.STORAGE)


def device_facts(name: str, path: str, *, format: str = "") -> VolumeFacts | None:
    """The facts of the device at ``path``; None where there is none, or none that we may read.

    What is on it is not looked at: a device is its bytes.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            length = os.lseek(descriptor, 0, os.SEEK_END)
        finally:
            os.close(descriptor)
    except OSError:
        return None
    permissions = Permissions(stat.S_IMODE(status.st_mode) & 0o777, status.st_uid, status.st_gid)
    times = (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns)
    return VolumeFacts(name, path, VolumeType.BLOCK, format, length, length, length, permissions, times)


def refuse_flags(flags: VolumeCreateFlag) -> None:
    """Refuse what only files have.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``.
    """
    for flag, what in (
        (VolumeCreateFlag.PREALLOC_METADATA, "metadata preallocation is"),
        (VolumeCreateFlag.REFLINK, "reflink copies are"),
    ):
        if flags & flag:
            detail = f"{what} not supported for block volumes"
            raise fault(ErrorCode.CONFIG_UNSUPPORTED, detail, ErrorDomain.STORAGE)


def refuse_encryption(volume: VolumeDefinition) -> None:
    """Refuse to encrypt a device.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``.
    """
    if volume.encryption is not None:
        detail = f"volume '{volume.name}': volumes of this pool are not encrypted here: use 'cryptsetup' on its device"
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, detail, ErrorDomain.STORAGE)


def wait_for(path: str) -> bool:
    """Whether a device's file is there, or appears within a short while after its device was made."""
    until = time.monotonic() + _PATIENCE
    while not os.path.exists(path):
        if time.monotonic() >= until:
            return False
        time.sleep(_POLL)
    return True


def fill(path: str, volume: VolumeDefinition, source: Source, progress: Progress | None) -> None:
    """Copy what a machine would read of another volume onto a device, and zeroes behind that.

    Raises:
        VirtError: the source is longer than the device, or stands on what is in no active pool.
    """
    facts = source.facts
    check_content(facts, "copied")
    if facts.type is VolumeType.NETWORK:
        raise unreachable(facts)
    origin = content.format_of(facts)
    with translating(f"cannot copy volume '{facts.name}' to '{path}'", facts.name, facts.path):
        if origin != "raw":
            provenance.refuse_unvouched(facts.path, f"volume '{facts.name}'")
            lineage.check(facts.name, facts.path, origin, source.directories)
        with graph.open(facts.path, origin, trust=Trust.TRUSTED) as reader:
            if origin != "raw":
                lineage.confirm(facts.name, reader, source.directories)
            with graph.open(path, "raw", read_only=False) as writer:
                if reader.length > writer.length:
                    detail = (
                        f"volume '{facts.name}' has {reader.length} bytes, which do not fit into the {writer.length} "
                        f"bytes of '{volume.name}'"
                    )
                    raise fault(ErrorCode.INVALID_ARG, detail, ErrorDomain.STORAGE)
                content.copy(reader, writer, progress, is_new=False)
                if writer.length > reader.length:
                    writer.write_zeroes(reader.length, writer.length - reader.length)
                writer.flush()


def unreachable(facts: VolumeFacts) -> VirtError:
    """The refusal to read a volume that a server has as if it were a file."""
    return fault(
        ErrorCode.NO_SUPPORT,
        f"volume '{facts.name}' is on a server: copy it with 'qemu-img convert' from '{facts.path}'",
        ErrorDomain.STORAGE,
    )
