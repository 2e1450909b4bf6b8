"""A disk's content copied past any pool: into a new file, or onto a device that is there."""

from __future__ import annotations

import fcntl
import os
import stat
from typing import Final

from hostel.block import graph
from hostel.block.driver import WRITEBACK
from hostel.block.registry import FORMATS
from hostel.drivers.storage.inspect import open_untrusted
from hostel.errors import BlockError, UntrustedReference, UsageError
from hostel.img.convert import convert, convert_into, plan_target
from hostel.img.copy import CopySettings

_FICLONE: Final = 0x40049409  # linux/fs.h


def names_others(path: str, format: str) -> bool:
    """Whether the image at a path stands on other files: a backing file, a data file, extents.

    Raises:
        UsageError: it is no image of that format, so that nobody can say.
    """
    if format == "raw" or format not in FORMATS:
        return False
    try:
        with open_untrusted(path, format) as node:
            return bool(node.driver.references())
    except UntrustedReference:
        return True  # its metadata is not told without them
    except (BlockError, OSError) as error:
        raise UsageError(f"{path} cannot be copied as {format}: {error}") from error


def length_of(path: str) -> int:
    """How many bytes a file or a device has.

    Raises:
        UsageError: it cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    try:
        return os.lseek(descriptor, 0, os.SEEK_END)
    finally:
        os.close(descriptor)


def copy_file(source: str, target: str, *, format: str = "raw", sparse: bool, reflink: bool = False) -> None:
    """Copy what no machine writes into a new file; where that fails, there is no target.

    A file is copied byte for byte, with its holes. An image that names other files becomes one that stands alone: its
    bytes would name the same files, which two machines cannot both write, and from elsewhere others or none.

    Args:
        source: a file or a block device.
        target: where nothing is.
        format: by which the machine reads it.
        sparse: zeroes take no space.
        reflink: share the data until one of both is written.

    Raises:
        UsageError: the source is in use or cannot be read, the target is there, or there is no room.
    """
    if _is_of_devices(os.path.realpath(os.path.dirname(target))):
        raise UsageError(
            f"{target}: a file that is made there is no device: make the volume first (virsh vol-create-as), "
            "and have it filled with --check path_exists=off"
        )
    alone = not names_others(source, format)
    if reflink and not alone:
        raise UsageError(f"{source} names other files, so that its data cannot be shared; leave out --reflink")
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(f"{target}: {error.strerror}") from None
    try:
        try:
            status = os.stat(source)
            if stat.S_ISREG(status.st_mode):
                os.fchmod(descriptor, status.st_mode & 0o777)
            if reflink:
                _share(source, descriptor)
            elif alone:
                length = length_of(source)
                os.ftruncate(descriptor, length)
                _copy_bytes(source, target, CopySettings(reads_as_zeroes=sparse, min_sparse=4096 if sparse else 0))
                os.ftruncate(descriptor, length)  # images are whole sectors, files need not be
            else:
                _flatten(source, target, format)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException as error:
        os.unlink(target)
        if isinstance(error, BlockError | OSError):
            raise UsageError(f"{source} cannot be copied: {error}") from error
        raise


def _is_of_devices(directory: str) -> bool:
    parts = directory.split("/")[1:3]
    return parts[0] == "dev" and parts[1:] != ["shm"]


def fill_device(source: str, device: str, *, format: str = "raw") -> None:
    """Copy what no machine writes onto a block device; where that fails, the device has part of it.

    Raises:
        UsageError: one of both is in use (a file system on the device is mounted), or the device is too small.
    """
    alone = not names_others(source, format)
    try:
        holder = os.open(device, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)  # the kernel refuses what is mounted
        try:
            if alone:
                _copy_bytes(source, device, CopySettings())
            else:
                _flatten(source, device, format)
            os.fsync(holder)
        finally:
            os.close(holder)
    except (BlockError, OSError) as error:
        raise UsageError(f"{source} cannot be copied onto {device}: {error}") from error


def _copy_bytes(source: str, target: str, settings: CopySettings) -> None:
    with graph.open(source, "raw", exclusive=True) as node:
        convert_into([node], graph.open(target, "raw", read_only=False), settings)


def _flatten(source: str, target: str, format: str) -> None:
    with graph.open(source, format, exclusive=True) as node:
        convert([node], plan_target([node], target, format), cache=WRITEBACK)


def _share(source: str, descriptor: int) -> None:
    with graph.open(source, "raw", exclusive=True), open(source, "rb") as reader:
        try:
            fcntl.ioctl(descriptor, _FICLONE, reader.fileno())
        except OSError as error:
            why = f"{error.strerror}; it takes one file system that can share data, such as Btrfs or XFS"
            raise UsageError(f"failed to clone files from '{source}': {why}") from None
