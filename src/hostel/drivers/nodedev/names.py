"""What numbers of vendors and products are called: ``pci.ids``, where the host has it."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

_PLACES: Final = ("usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids", "var/lib/pciutils/pci.ids")


class PciNames:
    """Names by number; the file is read when it is first asked, and only for those that are wanted.

    Args:
        root: where the host's files lie.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._vendors: dict[int, str] = {}
        self._products: dict[tuple[int, int], str] = {}

    def load(self, wanted: Iterable[tuple[int, int]]) -> None:
        """Read the names of these vendors and their products, as far as they are not known: all of them at once."""
        with self._lock:
            new = {vendor for vendor, _ in wanted if vendor not in self._vendors}
            if new:
                self._vendors.update(dict.fromkeys(new, ""))
                self._read(new)

    def _read(self, wanted: Collection[int]) -> None:
        for place in _PLACES:
            try:
                lines = (self._root / place).read_text(errors="replace").splitlines()
            except OSError:
                continue
            vendor = -1
            for line in lines:
                if line[:1] == "C":
                    break  # classes
                if line[:1] not in ("", "#", "\t"):
                    number, _, name = line.partition("  ")
                    vendor = int(number, 16) if len(number) == 4 else -1
                    if vendor in wanted:
                        self._vendors[vendor] = name
                elif vendor in wanted and line[:1] == "\t" and line[1:2] != "\t":
                    number, _, name = line[1:].partition("  ")
                    self._products[vendor, int(number, 16)] = name
            return

    def vendor(self, number: int) -> str | None:
        """The vendor's name."""
        return self._vendors.get(number) or None

    def product(self, vendor: int, number: int) -> str | None:
        """The product's name."""
        return self._products.get((vendor, number))
