"""Shares of caches and of memory bandwidth for threads (resctrl(5), ``filesystems/resctrl.rst``; ``virresctrl.c``).

A group is a directory, in which a file says which parts of which caches are its own, in bits, and how much bandwidth it
has, in per cent; another one which threads are in it. Parts of caches that no group has are what the next one gets.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from hostel.drivers.fault import fault, system_fault
from hostel.drivers.store import lock_within
from hostel.drivers.topology import RESCTRL, SYSTEM, host_cache
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.units import scale_libvirt

_SCOPES: Final = {"": "both", "CODE": "code", "DATA": "data"}
_WORDS: Final = {scope: word for word, scope in _SCOPES.items()}
_INFO: Final = re.compile(r"L(\d+)(|CODE|DATA)")
_LINE: Final = re.compile(r"\s*(?:L(\d+)(|CODE|DATA)|(MB)):(.*)")
_LOCK_SECONDS: Final = 60.0
_NODE: Final = re.compile(r"mon_L\w*?_(\d+)")


class Kind(NamedTuple):
    """A kind of caches: how far they are from the processor, and what is in them (both, code, data)."""

    level: int
    scope: str

    @property
    def order(self) -> tuple[int, int]:
        """Where it comes among others."""
        return self.level, list(_SCOPES.values()).index(self.scope)


class Schemata(NamedTuple):
    """What a group has.

    Attributes:
        masks: of each kind of caches, by their numbers, which parts.
        bandwidths: of each node's memory, in per cent.
    """

    masks: dict[Kind, dict[int, int]]
    bandwidths: dict[int, int]

    @classmethod
    def parse(cls, text: str) -> Schemata:
        """Read a group's file; what is not understood is left out."""
        found = cls({}, {})
        for line in text.splitlines():
            known = _LINE.match(line)
            if known is None:
                continue
            level, word, is_memory, rest = known.groups()
            for pair in rest.split(";"):
                number, _, value = pair.strip().partition("=")
                with contextlib.suppress(ValueError):
                    if is_memory:
                        found.bandwidths[int(number)] = int(value)
                    else:
                        masks = found.masks.setdefault(Kind(int(level), _SCOPES[word]), {})
                        masks[int(number)] = int(value.replace(",", ""), 16)
        return found

    def format(self) -> str:
        """As the file."""
        lines = [
            f"L{kind.level}{_WORDS[kind.scope]}:" + ";".join(f"{number}={masks[number]:x}" for number in sorted(masks))
            for kind, masks in sorted(self.masks.items(), key=lambda item: item[0].order)
        ]
        if self.bandwidths:
            lines.append("MB:" + ";".join(f"{number}={most}" for number, most in sorted(self.bandwidths.items())))
        return "".join(f"{line}\n" for line in lines)


class Control(NamedTuple):
    """How caches of a kind can be shared out.

    Attributes:
        bits: into how many parts.
        least: how many of them a group has at least.
        size: of a cache, in bytes.
        caches: how many of them there are.
    """

    bits: int
    least: int
    size: int
    caches: int

    @property
    def granularity(self) -> int:
        """The size of a part, in bytes."""
        return self.size // self.bits


class Wanted(NamedTuple):
    """What a group is to have.

    Attributes:
        sizes: in bytes, of a cache of a kind by its number.
        bandwidths: in per cent, of nodes.
    """

    sizes: Mapping[tuple[Kind, int], int]
    bandwidths: Mapping[int, int]


