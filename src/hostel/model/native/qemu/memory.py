"""What QEMU takes a machine's memory from: an object that ``-machine memory-backend=`` names."""

from __future__ import annotations

from typing import Final

from hostel.model.domain.memory import MemoryBacking
from hostel.model.native.qemu.commandline import Option, Properties
from hostel.model.native.settings import refused

_KIND: Final = "memory-backend-"
_RAM, _MEMFD = f"{_KIND}ram", f"{_KIND}memfd"


class MemoryObjects:
    """The objects of a command line that are memory, of which a machine may take one for its own."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[Option, str, Properties]] = {}

    def add(self, option: Option) -> bool:
        """Take an ``-object`` that is memory; whether it was one."""
        found = Properties("object", option.value, "qom-type")
        kind, name = found.any("qom-type"), found.any("id")
        if not isinstance(kind, str) or not kind.startswith(_KIND) or not isinstance(name, str):
            return False
        self._found[name] = option, kind, found
        return True

    def take(self, name: str) -> MemoryBacking | None:
        """What a document says of the memory with this name; nothing where it is what QEMU takes anyway.

        Raises:
            ModelError: it is not there, or cannot be said.
        """
        if name not in self._found:
            raise refused("-machine", f"'memory-backend={name}' names no -object")
        _, kind, found = self._found.pop(name)
        if kind not in (_RAM, _MEMFD):
            raise refused("-object", f"'{kind}' cannot be said in a document; leave it out")
        is_shared = found.flag("share")
        found.ignore("size", "x-use-canonical-path-for-ramblock-id")  # -m says how much
        found.end()
        backing = MemoryBacking()
        backing.source = "memfd" if kind == _MEMFD else None
        backing.access = None if is_shared is None else "shared" if is_shared else "private"
        return backing if backing.source or backing.access else None

    def others(self) -> list[str]:
        """The words of those that nobody took."""
        return [word for option, _, _ in self._found.values() for word in option.words]
