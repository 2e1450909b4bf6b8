"""Contexts as what is written on files."""

from __future__ import annotations

import errno
import os
from typing import Final

from hostel.drivers.qemu.confinement.selinux import kernel
from hostel.drivers.qemu.confinement.selinux.context import Context

MODEL: Final = "selinux"
# A file system without labels, or one that is read only: the policy has switches for machines that use it anyway.
_PASSED: Final = (errno.EOPNOTSUPP, errno.EROFS)


class ContextMark:
    """A security context; see :class:`hostel.drivers.qemu.ownership.remembered.Mark`."""

    model: Final = MODEL

    def read(self, path: str) -> str | None:
        """That of a file."""
        return kernel.context_of(path)

    def write(self, path: str, value: str) -> None:
        """Label a file."""
        kernel.label(path, value)

    def normal(self, value: str) -> str:
        """As it is."""
        return str(Context.parse(value))

    def usual(self, path: str, mode: int) -> str | None:
        """As the policy has it for the path."""
        return kernel.usual_context(path, mode)

    def passes(self, error: OSError) -> bool:
        """As ``virSecuritySELinuxSetFileconImpl`` has it."""
        if error.errno in _PASSED or not kernel.enforces():
            return True
        return error.errno == errno.EPERM and os.geteuid() != 0

    def clash(self, path: str) -> str:
        """In libvirt's words."""
        return f"Setting different SELinux label on {path} which is already in use"

    def refusal(self, path: str, value: str) -> str:
        """In libvirt's words."""
        return f"unable to set security context '{value}' on '{path}'"


MARK: Final = ContextMark()
