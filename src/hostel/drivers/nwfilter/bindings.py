"""Which interfaces have which filters, and what is known of each, on disk.

Below ``<state>/nwfilter`` lies for each interface ``<name>.xml``, the binding; ``<name>.unsettled`` while its rules are
being changed; ``<name>.learning`` while a process finds out its addresses, with what marks that process;
``<name>.addresses``, what it has found out.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from hostel.drivers.document import reading
from hostel.drivers.fault import fault
from hostel.drivers.store import Directories, Store, is_usable_name
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.nwfilter.binding import FilterBinding, read_binding

_PATIENCE: Final = 120.0  # seconds: others may be changing the rules of many guests


class Bindings:
    """All of them; who changes them holds the lock."""

    def __init__(self, directories: Directories) -> None:
        folder = directories.state / "nwfilter"
        self._bindings = Store(folder)
        self._unsettled = Store(folder, ".unsettled")
        self._learning = Store(folder, ".learning")
        self._addresses = Store(folder, ".addresses")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep all other processes and threads from changing rules."""
        with self._bindings.locked(_PATIENCE):
            yield

    def all(self) -> list[FilterBinding]:
        """Every one, by the interface's name."""
        return [binding for name in self._bindings.names() if (binding := self.find(name)) is not None]

    def find(self, name: str) -> FilterBinding | None:
        """The binding of an interface; None where it has none."""
        text = self._bindings.read(name) if is_usable_name(name) else None
        if text is None:
            return None
        with reading(ErrorDomain.NWFILTER):
            return read_binding(text)

    def get(self, name: str) -> FilterBinding:
        """The binding of an interface.

        Raises:
            VirtError: ``NO_NWFILTER_BINDING``.
        """
        found = self.find(name)
        if found is None:
            reason = f"no nwfilter binding for port dev '{name}'"
            raise fault(ErrorCode.NO_NWFILTER_BINDING, reason, ErrorDomain.NWFILTER)
        return found

    def save(self, binding: FilterBinding) -> None:
        """Remember a binding."""
        self._bindings.write(name_of(binding), binding.format())

    def forget(self, name: str) -> None:
        """Forget an interface, and all that was known of it."""
        for store in (self._learning, self._addresses, self._bindings):
            store.remove(name)
        self.lock_of_learner(name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def changing(self, *names: str) -> Iterator[None]:
        """While the rules of interfaces are being changed; a kill in between leaves them unsettled."""
        for name in names:
            self._unsettled.write(name, "")
        yield
        for name in names:
            self._unsettled.remove(name)

    def unsettled(self) -> list[str]:
        """The interfaces whose rules somebody was changing who was killed."""
        return self._unsettled.names()

    def settle(self, name: str) -> None:
        """The rules of an interface are as they should be."""
        self._unsettled.remove(name)

    # What is learned.

    def begin_learning(self, name: str, mark: str) -> None:
        """A process finds out the addresses of an interface; one that does so with another mark is to stop."""
        self._learning.write(name, mark)

    def learning(self, name: str) -> str | None:
        """The mark of who finds out the addresses of an interface; None where nobody does."""
        return self._learning.read(name)

    def end_learning(self, name: str) -> None:
        """Nobody is to find out addresses any more."""
        self._learning.remove(name)

    def learners(self) -> list[str]:
        """The interfaces whose addresses are being found out."""
        return self._learning.names()

    def lock_of_learner(self, name: str) -> Path:
        """The file that who finds out addresses holds locked."""
        return self._bindings.directory / f".{name}.learner"

    def addresses(self, name: str) -> dict[str, float]:
        """The addresses of an interface that were found out, and until when they are its own (seconds of the epoch)."""
        try:
            text = self._addresses.read(name)
            found = {} if text is None else {str(key): float(value) for key, value in json.loads(text).items()}
        except (ValueError, TypeError, AttributeError):
            return {}
        return {address: until for address, until in found.items() if until > time.time()}

    def save_addresses(self, name: str, addresses: Mapping[str, float]) -> None:
        """Remember what was found out."""
        self._addresses.write(name, json.dumps(dict(addresses)))


def name_of(binding: FilterBinding) -> str:
    """The name of the interface.

    Raises:
        VirtError: it cannot be a file's, nor that of an interface.
    """
    name = binding.port_device or ""
    if not is_usable_name(name):
        raise VirtError(ErrorCode.XML_ERROR, f"'{name}' cannot be an interface's name", domain=ErrorDomain.NWFILTER)
    return name
