"""Who may use a server: QEMU's ``authz-simple``, ``authz-list`` and ``authz-list-file``.

An identity is the distinguished name of a client's certificate.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol


class Authorization(Protocol):
    """Decides by identity."""

    def allows(self, identity: str) -> bool:
        """Whether this client may go on."""


class SimpleAuthorization(NamedTuple):
    """One identity and no other."""

    identity: str

    def allows(self, identity: str) -> bool:
        """See :class:`Authorization`."""
        return identity == self.identity


class Rule(NamedTuple):
    """What happens to the identities that match.

    Attributes:
        glob: ``match`` is a shell's pattern.
    """

    match: str
    allow: bool
    glob: bool = False

    def matches(self, identity: str) -> bool:
        """Whether the rule is about this identity."""
        return fnmatch.fnmatchcase(identity, self.match) if self.glob else identity == self.match


class ListAuthorization(NamedTuple):
    """Rules, of which the first that matches decides; ``default`` where none does."""

    rules: Sequence[Rule]
    default: bool = False

    def allows(self, identity: str) -> bool:
        """See :class:`Authorization`."""
        return next((rule.allow for rule in self.rules if rule.matches(identity)), self.default)


class FileAuthorization(NamedTuple):
    """Rules that are read again for each client, so that a file may change; what cannot be read allows nobody."""

    load: Callable[[], ListAuthorization]

    def allows(self, identity: str) -> bool:
        """See :class:`Authorization`."""
        try:
            return self.load().allows(identity)
        except (OSError, ValueError):
            return False
