"""Pool type ``dir``: the files of one directory."""

from __future__ import annotations

import os
import stat

from hostel.drivers.fault import fault
from hostel.drivers.storage.backends.local import LocalVolumes
from hostel.drivers.storage.document import Permissions, PoolDefinition, PoolSizes
from hostel.drivers.storage.holding import translating
from hostel.drivers.storage.placing import apply_permissions, sweep
from hostel.errors import ErrorCode, ErrorDomain

_DEFAULT_MODE = 0o711  # libvirt's VIR_STORAGE_DEFAULT_POOL_PERM_MODE


class DirBackend(LocalVolumes):
    """A directory of the host."""

    def check(self, pool: PoolDefinition) -> None:
        """Refuse a relative path: it would mean another directory to each process.

        Raises:
            VirtError: ``INVALID_ARG``.
        """
        if not pool.path.startswith("/"):
            raise fault(ErrorCode.INVALID_ARG, f"path '{pool.path}' is not absolute", ErrorDomain.STORAGE)

    def is_running(self, pool: PoolDefinition) -> bool:
        """Whether the directory is still there."""
        return os.path.isdir(pool.path)

    def build(self, pool: PoolDefinition) -> None:
        """Make the directory and those above it; one that exists gets the permissions that the document names."""
        with translating(f"cannot create path '{pool.path}'", pool.name, pool.path):
            os.makedirs(os.path.dirname(pool.path), exist_ok=True)
            default: int | None = _DEFAULT_MODE
            try:
                os.mkdir(pool.path)
            except FileExistsError:
                if not os.path.isdir(pool.path):
                    raise
                default = None
            apply_permissions(pool.path, pool.permissions, default)

    def delete(self, pool: PoolDefinition) -> None:
        """Remove the directory, which must be empty."""
        with translating(f"failed to remove pool '{pool.path}'", pool.name, pool.path):
            os.rmdir(pool.path)

    def start(self, pool: PoolDefinition) -> None:
        """Make sure that the directory can be read, and clear away what was left half made."""
        with translating(f"cannot open directory '{pool.path}'", pool.name, pool.path):
            sweep(pool.path)

    def stop(self, pool: PoolDefinition) -> None:
        """Nothing: the directory stays."""

    def refresh(self, pool: PoolDefinition) -> PoolDefinition:
        """Look at the directory's permissions; the files are looked at whenever somebody asks."""
        self.start(pool)
        with translating(f"cannot stat path '{pool.path}'", pool.name, pool.path):
            status = os.stat(pool.path)
        permissions = Permissions(
            stat.S_IMODE(status.st_mode) & 0o777, status.st_uid, status.st_gid, pool.permissions.label
        )
        return pool._replace(permissions=permissions)

    def sizes(self, pool: PoolDefinition) -> PoolSizes:
        """The file system's sizes."""
        with translating(f"cannot statvfs path '{pool.path}'", pool.name, pool.path):
            status = os.statvfs(pool.path)
        capacity = status.f_frsize * status.f_blocks
        available = status.f_frsize * status.f_bfree
        return PoolSizes(capacity, capacity - available, available)
