"""The directory in which the tour happens: everything it makes is in there, and goes with it."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import hostel
from hostel.drivers.fault import printable
from hostel.drivers.store import Directories
from hostel.errors import UsageError

# What else would say which machines are meant; typed commands must find ours.
_FOREIGN: Final = ("VIRSH_DEFAULT_CONNECT_URI", "LIBVIRT_DEFAULT_URI", "HOSTEL_URI")

# What virt-install's options and libvirt's documents would take for something else.
_UNUSABLE: Final = frozenset(",'\"\\")


class Place:
    """A directory of our own: made here, or empty before.

    Attributes:
        root: its absolute path.
        pool: where the storage pool keeps its volumes.
        log: what comes over the machine's serial port.
    """

    def __init__(self, wanted: str | None) -> None:
        """Make the directory, or take one that is there and empty.

        Raises:
            UsageError: it cannot be used.
        """
        parent = Path(wanted if wanted is not None else tempfile.gettempdir()).absolute()
        if not str(parent).isprintable() or _UNUSABLE & set(str(parent)):
            raise UsageError(
                f"'{printable(str(parent))}': the commands to come can only carry names without commas, quotes, "
                "backslashes and control characters; use another directory"
            )
        self._made = True
        if wanted is None:
            self.root = Path(tempfile.mkdtemp(prefix="hostel-quickstart-", dir=parent))
        else:
            self.root = parent
            self._made = _make(self.root)
        self.pool = self.root / "pool"
        self.log = self.root / "serial.log"

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Work in the directory, with its own definitions and no others."""
        before = Path.cwd()
        saved = {name: os.environ.pop(name, None) for name in (*_FOREIGN, "HOSTEL_HOME")}
        os.environ["HOSTEL_HOME"] = str(self.root)
        os.chdir(self.root)
        try:
            yield
        finally:
            os.chdir(before)
            for name, value in saved.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value

    def preparation(self) -> list[str]:
        """What a user types first, so that the commands of the tour work in a shell."""
        lines = []
        if shutil.which("hostel") is None:
            lines.append(f'export PATH="{Path(_program()).parent}:$PATH"')
        foreign = [name for name in _FOREIGN if name in os.environ]
        if foreign:
            lines.append(f"unset {' '.join(foreign)}")
        return [*lines, f"export HOSTEL_HOME={shlex.quote(str(self.root))}", 'cd "$HOSTEL_HOME"']

    def end_machines(self) -> None:
        """End what runs here.

        Raises:
            HostelError: a machine does not end.
        """
        with hostel.open("qemu:///session", Directories.under(self.root)) as connection:
            for domain in connection.domains(active=True):
                domain.destroy()

    def remove(self) -> None:
        """Remove all of it, once no machine uses it.

        Raises:
            HostelError: a machine does not end; nothing is removed then.
            OSError: the host refuses.
        """
        self.end_machines()
        self._remove()

    def _remove(self) -> None:
        if self._made:
            shutil.rmtree(self.root)
            return
        for entry in self.root.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def _make(root: Path) -> bool:
    """Make the directory; False where it is there already, and empty."""
    try:
        root.mkdir(mode=0o700)
    except FileExistsError:
        try:
            if any(root.iterdir()):
                raise UsageError(f"'{root}' is not empty: remove what is in it, or name another directory") from None
        except NotADirectoryError:
            raise UsageError(f"'{root}' is not a directory") from None
        return False
    return True


def _program() -> str:
    """The ``hostel`` that belongs to this interpreter."""
    import sys

    return str(Path(sys.executable).parent / "hostel")
