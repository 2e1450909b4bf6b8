"""The host's filters on disk, and among them the standard ones that nobody has changed or undefined.

``<config>/nwfilter/<name>.xml`` is a filter, and ``<config>/nwfilter/undefined/<name>`` says that a standard one is not
wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping

from hostel.drivers.document import reading_file
from hostel.drivers.nwfilter.standard import standard_filters
from hostel.drivers.store import Directories, Store, is_usable_name
from hostel.errors import ErrorDomain
from hostel.model.nwfilter.filter import Filter, read_filter


class StoredFilters(MutableMapping[str, Filter]):
    """Filters by name; who changes them holds a lock."""

    def __init__(self, directories: Directories) -> None:
        self._definitions = Store(directories.config / "nwfilter")
        self._undefined = Store(directories.config / "nwfilter" / "undefined", suffix="")

    def __getitem__(self, name: str) -> Filter:
        """A filter.

        Raises:
            KeyError: there is none of this name.
            VirtError: its file is none of a filter.
        """
        if not is_usable_name(name):
            raise KeyError(name)
        text = self._definitions.read(name)
        if text is not None:
            with reading_file(self._definitions.path(name), ErrorDomain.NWFILTER):
                return read_filter(text)
        if name in standard_filters() and name not in self._undefined.names():
            return standard_filters()[name]
        raise KeyError(name)

    def __setitem__(self, name: str, filter: Filter) -> None:
        """Have a filter, or have it otherwise."""
        self._definitions.write(name, filter.format())

    def __delitem__(self, name: str) -> None:
        """Have a filter no more."""
        if name in standard_filters():
            self._undefined.write(name, "")
        self._definitions.remove(name)

    def __iter__(self) -> Iterator[str]:
        """The names, sorted."""
        undefined = set(self._undefined.names())
        yield from sorted({*self._definitions.names(), *(name for name in standard_filters() if name not in undefined)})

    def __len__(self) -> int:
        """How many there are."""
        return sum(1 for _ in self)
