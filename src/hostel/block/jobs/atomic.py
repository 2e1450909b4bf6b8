"""Several changes of bitmaps and starts of backups at one moment: all of them, or none."""

from __future__ import annotations

import abc
import errno
from collections.abc import Callable, Sequence

from hostel.block import notice
from hostel.block.bitmap import DirtyBitmap
from hostel.block.draining import drained
from hostel.block.jobs.bitmaps import RecordingBitmap, add_bitmap, find_bitmap, remove_bitmap
from hostel.block.jobs.job import Job
from hostel.block.node import BlockNode
from hostel.errors import BlockError


class Action(abc.ABC):
    """One of the changes.

    Attributes:
        node: where it takes place; None where it takes no place.
    """

    def __init__(self, node: BlockNode | None) -> None:
        self.node = node

    @abc.abstractmethod
    def prepare(self) -> None:
        """Do it, as far as it can be undone.

        Raises:
            OSError: it cannot be done; nothing has changed.
        """

    @abc.abstractmethod
    def undo(self) -> None:
        """Take it back."""

    def commit(self) -> None:
        """Do the rest, now that all others are prepared."""


class Abort(Action):
    """Fails, so that nothing is done: for those who try whether it would be."""

    def __init__(self) -> None:
        super().__init__(None)

    def prepare(self) -> None:
        """Fail."""
        raise aborted()

    def undo(self) -> None:
        """Nothing was done."""


def aborted() -> BlockError:
    """The error of :class:`Abort`."""
    return BlockError("Transaction aborted using Abort action", errno=errno.ECANCELED)


class Deferred(Action):
    """An action that is made in its turn: it may be about what those before it have made.

    Args:
        node: see :class:`Action`.
        make: makes it.
    """

    def __init__(self, node: BlockNode | None, make: Callable[[], Action]) -> None:
        super().__init__(node)
        self._make = make
        self._action: Action | None = None

    def prepare(self) -> None:
        """Make it, and do its part."""
        action = self._make()
        action.prepare()
        self._action = action

    def undo(self) -> None:
        """Take it back."""
        assert self._action is not None
        self._action.undo()

    def commit(self) -> None:
        """Do the rest."""
        assert self._action is not None
        self._action.commit()


class StartJob(Action):
    """Starts a job; its moment is that of the other actions."""

    def __init__(self, node: BlockNode, make: Callable[[], Job]) -> None:
        super().__init__(node)
        self._make = make
        self._job: Job | None = None

    def prepare(self) -> None:
        """Attach it."""
        job = self._make()
        job.attach()
        self._job = job

    def undo(self) -> None:
        """Take it out again before its first step."""
        assert self._job is not None
        self._job.take_back()

    def commit(self) -> None:
        """Let it run."""
        assert self._job is not None
        self._job.begin()
        self._job.follow()


class AddBitmap(Action):
    """Adds a bitmap."""

    def __init__(
        self, node: BlockNode, name: str, granularity: int | None, *, persistent: bool, recording: bool
    ) -> None:
        super().__init__(node)
        self._place = node
        self._name, self._granularity = name, granularity
        self._persistent, self._recording = persistent, recording

    def prepare(self) -> None:
        """Add it."""
        add_bitmap(self._place, self._name, self._granularity, persistent=self._persistent, recording=self._recording)

    def undo(self) -> None:
        """Remove it."""
        remove_bitmap(self._place, self._name)


class _OnBitmap(Action):
    """Changes a bitmap that is there."""

    def __init__(self, node: BlockNode, name: str) -> None:
        super().__init__(node)
        self._place = node
        self._name = name

    def _find(self, *, to_change: bool = False) -> RecordingBitmap:
        bitmap = find_bitmap(self._place, self._name)
        bitmap.require_free(to_change=to_change)
        return bitmap


class RemoveBitmap(_OnBitmap):
    """Removes a bitmap.

    Args:
        find: the node that has it; asked again in the end, when another action may have put an overlay on its image.
        name: its name.
    """

    def __init__(self, find: Callable[[], BlockNode], name: str) -> None:
        super().__init__(find(), name)
        self._find_place = find

    def prepare(self) -> None:
        """See whether it can be, and let no other action have it."""
        self._bitmap = self._find(to_change=True)
        self._bitmap.hold(to_change=True)

    def undo(self) -> None:
        """Let others have it again."""
        self._bitmap.thaw()

    def commit(self) -> None:
        """Remove it."""
        self._bitmap.thaw()
        remove_bitmap(self._find_place(), self._name)


class ClearBitmap(_OnBitmap):
    """Clears a bitmap."""

    def prepare(self) -> None:
        """Clear it."""
        bitmap = self._find(to_change=True)
        self._before = bitmap.bits.copy()
        bitmap.clear()

    def undo(self) -> None:
        """Put back what was in it."""
        self._find().become(self._before)


class SetRecording(_OnBitmap):
    """Lets a bitmap record, or not."""

    def __init__(self, node: BlockNode, name: str, *, recording: bool) -> None:
        super().__init__(node, name)
        self._recording = recording

    def prepare(self) -> None:
        """Change it."""
        bitmap = self._find()
        self._before = bitmap.recording
        bitmap.set_recording(self._recording)

    def undo(self) -> None:
        """Change it back."""
        self._find().set_recording(self._before)


class MergeBitmaps(_OnBitmap):
    """Marks in a bitmap what is dirty in others.

    Args:
        node: where the bitmap is.
        name: its name.
        sources: nodes and names of the others.
    """

    def __init__(self, node: BlockNode, name: str, sources: Sequence[tuple[BlockNode, str]]) -> None:
        super().__init__(node, name)
        self._sources = sources

    def prepare(self) -> None:
        """Merge them, in the end and together: where one cannot be, it is as if none had been."""
        bitmap = find_bitmap(self._place, self._name)
        others: list[DirtyBitmap] = []
        for node, name in self._sources:
            source = find_bitmap(node, name)
            bitmap.require_free(to_change=True)
            bits = bitmap.bits
            source.require_free()
            others.append(source.bits)
            bits.require_size_of(others[-1])
        bitmap.require_free(to_change=True)
        self._before, merged = bitmap.bits.copy(), bitmap.bits.copy()
        for other in others:
            merged.merge(other)
        bitmap.become(merged)

    def undo(self) -> None:
        """Take out what came from them."""
        self._find().become(self._before)


def run(actions: Sequence[Action]) -> None:
    """Do all actions at a moment at which nobody writes to their nodes.

    Raises:
        OSError: one of them failed, and what others had done was taken back; or the rest of one did, which cannot be
            taken back, and the others are done.
    """
    nodes = tuple({id(action.node): action.node for action in actions if action.node is not None}.values())
    done: list[Action] = []
    with drained(*nodes):
        try:
            for action in actions:
                action.prepare()
                done.append(action)
        except BaseException:
            for action in reversed(done):
                _take_back(action)
            raise
    failure: OSError | None = None
    for action in actions:
        try:
            action.commit()
        except OSError as error:  # a job that was attached must go on all the same
            failure = failure or error
    if failure is not None:
        raise failure


def _take_back(action: Action) -> None:
    """Undo what was done; what fails of that is told, since the others must be taken back all the same."""
    try:
        action.undo()
    except OSError as error:
        notice.tell(f"What a transaction had done could not be taken back in full: {error}")
