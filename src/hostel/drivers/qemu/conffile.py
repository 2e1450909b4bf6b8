"""Files of settings that libvirt's driver reads: our own, or else libvirt's for the same kind of session."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hostel.codec.assignments import Dialect, Value, parse
from hostel.drivers.fault import fault
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, ErrorDomain, ModelError, VirtError

_LIBVIRT: Final = Path("/etc/libvirt")


class ConfFile:
    """Values of a file by their names; what is wrong with one is told when it is asked for.

    Args:
        path: the file, for what is said of it.
        found: what it has.
    """

    def __init__(self, path: Path, found: Mapping[str, Value]) -> None:
        self.path = path
        self.found = found

    def number(self, name: str, default: int) -> int:
        """A number that is not negative.

        Raises:
            VirtError: ``INTERNAL_ERROR``: it is something else; likewise below.
        """
        value = self.found.get(name, default)
        if not isinstance(value, int) or value < 0:
            raise self.wrong(f"{self.path}: expected an unsigned integer for '{name}' parameter")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """Yes or no."""
        value = self.found.get(name, int(default))
        if not isinstance(value, int):
            raise self.wrong(f"{self.path}: expected a bool for '{name}' parameter")
        if value not in (0, 1):
            raise self.wrong(f"{self.path}: value for '{name}' parameter must be 0 or 1")
        return bool(value)

    def text(self, name: str, default: str) -> str:
        """A text."""
        value = self.found.get(name, default)
        if not isinstance(value, str):
            raise self.wrong(f"{self.path}: expected a string for '{name}' parameter")
        return value

    @staticmethod
    def wrong(what: str, code: ErrorCode = ErrorCode.INTERNAL_ERROR) -> VirtError:
        """The error about a value."""
        return fault(code, what, ErrorDomain.QEMU)


def load(directories: Directories, name: str) -> ConfFile:
    """Read a file; one that is not there has nothing in it.

    Raises:
        VirtError: ``CONF_SYNTAX`` or ``INTERNAL_ERROR``: it is not one, or may not be read.
    """
    is_system = directories == Directories.system()
    libvirt = _LIBVIRT if is_system else directories.config.parent / "libvirt"
    for path in (directories.config / name, libvirt / name):
        try:
            text = path.read_text()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise fault(ErrorCode.INTERNAL_ERROR, f"cannot read '{path}': {error}", ErrorDomain.QEMU) from error
        try:
            # Of lines that set the same the first one counts, as with libvirt.
            return ConfFile(path, {item.name: item.value for item in reversed(parse(text, Dialect.XEN))})
        except ModelError as error:
            place = f"{path}:{error.path.removeprefix('line ')}"
            raise fault(ErrorCode.CONF_SYNTAX, f"{place}: {error.reason}", ErrorDomain.QEMU) from error
    return ConfFile(libvirt / name, {})
