"""sysfs: the host's devices, their attributes, and what udev has written down about them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

# Where devices of the kinds that libvirt knows are listed; the last part of a class's name is its subsystem.
_BUSES: Final = ("pci", "usb", "scsi", "mdev", "vdpa")
_CLASSES: Final = ("net", "block", "scsi_generic", "drm")
_LONGEST: Final = 64 << 10  # bytes of an attribute


class Sysfs:
    """A tree of devices.

    Args:
        root: what ``/`` is: ``sys``, ``run/udev`` and ``usr/share`` lie below.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def devices(self) -> Iterator[SysDevice]:
        """Every device of a kind that may be known, in the order of their paths; what goes meanwhile is left out."""
        found: dict[str, str] = {}
        for subsystem, folder in (
            *((name, f"sys/bus/{name}/devices") for name in _BUSES),
            *((name, f"sys/class/{name}") for name in _CLASSES),
        ):
            try:
                entries = os.listdir(self.root / folder)
            except OSError:
                continue
            for entry in entries:
                path = os.path.realpath(self.root / folder / entry)
                if os.path.isdir(path):
                    found[path] = subsystem
        for path, subsystem in sorted(found.items()):
            yield SysDevice(self, Path(path), subsystem)

    def interfaces(self) -> list[SysDevice]:
        """The network interfaces, by name."""
        try:
            names = sorted(os.listdir(self.root / "sys/class/net"))
        except OSError:
            return []
        return [device for device in map(self.interface, names) if device is not None]

    def interface(self, name: str) -> SysDevice | None:
        """A network interface; None where there is none of the name."""
        if "/" in name or name in ("", ".", ".."):
            return None
        path = os.path.realpath(self.root / "sys/class/net" / name)
        # Beside interfaces there is a file that makes bonds.
        return SysDevice(self, Path(path), "net") if os.path.isdir(path) else None

    def shown(self, path: Path) -> str:
        """A path as it is on the host."""
        return f"/{path.relative_to(os.path.realpath(self.root))}"


class SysDevice:
    """A device.

    Attributes:
        path: its directory.
        subsystem: such as ``pci``.
        name: the directory's name.
    """

    def __init__(self, tree: Sysfs, path: Path, subsystem: str) -> None:
        self.tree = tree
        self.path = path
        self.subsystem = subsystem
        self.name = path.name.replace("!", "/")
        self._event = _pairs(self.attribute("uevent") or "")
        self._udev: dict[str, str] | None = None
        self.links: list[str] = []

    def attribute(self, name: str) -> str | None:
        """The text of a file in the device's directory; None where there is none, or nothing in it."""
        try:
            with (self.path / name).open("rb") as stream:
                text = stream.read(_LONGEST).decode(errors="replace")
        except OSError:
            return None
        return text.rstrip("\n") or None

    def number(self, name: str, base: int = 10) -> int | None:
        """An attribute that is a number."""
        try:
            return int(self.attribute(name) or "", base)
        except ValueError:
            return None

    def link(self, name: str) -> Path | None:
        """Where a link in the device's directory leads."""
        path = self.path / name
        return Path(os.path.realpath(path)) if path.is_symlink() else None

    def fact(self, name: str) -> str | None:
        """What the kernel, or else udev's rules, say of the device."""
        found = self._event.get(name)
        return self.udev.get(name) if found is None else found

    @property
    def udev(self) -> dict[str, str]:
        """What udev's rules have found out; reading it fills :attr:`links`."""
        if self._udev is None:
            self._udev = {}
            for line in self._database():
                kind, _, rest = line.partition(":")
                if kind == "E":
                    key, _, value = rest.partition("=")
                    self._udev[key] = value
                elif kind == "S":
                    self.links.append(f"/dev/{rest}")
        return self._udev

    def _database(self) -> list[str]:
        major, minor = self._event.get("MAJOR"), self._event.get("MINOR")
        if major is not None:
            key = f"{'b' if self.subsystem == 'block' else 'c'}{major}:{minor}"
        elif "IFINDEX" in self._event:
            key = f"n{self._event['IFINDEX']}"
        else:
            key = f"+{self.subsystem}:{self.path.name}"
        try:
            return (self.tree.root / "run/udev/data" / key).read_text(errors="replace").splitlines()
        except OSError:
            return []

    @property
    def node(self) -> str | None:
        """The path of the device's file."""
        name = self._event.get("DEVNAME")
        return None if name is None else f"/dev/{name}"


def _pairs(text: str) -> dict[str, str]:
    return {key: value for key, mark, value in (line.partition("=") for line in text.splitlines()) if mark}
