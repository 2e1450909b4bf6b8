"""Who uses a node, and what jobs put between a node and those who use it (QEMU's ``block.c``, ``BdrvChild``).

A job's filter comes between a node and all who use it then; who comes later uses the node itself, below the filter.
"""

from __future__ import annotations

import enum
import errno
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from hostel.block.permission import Permission
from hostel.errors import BlockError

_WRITE, _READ, _RESIZE = Permission.WRITE, Permission.CONSISTENT_READ, Permission.RESIZE
_UNNAMED = "an unnamed block device"
_PERMISSION_NAMES: Final = {
    Permission.CONSISTENT_READ: "consistent read",
    Permission.WRITE: "write",
    Permission.WRITE_UNCHANGED: "write unchanged",
    Permission.RESIZE: "resize",
}


class Use(NamedTuple):
    """What a user does with a node, and what it lets others do.

    Attributes:
        by: the user, as QEMU's messages call it: ``node 'q'``, ``an unnamed block device``.
        edge: what the node is to the user: ``file``, ``backing``, ``root``.
        is_filter: the user is a job's filter, which shows what the node has.
    """

    by: str
    edge: str
    used: Permission
    shared: Permission = Permission.ALL
    is_filter: bool = False

    @property
    def is_job(self) -> bool:
        """Whether the user is a job, which lets nothing be done to what it uses but reading and writing."""
        return " job '" in self.by


class Passing(enum.Enum):
    """Filters by what they use of the node below, of what is used of them; the values are what the child is to them."""

    MIRROR = "mirror_top backing"
    ACTIVE_COMMIT = "commit backing"
    COMMIT = "commit_top backing"
    STREAM = "copy-on-read file"
    BACKUP = "copy-before-write file"

    def below(self, used: Permission, shared: Permission) -> tuple[Permission, Permission]:
        """What a filter uses and shares, whose users together use and share this."""
        if self is Passing.COMMIT:
            return Permission.NONE, Permission.ALL
        shared |= Permission.WRITE_UNCHANGED
        if self is Passing.ACTIVE_COMMIT:
            # Nobody can read above the base consistently, and the job itself writes to the base.
            return used & ~_READ, shared | _WRITE
        if self is Passing.BACKUP:
            return used | (_READ if used & _WRITE else Permission.NONE), shared & ~(_WRITE | _RESIZE)
        return used, shared


class Layer:
    """A job's filter among the uses of a node.

    Args:
        name: the filter's.
        passing: what it passes on.
        own: what the job does with the filter.
        apart: nodes, by identity, that the filter itself stands on, and cannot come between: they use the node still.

    Attributes:
        above: the nodes, by identity and edge, that used the node when the filter came.
    """

    def __init__(self, name: str, passing: Passing, own: Sequence[Use] = (), apart: Iterable[int] = ()) -> None:
        self.name, self.own, self.apart = name, tuple(own), frozenset(apart)
        self.above: frozenset[tuple[int, str]] = frozenset()
        self._passing = passing

    def use(self, above: Sequence[Use]) -> Use:
        """What the filter does with the node, with these users above it."""
        used, shared = combined(above)
        edge = self._passing.value.partition(" ")[2]
        return Use(f"node '{self.name}'", edge, *self._passing.below(used, shared), is_filter=True)


# A node by its identity, and the edge by which it uses another one; how it does, the oldest first.
Parent = tuple[tuple[int, str], list[Use]]


class Level(NamedTuple):
    """The users of a node, or of a job's filter over it, the newest first.

    Attributes:
        name: the node's, or the filter's.
    """

    name: str
    uses: list[Use]


def combined(uses: Sequence[Use]) -> tuple[Permission, Permission]:
    """What all users together use, and what all of them share."""
    used, shared = Permission.NONE, Permission.ALL
    for use in uses:
        used |= use.used
        shared &= use.shared
    return used, shared


def levels(name: str, holds: Sequence[Use | Layer], parents: Sequence[Parent]) -> list[Level]:
    """Who uses a node and the filters over it, from the uppermost to the node itself.

    Args:
        name: the node's.
        holds: those who are no nodes, and jobs' filters, the oldest first.
        parents: nodes that use it; likewise.
    """
    found: list[Level] = []
    above: list[Use] = []
    rest = list(parents)
    for hold in holds:
        if isinstance(hold, Use):
            above.append(hold)
            continue
        covered = [use for key, uses in rest if key in hold.above for use in uses]
        rest = [(key, uses) for key, uses in rest if key not in hold.above]
        level = [*covered, *above, *hold.own]
        found.append(Level(hold.name, level[::-1]))
        above = [hold.use(level)]
    return [*found, Level(name, [*[use for _, uses in rest for use in uses], *above][::-1])]


def by_device(used: Permission, shared: Permission = Permission.ALL) -> Use:
    """The use of somebody who has no name."""
    return Use(_UNNAMED, "root", used, shared)


def conflict(node: str, one: Use, other: Use) -> BlockError:
    """What to say where one user of a node forbids what another one does; the text is QEMU's."""
    refused = other.used & ~one.shared
    names = ", ".join(name for permission, name in _PERMISSION_NAMES.items() if permission & refused)

    def user(use: Use) -> str:
        return f"{use.by} (uses node '{node}' as '{use.edge}' child)"

    return BlockError(
        f"Permission conflict on node '{node}': permissions '{names}' are both required by {user(other)} and "
        f"unshared by {user(one)}.",
        errno=errno.EPERM,
    )
