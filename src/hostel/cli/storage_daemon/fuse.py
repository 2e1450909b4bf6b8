"""FUSE exports of the daemon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hostel.block.permission import Permission
from hostel.cli.storage_daemon.exports import Export
from hostel.cli.storage_daemon.monitor.parameter import generic
from hostel.errors import BlockError, UnsupportedFeature
from hostel.export.fuse.file import ExportedFile
from hostel.export.fuse.mount import check_mountpoint
from hostel.export.fuse.server import FuseServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from hostel.cli.storage_daemon.daemon import Daemon


class FuseRunning(Export):
    """A node as a file."""

    kind = "fuse"

    def needed(self, given: Mapping[str, Any]) -> Permission:
        """See :class:`Export`: who may write may cut the file too, and what may grow may do so at any time."""
        return Permission.RESIZE if self.writable or given.get("growable", False) else Permission.NONE

    def start(self, daemon: Daemon, given: Mapping[str, Any]) -> None:
        """Mount it.

        Raises:
            QmpError: another export is there already.
            BlockError: it cannot be mounted.
        """
        self.mountpoint: str = given["mountpoint"]
        others = daemon.exports.values()
        if any(isinstance(other, FuseRunning) and other.mountpoint == self.mountpoint for other in others):
            raise generic(f"There already is a FUSE export on '{self.mountpoint}'")
        check_mountpoint(self.mountpoint)
        growable, allow_other = given.get("growable", False), given.get("allow-other", "auto")
        if allow_other != "auto":
            self._server = self._mount(growable, allow_other == "on", daemon.report)
            return
        try:
            self._server = self._mount(growable, True, daemon.report)
        except UnsupportedFeature:
            raise
        except BlockError:
            # The host may keep that from us, and it was not asked for.
            self._server = self._mount(growable, False, daemon.report)

    def stop(self) -> None:
        """See :class:`Export`."""
        self._server.close()

    def _mount(self, growable: bool, allow_other: bool, report: Callable[[str], None]) -> FuseServer:
        file = ExportedFile(self.root, writable=self.writable, growable=growable, allow_other=allow_other)
        return FuseServer(self.mountpoint, file, allow_other=allow_other, report=report)
