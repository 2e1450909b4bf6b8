"""An option that describes a part of the machine: the table of its own options, and how they fill that part.

virt-install makes parts of them, virt-xml finds and changes parts that exist.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import NamedTuple

from hostel.cli.virt_install.guest import Guest
from hostel.cli.virt_install.part import Part
from hostel.cli.virt_install.suboption import CLEAR, Given, Lookup, SubOptions, on_off
from hostel.errors import UsageError


class NoneMeans(enum.Enum):
    """What ``none`` means in place of everything else."""

    NOTHING = enum.auto()
    DECLINES = enum.auto()  # virt-install adds none by default
    VALUE = enum.auto()  # what any other word would


Fill = Callable[[Guest, Part, Given], None]
Several = Callable[[Guest, Given], "list[Part] | None"]


class Option(NamedTuple):
    """One option.

    Attributes:
        table: the options that it has in turn. Its ``owner`` is the kind of part they describe, of which a machine
            may have several (a device, ``seclabel``), or the domain's own element; empty for several of those.
        fill: puts what was typed into a part.
        none: what ``none`` means.
        several: makes the parts where a word stands for more than one; None where the word does not.
        lookups: how a part is found by those options that are not simply a value in it, by the row's name.
    """

    table: SubOptions
    fill: Fill
    none: NoneMeans = NoneMeans.NOTHING
    several: Several | None = None
    lookups: Mapping[str, Lookup] = {}

    @property
    def name(self) -> str:
        """The name without its dashes."""
        return self.table.flag.removeprefix("--")

    @property
    def kind(self) -> str:
        """The kind of part that it describes."""
        return self.table.owner

    def given(self, text: str) -> Given:
        """Split what was typed."""
        return self.table.read(text)

    def is_list(self, guest: Guest) -> bool:
        """Whether a machine may have several of these."""
        return self.kind in guest.devices

    def read(self, guest: Guest, text: str) -> list[Part]:
        """Add to a guest what was asked for; returns the parts that are new.

        Raises:
            HostelError: it cannot be had.
        """
        if not text:
            return []
        if text == "none" and self.none is not NoneMeans.VALUE:
            if self.none is NoneMeans.DECLINES:
                guest.without.add(self.kind)
            return []
        given = self.given(text)
        made = self.several(guest, given) if self.several else None
        if made is None:
            if not self.is_list(guest):
                self.change(guest, guest.domain, given)
                return []
            part = guest.new(self.kind)
            self.change(guest, part, given)
            made = [part]
        guest.devices[self.kind] += made
        return made

    def change(self, guest: Guest, part: Part, given: Given) -> None:
        """Fill a part, which ``clearxml`` empties first.

        Raises:
            HostelError: a value is missing or wrong.
        """
        if self.kind and self._clears(given):
            is_own = part.tag == "domain"
            part.empty(self.kind if is_own else "", keep=not is_own or len(given) > 1)
        self.fill(guest, part, given)

    def _clears(self, given: Given) -> bool:
        if CLEAR in given and given[CLEAR] is None:
            raise UsageError(f"Option '{CLEAR}' had no value set.")
        return bool(given.get(CLEAR)) and on_off(CLEAR, given[CLEAR] or "")


def plain(table: SubOptions) -> Fill:
    """The way to fill a part by the table alone."""

    def fill(guest: Guest, part: Part, given: Given) -> None:
        table.apply(given, part, owner=guest)

    return fill
