"""What stands on what: the images behind the domain as it is, and behind what each of its snapshots keeps.

An overlay shows what is below it, and so does a snapshot inside an overlay. Who writes into an image, merges it or
removes it asks here first whose state that would change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from hostel.drivers.qemu.block.chain import images
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.source import SourceType
from hostel.model.domain.domain import Domain
from hostel.model.snapshot import Snapshot


class State(NamedTuple):
    """One disk of one state.

    Attributes:
        snapshot: whose; empty for the domain as it is.
        disk: the disk's target.
        kind: ``external`` where the first image is the state, ``internal`` where it is a snapshot inside that image.
        chain: the paths of its images, top first.
        is_whole: whether all of them are known.
    """

    snapshot: str
    disk: str
    kind: str
    chain: tuple[str, ...]
    is_whole: bool = True

    def needs(self, path: str) -> bool:
        """Whether this state shows what an image holds now."""
        return path in self.chain[1:] or (self.kind != "internal" and self.chain[:1] == (path,))


class Standing:
    """The states of a domain; the caller holds its lock.

    Args:
        documents: the domain as it is: its definition, the document that it runs from.
        snapshots: its snapshots, by name.
        prepare: puts files in place of volumes in a disk, and writes down what it stands on.

    Raises:
        VirtError: an image of a snapshot is a volume of a pool that is not active.
    """

    def __init__(
        self, documents: Iterable[Domain], snapshots: Mapping[str, Snapshot], prepare: Callable[[Disk], None]
    ) -> None:
        self._prepare = prepare
        self._known: dict[str, tuple[tuple[str, ...], bool]] = {}
        self.now = [self._state("", disk, "external") for document in documents for disk in document.devices.disks]
        self.kept = [state for name, snapshot in snapshots.items() for state in self._of_snapshot(name, snapshot)]

    def _of_snapshot(self, name: str, snapshot: Snapshot) -> list[State]:
        if not isinstance(snapshot.domain, Domain):
            return []
        kinds = {wanted.name: wanted.snapshot for wanted in snapshot.disks.disks}
        disks = [
            disk for disk in snapshot.domain.devices.disks if kinds.get(disk.target.dev) in ("internal", "external")
        ]
        return [self._state(name, disk, kinds[disk.target.dev] or "") for disk in disks]

    def _state(self, snapshot: str, disk: Disk, kind: str) -> State:
        key = disk.format()
        if key not in self._known:
            found, is_whole = disk.copy(), True
            try:
                self._prepare(found)
            except VirtError as error:  # an image is not there any more, or its pool is not
                if snapshot and found.type == SourceType.VOLUME and error.code is not ErrorCode.NO_STORAGE_VOL:
                    raise  # which image it is cannot be told while its pool is not active
                is_whole = False
            self._known[key] = tuple(item.path for item in images(found)), is_whole
        return State(snapshot, disk.target.dev, kind, *self._known[key])

    def reached(self) -> frozenset[str] | None:
        """Every image that any state is made of; None where that cannot be told."""
        states = [*self.now, *self.kept]
        if not all(state.is_whole for state in states):
            return None
        return frozenset(path for state in states for path in state.chain)

    def who_needs(self, path: str, but: str) -> list[str]:
        """The snapshots, other than ``but``, that a change of what an image holds now would change."""
        return sorted({state.snapshot for state in self.kept if state.snapshot != but and state.needs(path)})

    def who_holds_back(self, overlay: str, base: str, but: str) -> list[str]:
        """The snapshots, other than ``but``, that merging an overlay of the domain's into its base would change."""
        active = {path for state in self.now for path in state.chain}
        found = set()
        for state in self.kept:
            top = state.chain[0] if state.chain else ""
            is_apart = base in state.chain[1:] and top not in active
            holds = is_apart or top == (overlay if state.kind == "internal" else base)
            if holds and state.snapshot != but:
                found.add(state.snapshot)
        return sorted(found)

    def who_loses(self, merged: Sequence[str], base: str, *, removed: bool) -> list[tuple[str, str]]:
        """The snapshots, and of each the disk, whose state ends when images are merged into one below.

        Args:
            merged: the paths of the images, top first.
            base: what they are merged into.
            removed: whether they are removed then.
        """
        found = []
        for state in self.kept:
            is_changed = state.needs(base) and merged[0] not in state.chain
            if is_changed or (removed and not set(merged).isdisjoint(state.chain)):
                found.append((state.snapshot, state.disk))
        return found
