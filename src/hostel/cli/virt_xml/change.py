"""A change of a machine's document: which parts it is about, and what happens to them."""

from __future__ import annotations

from argparse import Namespace

from hostel.cli.virt_install import defaults, registry, tree
from hostel.cli.virt_install.disk import Disk
from hostel.cli.virt_install.guest import Guest
from hostel.cli.virt_install.option import NoneMeans, Option
from hostel.cli.virt_install.part import Part
from hostel.cli.virt_install.storage import Storage
from hostel.cli.virt_install.suboption import CLEAR, Refusal
from hostel.cli.virt_xml.arguments import NO_EDIT
from hostel.errors import HostelError, UsageError


class Change:
    """One change of one machine.

    Attributes:
        guest: the machine, which is changed in place.
        parts: the devices that were changed, added or removed.
    """

    def __init__(self, guest: Guest, option: Option | None, options: Namespace, done: Change | None) -> None:
        self.guest = guest
        self.parts: list[Part] = []
        self._option = option
        self._options = options
        self._done = done

    @property
    def verb(self) -> str:
        """What happens to the parts: ``add``, ``remove`` or ``edit``."""
        if self._options.edit != NO_EDIT:
            return "edit"
        return "add" if self._options.add_device else "remove"

    def make(self, texts: list[str]) -> None:
        """Change the machine; ``texts`` are the values of the option.

        Raises:
            UsageError: it has no such part, or cannot be changed so.
        """
        if self._option is None:
            self.guest.domain.edits += [registry.read_xml(text) for text in texts if text]
        elif self.verb == "edit":
            self._edit(self._option, texts)
        elif not self._option.is_list(self.guest):
            raise UsageError(f"Cannot use --{self.verb}-device with --{self._option.name}")
        elif self.verb == "add":
            self._add(self._option, texts)
        else:
            self._remove(self._option, texts[-1])

    def build(self, storage: Storage) -> None:
        """Make the volumes of disks that are new.

        Raises:
            UsageError: one cannot be made.
        """
        for part in self.parts if self.verb == "add" else []:
            if isinstance(part, Disk) and part.new is not None:
                storage.build(part.new)

    def _edit(self, option: Option, texts: list[str]) -> None:
        where = self._options.edit
        if not option.kind:
            if where not in (None, "1", "all"):
                raise UsageError(f"'--edit {where}' doesn't make sense with --{option.name}, just use empty '--edit'")
            parts = [self.guest.domain]
        else:
            parts = self._select(option, "edit", where)
        for part in parts:
            for text in texts:
                _fill(self.guest, option, part, text)
            if option.is_list(self.guest) and not any(CLEAR in option.given(text) for text in texts):
                _remove_emptied(part)
        self.parts = parts if option.is_list(self.guest) else self._own(option.kind)

    def _own(self, kind: str) -> list[Part]:
        """The domain's element of a kind, as a part of its own."""
        node = tree.find(self.guest.domain.element(), [kind]) if kind else None
        return [] if node is None else [Part(kind, base=node)]

    def _add(self, option: Option, texts: list[str]) -> None:
        if self._done is not None:
            for part in self._done.parts:
                same = part.anew()
                self.guest.devices[option.kind].append(same)
                self.parts.append(same)
            return
        for text in texts:
            self.parts += _new(self.guest, option, text)

    def _remove(self, option: Option, where: str) -> None:
        parts = self._select(option, "remove-device", where)
        for console in [_console_of(self.guest, part) for part in parts]:
            if console is not None and not any(console is part for part in parts):
                parts.append(console)
        for part in parts:
            part.element()
            self.guest.remove(part)
        self.parts = parts

    def _select(self, option: Option, action: str, where: str | None) -> list[Part]:
        """The parts that are meant: by number, all, or by what they have."""
        guest = self.guest
        found = guest.devices[option.kind] if option.is_list(guest) else [guest.domain]
        digits = ("1" if where is None else where).removeprefix("-")
        if digits.isdigit():
            index = int("1" if where is None else where)
            if index == 0:
                raise UsageError(f"Invalid --edit option '{where}'")
            if not found:
                raise UsageError(f"No --{option.name} objects found in the XML")
            if abs(index) > len(found):
                are, objects = ("'s", "object") if len(found) == 1 else (" are", "objects")
                raise UsageError(
                    f"'--edit {index}' requested but there{are} only {len(found)} --{option.name} {objects} in the XML"
                )
            return [found[index - 1 if index > 0 else index]]
        if where == "all":
            return list(found)
        given = option.given(where or "")
        for old, new in option.table.renamed:
            if old in given:
                given[new] = given.pop(old)
        try:
            chosen = [part for part in found if option.table.describes(given, part, option.lookups)]
        except Refusal:
            raise
        except HostelError as error:
            raise UsageError(f"Error: --{option.name} {where}: {error}") from error
        if not chosen:
            raise UsageError(f"No matching objects found for --{action} {where}")
        return chosen


def _remove_emptied(part: Part) -> None:
    """Take out a device of which nothing is left."""
    element = part.element()
    if tree.is_empty(element) and element.getparent() is not None:  # which an edit may have emptied already
        tree.remove(element)


def _fill(guest: Guest, option: Option, part: Part, text: str) -> None:
    if not text or (text == "none" and option.none is not NoneMeans.VALUE):
        return
    try:
        option.change(guest, part, option.given(text))
    except Refusal:
        raise
    except HostelError as error:
        raise UsageError(f"Error: --{option.name} {text}: {error}") from error


def _new(guest: Guest, option: Option, text: str) -> list[Part]:
    """Add what was asked for, complete; returns it."""
    try:
        made = option.read(guest, text)
    except Refusal:
        raise
    except HostelError as error:
        raise UsageError(f"Error: --{option.name} {text}: {error}") from error
    for part in made:
        defaults.complete_part(guest, part)
    return made


def _console_of(guest: Guest, port: Part) -> Part | None:
    """The console that a serial port is shown as, too; None where it is not."""
    console = next(iter(guest.devices["console"]), None)
    if port.tag != "serial" or console is None or console.get("@type") != port.get("@type"):
        return None
    return console if console.get("target/@type") in (None, "serial") else None


def built(guest: Guest, option: Option | None, texts: list[str]) -> list[str]:
    """The elements that an option describes, as text.

    Raises:
        UsageError: it describes none, or cannot be had.
    """
    if option is None or not option.kind:
        raise UsageError(f"--build-xml not supported for --{'xml' if option is None else option.name}")
    if option.is_list(guest):
        parts = [part for text in texts for part in _new(guest, option, text)]
        return [tree.text_of(tree.indent(part.element(), 0)) for part in parts]
    for text in texts:
        _fill(guest, option, guest.domain, text)
    element = tree.find(guest.domain.element(), [option.kind])
    return [] if element is None else [tree.text_of(tree.indent(element, 0))]
