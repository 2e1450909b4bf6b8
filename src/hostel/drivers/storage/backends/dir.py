"""Pool type ``dir``: the files of one directory."""

from __future__ import annotations

import os
from typing import Final

from hostel.drivers.fault import fault
from hostel.drivers.storage.backends.base import Overwrite
from hostel.drivers.storage.backends.local import LocalVolumes
from hostel.drivers.storage.cow import set_cow
from hostel.drivers.storage.document import PoolDefinition
from hostel.drivers.storage.holding import translating
from hostel.drivers.storage.placing import apply_permissions
from hostel.errors import ErrorCode, ErrorDomain

DEFAULT_MODE: Final = 0o711  # libvirt's VIR_STORAGE_DEFAULT_POOL_PERM_MODE


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

    def build(self, pool: PoolDefinition, overwrite: Overwrite) -> None:
        """Make the directory and those above it; one that exists gets the permissions that the document names."""
        with translating(f"cannot create path '{pool.path}'", pool.name, pool.path):
            os.makedirs(os.path.dirname(pool.path), exist_ok=True)
            default: int | None = DEFAULT_MODE
            try:
                os.mkdir(pool.path)
            except FileExistsError:
                if not os.path.isdir(pool.path):
                    raise
                default = None
            apply_permissions(pool.path, pool.permissions, default)
        set_cow(pool.path, None if pool.features is None else pool.features.cow)
        if overwrite is not Overwrite.DEFAULT:
            self._format(pool, overwrite)

    def _format(self, pool: PoolDefinition, overwrite: Overwrite) -> None:
        """Make what is on the device that the pool is on; a directory has none, and libvirt says so afterwards too."""
        detail = f"No source device specified when formatting pool '{pool.name}'"
        raise fault(ErrorCode.OPERATION_INVALID, detail, ErrorDomain.STORAGE)
