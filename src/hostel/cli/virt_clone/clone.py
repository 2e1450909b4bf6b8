"""The copy of a machine: what becomes of each disk, and the document that follows from it."""

from __future__ import annotations

import enum
import os
import re
import uuid
from collections.abc import Callable
from typing import Final
from xml.etree import ElementTree

from hostel.cli.virt_clone.copy import length_of, names_others
from hostel.cli.virt_install import network
from hostel.cli.virt_install.disk import Disk
from hostel.cli.virt_install.guest import Guest
from hostel.cli.virt_install.storage import Medium, NewVolume, Storage, doubt_about
from hostel.errors import ErrorCode, HostelError, UsageError, VirtError
from hostel.objects import StorageVolume

_AUTOMATIC: Final = "-1"
_LONGEST_SUFFIX: Final = 7  # characters: what is longer is part of the name
_OVERWRITES: Final = "This will overwrite the existing path"
_CLONE: Final = re.compile(r"-clone([1-9]*)$")


class Action(enum.Enum):
    """What becomes of a disk."""

    SHARE = enum.auto()  # both machines have it
    COPY = enum.auto()
    PRESERVE = enum.auto()  # the new machine has another one, which is there already


class DiskCopy:
    """A disk of the original, and what the new machine has instead.

    Attributes:
        disk: the disk of the new machine's document, which still has the original's content.
        path: where that content is; None for an empty drive, and where its volume cannot be found.
        action: what becomes of it.
        medium: what the new machine's disk has; None while that is not settled, and where it is shared.
    """

    def __init__(self, disk: Disk, storage: Storage) -> None:
        self.disk = disk
        self._storage = storage
        self._missing: VirtError | None = None
        self.path: str | None = None
        try:
            self.path = disk.source_path(storage)
        except VirtError as error:
            if error.code not in (ErrorCode.NO_STORAGE_POOL, ErrorCode.NO_STORAGE_VOL):
                raise
            self._missing = error
        is_shared = disk.get("shareable") is not None or disk.get("transient/@shareBacking") == "yes"
        is_empty = self.path is None and self._missing is None
        stays = is_empty or disk.get("readonly") is not None or is_shared
        self.action = Action.SHARE if stays else Action.COPY
        self.medium: Medium | None = None

    @property
    def target(self) -> str:
        """The name of the disk in its machine."""
        return self.disk.get("target/@dev") or ""

    @property
    def format(self) -> str:
        """By which the machine reads the content."""
        return self.disk.get("driver/@type") or "raw"

    @property
    def onto_device(self) -> bool:
        """Whether the copy goes onto a device that is there."""
        return self.action is Action.COPY and self.medium is not None and self.medium.exists

    def settle(self, path: str | None, *, sparse: bool) -> None:
        """Take a path for the new machine's disk; None for an empty drive.

        Raises:
            UsageError: the original cannot be copied, or the path cannot be used.
        """
        if self.action is Action.SHARE:
            return
        if path is None:
            self.medium = None
            return
        try:
            self.medium = self._target(path, sparse=sparse)
        except HostelError as error:
            raise UsageError(f"Could not use path '{path}' for cloning: {error}") from error

    def require_copyable(self) -> None:
        """Refuse to copy what cannot be copied.

        Raises:
            UsageError: it cannot.
        """
        if self.action is Action.SHARE:
            return
        if self._missing is not None:
            # Both machines would write it once it is back.
            why = f"{self._missing}; with --skip-copy {self.target} both machines have it"
            raise UsageError(f"Could not determine original disk information: {why}")
        if self.action is not Action.COPY or self.path is None:
            return
        protocol = self.disk.get("source/@protocol")
        if protocol == "rbd":
            why = "Cloning rbd volumes is not yet supported."
        elif self.disk.get("@type") == "network":
            why = f"Disk network type '{protocol}' is not cloneable."
        elif not self._storage.locate(self.path or "").exists:
            why = f"Disk path '{self.path}' does not exist."
        else:
            return
        raise UsageError(f"Could not determine original disk information: {why}")

    def doubt(self) -> str | None:
        """Why the files that the original stands on are not to be read into its copy; None where nothing says so."""
        if self.action is not Action.COPY or self.path is None or self.volume is not None:
            return None
        return doubt_about(self._storage.connection, Medium("file", self.path, exists=True, format=self.format))

    def _target(self, path: str, *, sparse: bool) -> Medium:
        if not path:
            raise UsageError("it is empty; write where the copy shall be")
        found = self._storage.locate(path)
        if self.action is Action.PRESERVE:
            if not found.exists:
                raise UsageError(f"Must specify storage creation parameters for non-existent path '{path}'.")
            return found
        if found.type == "network":
            raise UsageError("disks are copied to files, volumes and block devices, and nowhere over a network")
        if found.exists and found.type == "block":
            return self._device(found)
        if found.exists:
            is_volume = (
                self._storage.connection.uri.startswith("qemu") or self._storage.volume_at(found.path) is not None
            )
            what = "Clone onto existing storage volume is not currently supported:" if is_volume else _OVERWRITES
            raise UsageError(f"{what} '{found.path}'; keep what is there with --preserve-data")
        volume = self.volume
        if volume is None:
            directory = os.path.dirname(found.path)
            if not os.path.isdir(directory) and self._storage.pool_at(directory) is None:
                raise UsageError(f"'{directory}' is no directory; make it first")
            return Medium("file", found.path, exists=False)
        told = ElementTree.fromstring(volume.xml())
        capacity, allocation = (int(told.findtext(name) or 0) for name in ("capacity", "allocation"))
        format = self._storage.medium_of(volume).format
        new = self._storage.plan_copy(found.path, capacity, allocation if sparse else capacity, format)
        return self._storage.medium_to_be(new)

    def _device(self, found: Medium) -> Medium:
        """A block device that takes the copy."""
        if self._storage.is_remote or self.path is None:
            raise UsageError("devices are filled on the host that has them")
        length, room = (length_of(path) for path in (self.path, found.path))
        if length > room and not names_others(self.path, self.format):
            raise UsageError(f"the device has {room} bytes, and the original {length}")
        return found

    @property
    def volume(self) -> StorageVolume | None:
        """The original as a volume of a pool; None where it is in none.

        A pool tells formats from the first bytes, which a guest writes. Where the machine reads them by another format,
        the volume is not asked: it would be copied as what it is not.
        """
        volume = None if self.path is None else self._storage.volume_at(self.path)
        if volume is None or self._storage.is_remote or not self._storage.connection.uri.startswith("qemu"):
            return volume
        told = self._storage.medium_of(volume).format
        if told in (None, "raw", "iso"):  # it is copied byte for byte
            path = self.path or ""
            return None if os.path.exists(path) and names_others(path, self.format) else volume
        return volume if told == self.format else None

    @property
    def new(self) -> NewVolume | None:
        """The volume that will be made."""
        return None if self.medium is None else self.medium.new

    def put(self) -> None:
        """Give the new machine's disk its new content."""
        if self.action is Action.SHARE:
            return
        driver = {name: self.disk.get(f"driver/@{name}") for name in ("name", "type")}
        medium = self.medium
        self.disk.put("@type", "file" if medium is None else medium.type)
        self.disk.insert(medium)
        for name, value in driver.items():
            if value is not None:
                self.disk.put(f"driver/@{name}", value)