class Resctrl:
    """The host's groups.

    Args:
        root: where they are.
        system: where the kernel shows the host's devices.
    """

    def __init__(self, root: Path = RESCTRL, system: Path = SYSTEM) -> None:
        self.root = root
        banks = host_cache(system, root).banks if (root / "info").is_dir() else []
        self._controls = self._read_controls([(bank.level, scale_libvirt(bank.size, bank.unit)) for bank in banks])
        last = max((bank.level for bank in banks), default=0)
        self._nodes = sum(bank.level == last for bank in banks)
        self._step, self._least = (_number(root / "info/MB" / name) for name in ("bandwidth_gran", "min_bandwidth"))
        self._monitors = (root / "info/L3_MON/num_rmids").exists()

    def _read_controls(self, banks: list[tuple[int, int]]) -> dict[Kind, Control]:
        found = {}
        for folder in (self.root / "info").glob("L*"):
            known = _INFO.fullmatch(folder.name)
            sizes = [size for level, size in banks if known is not None and level == int(known[1])]
            bits = (_number(folder / "cbm_mask", 16) or 0).bit_count()
            if known is None or not sizes or not bits or sizes[0] < bits:
                continue
            least = _number(folder / "min_cbm_bits") or 1
            found[Kind(int(known[1]), _SCOPES[known[2]])] = Control(bits, least, sizes[0], len(sizes))
        return found

    def check(self) -> None:
        """Refuse where the host has no such groups.

        Raises:
            VirtError: ``CONFIG_UNSUPPORTED``.
        """
        if not self._controls and self._step is None and not self._monitors:
            raise _unsupported("Resource control is not supported on this host")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others who ask for groups out, libvirt too.

        Raises:
            VirtError: ``SYSTEM_ERROR``: the host refuses; ``OPERATION_TIMEOUT``: they do not end.
        """
        try:
            file = os.open(self.root, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise system_fault(error, "Cannot open resctrl", ErrorDomain.RESCTRL) from error
        try:
            if not lock_within(file, _LOCK_SECONDS):
                reason = f"'{self.root}' has been locked by another process for {_LOCK_SECONDS:.0f} seconds"
                raise fault(ErrorCode.OPERATION_TIMEOUT, reason, ErrorDomain.RESCTRL)
            yield
        finally:
            os.close(file)

    def make(self, name: str, wanted: Wanted) -> None:
        """Make a group, of what nobody has yet.

        Raises:
            VirtError: ``CONFIG_UNSUPPORTED``: there is not so much; ``SYSTEM_ERROR``: the host refuses.
        """
        with self.locked():
            given = self.assign(wanted).format()
            folder = self.root / name
            make_folder(folder)
            try:
                (folder / "schemata").write_text(given)
            except OSError as error:
                remove(folder)
                doing = f"Cannot write into schemata file '{folder}/schemata'"
                raise system_fault(error, doing, ErrorDomain.RESCTRL) from error

    def assign(self, wanted: Wanted) -> Schemata:
        """What a group gets that wants this: the rest is as all have it.

        Raises:
            VirtError: ``CONFIG_UNSUPPORTED``: there is not so much.
        """
        free, default = self._unused(), self._schemata(self.root)
        self._check_bandwidths(wanted.bandwidths)
        found = Schemata(
            {kind: dict(masks) for kind, masks in default.masks.items()}, {**default.bandwidths, **wanted.bandwidths}
        )
        for (kind, number), size in sorted(wanted.sizes.items(), key=lambda item: (item[0][0].order, item[0][1])):
            found.masks.setdefault(kind, {})[number] = self._part(free, kind, number, size)
        return found

    def _schemata(self, folder: Path) -> Schemata:
        try:
            return Schemata.parse((folder / "schemata").read_text())
        except OSError as error:
            reason = "Could not read schemata file for the default group"
            raise system_fault(error, reason, ErrorDomain.RESCTRL) from error

    def _unused(self) -> dict[Kind, dict[int, int]]:
        """What of each cache no group has."""
        found = {
            kind: dict.fromkeys(range(control.caches), (1 << control.bits) - 1)
            for kind, control in self._controls.items()
        }
        folders = [folder for folder in self.root.iterdir() if folder.name != "info" and (folder / "schemata").exists()]
        for folder in (self.root, *folders):
            for kind, masks in self._schemata(folder).masks.items():
                for number, mask in masks.items():
                    if number in found.get(kind, {}):
                        found[kind][number] &= ~mask
        return found

    def _check_bandwidths(self, wanted: Mapping[int, int]) -> None:
        if wanted and (self._step is None or self._least is None):
            raise _unsupported("RDT Memory Bandwidth allocation unsupported")
        for number, most in sorted(wanted.items()):
            what = f"Memory Bandwidth allocation of size {most} is"
            if most % (self._step or 1):
                raise _unsupported(f"{what} not divisible by granularity {self._step}")
            if most < (self._least or 0):
                raise _unsupported(f"{what} smaller than the minimum allowed allocation {self._least}")
            if number >= self._nodes:
                reason = f"bandwidth controller id {number} does not exist, max controller id {max(self._nodes - 1, 0)}"
                raise _unsupported(reason)

    def _part(self, free: Mapping[Kind, Mapping[int, int]], kind: Kind, number: int, size: int) -> int:
        """The smallest part of what is free of a cache that is large enough."""
        control = self._controls.get(kind)
        if all(other.level != kind.level for other in free):
            raise _unsupported(f"Cache level {kind.level} does not support tuning")
        if control is None:
            raise _unsupported(f"Cache level {kind.level} does not support tuning for scope type '{kind.scope}'")
        if number not in free[kind]:
            raise _unsupported(f"Cache with id {number} does not exists for level {kind.level}")
        step, what = control.granularity, f"Cache allocation of size {size} is"
        if size == control.size:
            reason = "Cache allocation for the whole cache is not possible, specify size smaller than"
            raise _unsupported(f"{reason} {size}")
        if size % step:
            raise _unsupported(f"{what} not divisible by granularity {step}")
        bits = size // step
        if bits < control.least:
            raise _unsupported(f"{what} smaller than the minimum allowed allocation {step * control.least}")
        fitting = [(length, start) for start, length in _runs(free[kind][number]) if length >= bits]
        if not fitting:
            where = f"level {kind.level} cache {number} scope type '{kind.scope}'"
            raise _unsupported(f"Not enough room for allocation of {size} bytes for {where}")
        return ((1 << bits) - 1) << min(fitting)[1]


def make_folder(path: Path) -> None:
    """Make a group's directory, where there is none.

    Raises:
        VirtError: ``SYSTEM_ERROR``: the host refuses.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise system_fault(error, f"Cannot create resctrl directory '{path}'", ErrorDomain.RESCTRL) from error


