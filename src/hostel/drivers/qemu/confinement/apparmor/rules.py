"""Rules of AppArmor for files: paths as they are quoted, who may not be opened, and what is denied without a word.

As ``virt-aa-helper`` writes them: what is only read is denied for writing, so that tries are not told to the
administrator each time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final

# What no machine writes, so that none gets at what others run or trust; and what it does not even read.
_RESTRICTED: Final = (
    "/bin/", "/etc/", "/lib", "/lost+found/", "/proc/", "/sbin/", "/selinux/", "/sys/", "/usr/bin/", "/usr/lib",
    "/usr/sbin/", "/usr/share/", "/usr/local/bin/", "/usr/local/etc/", "/usr/local/lib", "/usr/local/sbin/",
)  # fmt: skip
_READABLE: Final = (
    "/boot/", "/vmlinuz", "/initrd", "/initrd.img", "/usr/share/edk2/", "/usr/share/OVMF/", "/usr/share/ovmf/",
    "/usr/share/AAVMF/", "/usr/share/qemu-efi/", "/usr/share/qemu-efi-aarch64/", "/usr/lib/u-boot/",
    "/usr/lib/riscv64-linux-gnu/opensbi",
)  # fmt: skip
_ALLOWED: Final = ("/sys/devices/pci", "/sys/kernel/config/target/vhost", "/etc/libvirt-sandbox/services/")
_SPECIAL: Final = re.compile(r"([\\*?\[\]{}^])")
_ORDER: Final = "rwmlk"


class Restricted(ValueError):
    """A path that no machine may open."""


class Rules:
    """The rules of one profile, by path in the order in which they were added; what is said twice is added up."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}
        self._quiet: set[str] = set()

    def file(self, path: str | None, permissions: str) -> None:
        """Let a file be opened; what is no absolute path is passed over.

        Args:
            path: where it is, links on the way followed as far as it is there.
            permissions: letters of ``rwmlk``.

        Raises:
            Restricted: no machine may open it so.
        """
        if path and path.startswith("/"):
            self._add(_quoted(_checked(path, permissions)), permissions)

    def directory(self, path: str, permissions: str) -> None:
        """Let what is in a directory be opened, and the directory be read.

        Raises:
            Restricted: no machine may open it so.
        """
        quoted = _quoted(_checked(path, permissions).rstrip("/"))
        self._add(f"{quoted}/**", permissions, is_quiet=False)
        self._add(f"{quoted}/", "r", is_quiet=False)

    def raw(self, pattern: str, permissions: str) -> None:
        """Let be opened what a pattern of AppArmor's says."""
        self._add(pattern, permissions, is_quiet=False)

    def own(self, path: str, pattern: str, permissions: str) -> None:
        """Let be opened what is of the run itself: a path, and a pattern after it."""
        self._add(_quoted(_real(path)) + pattern, permissions, is_quiet=False)

    def _add(self, pattern: str, permissions: str, *, is_quiet: bool = True) -> None:
        known = self._found.get(pattern, "")
        self._found[pattern] = known + "".join(letter for letter in permissions if letter not in known)
        if is_quiet:
            self._quiet.add(pattern)

    def lines(self) -> Iterator[str]:
        """The rules as text."""
        for pattern, letters in self._found.items():
            yield f'  "{pattern}" {"".join(sorted(letters, key=_ORDER.index))},'
            if pattern in self._quiet and "w" not in letters:
                yield "  # don't audit writes to readonly files"
                yield f'  deny "{pattern}" w,'


def _real(path: str) -> str:
    """A path without links, as far as it is there."""
    there = path
    while not os.path.exists(there):
        there = os.path.dirname(there)
    return path if there == "/" else os.path.realpath(there) + path[len(there) :]


def _checked(path: str, permissions: str) -> str:
    """A path without links that a machine may open so.

    Raises:
        Restricted: it may not.
    """
    real = _real(path)
    if '"' in real or not real.isprintable():
        raise Restricted(f"'{path}' has characters that a profile cannot have")
    if real.startswith(_ALLOWED) or ("w" not in permissions and real.startswith(_READABLE)):
        return real
    if real.startswith((*_RESTRICTED, *_READABLE)):
        raise Restricted(f"'{path}' is where no machine may open files; move it, as to /var/lib/libvirt/images")
    return real


def _quoted(path: str) -> str:
    return _SPECIAL.sub(r"\\\1", path)
