"""What is known of a domain's snapshots: their documents on disk, which is current, what is being done to them.

A snapshot that is being made has its document under another name until all of it is there; see :class:`Intent`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple, TypeVar, cast

from hostel.drivers.document import reading_file
from hostel.drivers.fault import fault
from hostel.drivers.qemu.machines import Machines
from hostel.drivers.store import Store
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.domain import Domain
from hostel.model.moment import MomentParent
from hostel.model.snapshot import Snapshot

Kind = TypeVar("Kind", bound=Domain)
_CURRENT: Final = "current"
_INTENT: Final = "intent"
_OWN: Final = "own"  # overlays and copies that were made here
_LENGTHS: Final = "lengths"  # of the images that external snapshots leave as they are
_LEFT: Final = "left"  # snapshots inside images that are given up, and could not be dropped yet


class Intent(NamedTuple):
    """What was begun, for whoever finds it after a crash.

    Attributes:
        kind: ``create``, ``revert``, ``apply``, ``drop`` or ``sweep``.
        snapshot: the snapshot's name.
        files: those that were not there before.
        merges: disk, overlay, and what that is merged into.
        frozen: whether the guest's file systems are stopped meanwhile.
    """

    kind: str
    snapshot: str
    files: tuple[str, ...] = ()
    merges: tuple[tuple[str, str, str], ...] = ()
    frozen: bool = False


class Catalog:
    """The snapshots of one domain; the caller holds the domain's lock."""

    def __init__(self, machines: Machines, name: str) -> None:
        directory = machines.definitions.directory / "snapshot" / name
        self._documents = Store(directory)
        self._pending = Store(directory, suffix=".pending")
        self._marks = Store(directory, suffix=".mark")

    def names(self) -> list[str]:
        """Every snapshot's name, sorted."""
        return self._documents.names()

    def get(self, name: str) -> Snapshot:
        """A snapshot's document.

        Raises:
            VirtError: ``NO_DOMAIN_SNAPSHOT``; or its file is broken, and named.
        """
        text = None
        if self._is_usable(name):
            text = self._documents.read(name)
        if text is None:
            message = f"Domain snapshot not found: no domain snapshot with matching name '{name}'"
            raise VirtError(ErrorCode.NO_DOMAIN_SNAPSHOT, message, domain=ErrorDomain.QEMU)
        with reading_file(self._documents.path(name), ErrorDomain.DOMAIN_SNAPSHOT):
            return Snapshot.parse(text, "domain_snapshot")

    def _is_usable(self, name: str) -> bool:
        try:
            self._documents.path(name)
        except VirtError:
            return False
        return True

    def check_name(self, name: str) -> None:
        """Refuse a name that is taken, or cannot be one.

        Raises:
            VirtError: ``OPERATION_FAILED`` or ``XML_ERROR``.
        """
        if self._documents.has(name):
            raise fault(ErrorCode.OPERATION_FAILED, f"domain moment {name} already exists", ErrorDomain.DOMAIN)

    def all(self) -> dict[str, Snapshot]:
        """Every snapshot, by name: what images they need is known of all or of none.

        Raises:
            VirtError: the file of one is broken, and named.
        """
        return {name: self.get(name) for name in self.names()}

    def readable(self) -> dict[str, Snapshot]:
        """Those whose files can be read, for who only looks."""
        found = {}
        for name in self.names():
            with contextlib.suppress(VirtError):
                found[name] = self.get(name)
        return found

    def put(self, snapshot: Snapshot) -> None:
        """Add or replace a document."""
        self._documents.write(snapshot.name or "", snapshot.format())

    def remove(self, name: str) -> None:
        """Drop a document: its children get its parent, and so does the mark of the current one."""
        gone = self.get(name)
        parent = gone.parent.name if gone.parent is not None else None
        for child in self.children(name):
            document = self.get(child)
            document.parent = MomentParent(name=parent) if parent is not None else None
            self.put(document)
        if self.current() == name:
            self.set_current(parent)
        if self.lengths(name):
            self.set_lengths(name, [])
        self._documents.remove(name)

    def clear(self) -> None:
        """Drop every document."""
        for store in (self._documents, self._pending, self._marks):
            for name in store.names():
                store.remove(name)
        self._documents.sweep()
        with contextlib.suppress(OSError):
            self._documents.directory.rmdir()

    def current(self) -> str | None:
        """The name of the snapshot that the domain goes on from."""
        name = self._marks.read(_CURRENT)
        return name if name and self._is_usable(name) and self._documents.has(name) else None

    def set_current(self, name: str | None) -> None:
        """Say which one it goes on from."""
        if name is None:
            self._marks.remove(_CURRENT)
        else:
            self._marks.write(_CURRENT, name)

    def children(self, name: str) -> list[str]:
        """The names of the snapshots that were made after this one, with none between."""
        return [child for child, found in self.all().items() if found.parent is not None and found.parent.name == name]

    def descendants(self, name: str) -> Iterator[str]:
        """Children and theirs, parents first."""
        for child in self.children(name):
            yield child
            yield from self.descendants(child)

    def begin(self, intent: Intent, snapshot: Snapshot | None = None) -> None:
        """Write down what is about to be done."""
        self._drop_pending()  # of one who died before the intent was written
        if snapshot is not None:
            self._pending.write(intent.snapshot, snapshot.format())
        try:
            self._marks.write(_INTENT, json.dumps(intent._asdict()))
        except BaseException:
            self._drop_pending()
            raise

    def _drop_pending(self) -> None:
        for name in self._pending.names():
            self._pending.remove(name)

    def intent(self) -> Intent | None:
        """What was begun and is not over."""
        text = self._marks.read(_INTENT)
        if not text:
            return None
        try:
            fields = json.loads(text)
            merges = tuple((str(dev), str(overlay), str(base)) for dev, overlay, base in fields["merges"])
            return Intent(
                str(fields["kind"]),
                str(fields["snapshot"]),
                tuple(map(str, fields["files"])),
                merges,
                bool(fields["frozen"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise self._broken(_INTENT) from error

    def own(self) -> frozenset[str]:
        """The images that were made here for snapshots, and may be removed when nothing is made of them any more."""
        return frozenset(self._list(_OWN))

    def set_own(self, paths: Iterable[str]) -> None:
        """Say which images were made here."""
        self._marks.write(_OWN, json.dumps(sorted(paths)))

    def lengths(self, name: str) -> list[tuple[str, str, int]]:
        """Of a snapshot the disks, where these were, and how many bytes there were; empty where nobody knows."""
        return [(disk, path, length) for known, disk, path, length in self._list(_LENGTHS) if known == name]

    def set_lengths(self, name: str, found: Iterable[tuple[str, str, int]]) -> None:
        """Say that of a snapshot."""
        others = [known for known in self._list(_LENGTHS) if known[0] != name]
        self._marks.write(_LENGTHS, json.dumps([*others, *((name, *known) for known in found)]))

    def left(self) -> list[tuple[str, str, str]]:
        """Path and format of images, and the name of a snapshot inside each that is given up."""
        return [(path, fmt, name) for path, fmt, name in self._list(_LEFT)]

    def set_left(self, found: Iterable[tuple[str, str, str]]) -> None:
        """Say what is still to be dropped."""
        self._marks.write(_LEFT, json.dumps(list(found)))

    def _list(self, mark: str) -> list[Any]:
        try:
            found = json.loads(self._marks.read(mark) or "[]")
        except json.JSONDecodeError as error:
            raise self._broken(mark) from error
        return found if isinstance(found, list) else []

    def _broken(self, mark: str) -> VirtError:
        message = f"internal error: '{self._marks.path(mark)}' is broken; remove it"
        return VirtError(ErrorCode.INTERNAL_ERROR, message)

    def pending(self, name: str) -> Snapshot | None:
        """The document of a snapshot that is being made."""
        text = self._pending.read(name)
        if text is None:
            return None
        with reading_file(self._pending.path(name), ErrorDomain.DOMAIN_SNAPSHOT):
            return Snapshot.parse(text, "domain_snapshot")

    def keep(self, name: str, *, metadata: bool = True) -> None:
        """A snapshot that was being made is there: its document counts from now on."""
        snapshot = self.pending(name)
        if snapshot is not None and metadata:
            self.put(snapshot)
            self.set_current(name)
        self.over(name)

    def over(self, name: str) -> None:
        """Nothing is being done any more."""
        self._marks.remove(_INTENT)
        self._pending.remove(name)


def as_kind(kind: type[Kind], document: Domain) -> Kind:
    """A domain's document as another element that says the same."""
    make: Any = kind
    fields = {field.name: getattr(document, field.name) for field in document.FIELDS}
    return cast("Kind", make(**fields, unknown=document.unknown)).copy()


def uses(document: Domain | None, path: str) -> bool:
    """Whether a document has a disk on a file."""
    if document is None:
        return False
    return any(disk.source is not None and disk.source.file == path for disk in document.devices.disks)