def enter(path: Path, thread: int) -> None:
    """Put a thread into a group.

    Raises:
        VirtError: ``SYSTEM_ERROR``: the host refuses.
    """
    try:
        (path / "tasks").write_text(f"{thread}")
    except OSError as error:
        raise system_fault(error, f"Cannot write pid in tasks file '{path}/tasks'", ErrorDomain.RESCTRL) from error


def remove(path: Path) -> None:
    """Remove a group; who is in it is in the one above then. One that stays is left."""
    with contextlib.suppress(OSError):
        path.rmdir()


def usage(path: Path, features: Collection[str]) -> list[tuple[int, dict[str, int]]]:
    """What a group is measured to use: the number of each cache, and the values by their names.

    Raises:
        VirtError: ``INTERNAL_ERROR``, ``SYSTEM_ERROR``: the host does not say.
    """
    folder, found = path / "mon_data", []
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise system_fault(error, f"cannot open directory '{folder}'", ErrorDomain.RESCTRL) from error
    for name in names:
        known = _NODE.fullmatch(name)
        if known is None:
            continue
        values = {}
        for feature in features:
            value = _number(folder / name / feature)
            if value is None:
                reason = f"File '{folder}/{name}/{feature}' does not exist."
                raise fault(ErrorCode.INTERNAL_ERROR, reason, ErrorDomain.RESCTRL)
            values[feature] = value
        found.append((int(known[1]), values))
    return sorted(found, key=lambda item: item[0])


def _runs(mask: int) -> Iterator[tuple[int, int]]:
    """Where bits that follow one another begin, and how many they are."""
    for run in re.finditer("1+", f"{mask:b}"[::-1]):
        yield run.start(), len(run[0])


def _number(path: Path, base: int = 10) -> int | None:
    try:
        return int(path.read_text().strip().replace(",", ""), base)
    except (OSError, ValueError):
        return None


def _unsupported(reason: str) -> VirtError:
    return fault(ErrorCode.CONFIG_UNSUPPORTED, reason, ErrorDomain.RESCTRL)