def make_own(guest: Guest) -> list[str]:
    """Take out of a machine's document what no other may have, and give it a UUID and addresses; returns warnings."""
    warnings: list[str] = []
    domain = guest.domain
    domain.put("@id", None)
    domain.put("title", None)
    domain.put("uuid", str(uuid.uuid4()))
    for part in guest.devices["graphics"]:
        if part.get("@port") not in (None, _AUTOMATIC):
            warnings.append("Setting the graphics device port to autoport, in order to avoid conflicting.")
            part.put("@autoport", None)
            part.put("@port", _AUTOMATIC)
    for part in guest.devices["interface"]:
        part.put("target/@dev", None)
        part.put("mac/@address", None)
        part.put("mac/@address", network.free_address(guest))
    for part in guest.devices["channel"]:
        name, path = part.get("target/@name"), part.get("source/@path")
        if part.get("@type") == "unix" and name and path and name in path:
            part.put("source/@path", None)
    return warnings


def free_name(guest: Guest, base: str) -> str:
    """The name of a copy that no machine has; a copy of a copy is counted on."""
    connection = guest.host.connection
    match = _CLONE.search(base)
    stem = (base[: match.start()] if match else base) + "-clone"
    number = int(match[1] or 0) + 1 if match else None
    return _first_free(stem, "", number, "", lambda name: _has_domain(connection.domain, name))


def _has_domain(find: Callable[[str], object], name: str) -> bool:
    try:
        find(name)
    except VirtError as error:
        if error.code is not ErrorCode.NO_DOMAIN:
            raise
        return False
    return True


def _first_free(stem: str, separator: str, number: int | None, suffix: str, is_taken: Callable[[str], bool]) -> str:
    name = f"{stem}{separator}{number}{suffix}" if number is not None else f"{stem}{suffix}"
    number = number or 0
    while is_taken(name):
        number += 1
        name = f"{stem}{separator}{number}{suffix}"
    return name


def free_path(storage: Storage, original: str, new: str, path: str) -> str:
    """A path for the copy of a disk, beside it: named as it is, or as the new machine where it is named as the old."""
    stem, dot, suffix = path.rpartition(".")
    if not dot or len(suffix) > _LONGEST_SUFFIX:
        stem, suffix = path, ""
    directory, name = os.path.split(stem)
    base = new if name == original else f"{name}-clone"
    ending = f".{suffix}" if suffix else ""
    return _first_free(os.path.join(directory, base), "-", None, ending, lambda path: storage.locate(path).exists)
