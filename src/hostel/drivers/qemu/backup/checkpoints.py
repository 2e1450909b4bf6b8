"""What is known of a domain's checkpoints: their documents on disk."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from typing import Final

from hostel.drivers.document import reading_file
from hostel.drivers.fault import fault
from hostel.drivers.qemu.block.chain import images
from hostel.drivers.qemu.machines import Machines
from hostel.drivers.store import Store
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.checkpoint import Checkpoint
from hostel.model.domain.devices.disk import Disk
from hostel.model.moment import MomentParent

_INTENT: Final = "new"


class Checkpoints:
    """The checkpoints of one domain; the caller holds the domain's lock."""

    def __init__(self, machines: Machines, name: str) -> None:
        directory = machines.definitions.directory / "checkpoint" / name
        self._documents = Store(directory)
        self._pending = Store(directory, suffix=".pending")
        self._images = Store(directory, suffix=".images")

    def get(self, name: str) -> Checkpoint:
        """A checkpoint's document.

        Raises:
            VirtError: ``NO_DOMAIN_CHECKPOINT``; or its file is broken, and named.
        """
        try:
            path = self._documents.path(name)
        except VirtError:
            text = None  # no file can have this name
        else:
            text = self._documents.read(name)
        if text is None:
            message = f"Domain checkpoint not found: no domain checkpoint with matching name '{name}'"
            raise VirtError(ErrorCode.NO_DOMAIN_CHECKPOINT, message, domain=ErrorDomain.QEMU)
        with reading_file(path, ErrorDomain.DOMAIN_CHECKPOINT):
            return Checkpoint.parse(text, "domain_checkpoint")

    def readable(self) -> dict[str, Checkpoint]:
        """Those whose files can be read, for who only looks; the oldest first."""
        found = {}
        for name in self._documents.names():
            with contextlib.suppress(VirtError):
                found[name] = self.get(name)
        return _by_age(found)

    def all(self) -> dict[str, Checkpoint]:
        """Every checkpoint, by name, the oldest first."""
        return _by_age({name: self.get(name) for name in self._documents.names()})

    def newest(self) -> str | None:
        """The checkpoint that none comes after; the last of them where several have no child."""
        found = self.all()
        parents = {item.parent.name for item in found.values() if item.parent is not None}
        leaves = [name for name in found if name not in parents]
        return leaves[-1] if leaves else None

    def check_name(self, name: str) -> None:
        """Refuse a name that is taken.

        Raises:
            VirtError: ``OPERATION_FAILED``.
        """
        if self._documents.has(name):
            what = f"domain moment {name} already exists"
            raise fault(ErrorCode.OPERATION_FAILED, what, ErrorDomain.DOMAIN)

    def put(self, checkpoint: Checkpoint) -> None:
        """Add or replace a document."""
        self._documents.write(checkpoint.name or "", checkpoint.format())

    def remove(self, name: str) -> None:
        """Drop a document; its children get its parent."""
        gone = self.get(name)
        for child in self.children(name):
            document = self.get(child)
            document.parent = MomentParent(name=gone.parent.name) if gone.parent is not None else None
            self.put(document)
        self._documents.remove(name)
        self._images.remove(name)

    def clear(self) -> None:
        """Drop every document."""
        for store in (self._documents, self._pending, self._images):
            for name in store.names():
                store.remove(name)
        self._documents.sweep()
        with contextlib.suppress(OSError):
            self._documents.directory.rmdir()

    def children(self, name: str) -> list[str]:
        """The checkpoints right after one."""
        return [child for child, it in self.all().items() if it.parent is not None and it.parent.name == name]

    def descendants(self, name: str) -> Iterator[str]:
        """Those after one, and after these; parents first."""
        for child in self.children(name):
            yield child
            yield from self.descendants(child)

    def remember_images(self, name: str, disks: Iterable[Disk]) -> None:
        """Write down which files the disks of a new checkpoint are made of, for :meth:`knows`."""
        found = {disk.target.dev: {image.path: _file_number(image.path) for image in images(disk)} for disk in disks}
        with contextlib.suppress(VirtError):  # what nobody knows is not looked at
            self._images.write(name, json.dumps(found))

    def knows(self, name: str, disk: Disk) -> bool:
        """Whether a checkpoint can say what has changed of a disk: not where an image of the chain was replaced since.

        Where all are other files the disk was brought somewhere else; and nobody notices what is written into a file.
        """
        try:
            known = json.loads(self._images.read(name) or "{}").get(disk.target.dev, {})
            same = [known[image.path] == _file_number(image.path) for image in images(disk) if image.path in known]
        except (ValueError, AttributeError):
            return True
        return all(same) or not any(same)

    def begin(self, checkpoint: Checkpoint) -> None:
        """Write down what is about to be there."""
        self._pending.write(_INTENT, checkpoint.format())

    def pending(self) -> Checkpoint | None:
        """What was begun, and is not known to be there."""
        text = self._pending.read(_INTENT)
        if text is None:
            return None
        with reading_file(self._pending.path(_INTENT), ErrorDomain.DOMAIN_CHECKPOINT):
            return Checkpoint.parse(text, "domain_checkpoint")

    def over(self, *, keep: bool) -> None:
        """What was begun is there, or is not."""
        pending = self.pending()
        if pending is not None and keep:
            self.put(pending)
        self._pending.remove(_INTENT)


def _file_number(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0  # it is on a server


def _by_age(found: dict[str, Checkpoint]) -> dict[str, Checkpoint]:
    return dict(sorted(found.items(), key=lambda item: (item[1].creation_time or 0, item[0])))
