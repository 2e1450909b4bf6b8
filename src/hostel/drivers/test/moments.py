"""Moments of a domain that the test driver remembers: snapshots or checkpoints, each after another or after none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.moment import MomentParent


class Moment(Protocol):
    """A document of one."""

    name: str | None
    parent: MomentParent | None


Kind = TypeVar("Kind", bound=Moment)


class Moments(Generic[Kind]):
    """The moments of one domain.

    Attributes:
        documents: by name.
        current: the one that the next comes after.
    """

    def __init__(self, word: str, missing: ErrorCode) -> None:
        self.documents: dict[str, Kind] = {}
        self.current: str | None = None
        self._word = word
        self._missing = missing

    def get(self, name: str) -> Kind:
        """A moment's document.

        Raises:
            VirtError: there is none of this name.
        """
        found = self.documents.get(name)
        if found is None:
            raise self.missing(f"no domain {self._word} with matching name '{name}'")
        return found

    def missing(self, detail: str) -> VirtError:
        """The error that says that there is none."""
        return VirtError(self._missing, f"Domain {self._word} not found: {detail}", domain=ErrorDomain.TEST)

    def add(self, document: Kind) -> None:
        """Add one after the current one; it is the current one now.

        Raises:
            VirtError: there is one of this name.
        """
        name = document.name or ""
        if name in self.documents:
            raise fault(ErrorCode.OPERATION_FAILED, f"domain moment {name} already exists", ErrorDomain.DOMAIN)
        document.parent = MomentParent(name=self.current) if self.current is not None else None
        self.documents[name] = document
        self.current = name

    def redefine(self, document: Kind, *, current: bool) -> None:
        """Add or replace one whose document says what it comes after."""
        name = document.name or ""
        self.documents[name] = document
        if current:
            self.current = name

    def is_consistent(self) -> bool:
        """Whether each comes after one that there is, or none, and none after itself."""
        roots = self.names(roots=True)
        reached = len(roots) + sum(len(list(self.descendants(root))) for root in roots)
        return reached == len(self.documents)

    def parent_of(self, name: str) -> str:
        """The name of the one before.

        Raises:
            VirtError: there is none.
        """
        parent = self.get(name).parent
        if parent is None:
            raise self.missing(f"{self._word} '{name}' does not have a parent")
        return parent.name

    def names(self, *, roots: bool = False) -> list[str]:
        """The names of all, or of those that come after none."""
        return sorted(name for name, found in self.documents.items() if not roots or found.parent is None)

    def children(self, name: str) -> list[str]:
        """The names of those right after one."""
        return sorted(
            child for child, found in self.documents.items() if found.parent is not None and found.parent.name == name
        )

    def descendants(self, name: str) -> Iterator[str]:
        """Those after one, and after these; parents first."""
        for child in self.children(name):
            yield child
            yield from self.descendants(child)

    def delete(self, name: str, *, children: bool, children_only: bool) -> None:
        """Forget one; what comes after it too, or alone, or comes after what it came after."""
        gone = self.get(name)
        if children or children_only:
            dropped = list(self.descendants(name))
            for each in dropped:
                del self.documents[each]
            if self.current in dropped:
                self.current = name
        else:
            for child in self.children(name):
                self.documents[child].parent = gone.parent
        if children_only:
            return
        if self.current == name:
            self.current = gone.parent.name if gone.parent is not None else None
        del self.documents[name]
