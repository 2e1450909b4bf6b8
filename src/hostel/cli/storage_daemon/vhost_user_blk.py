"""vhost-user-blk exports of the daemon."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from hostel.cli.storage_daemon import place
from hostel.cli.storage_daemon.exports import Export
from hostel.cli.storage_daemon.monitor.parameter import generic
from hostel.errors import NetworkError
from hostel.export.vhost_user_blk.server import VhostUserBlk
from hostel.net import address
from hostel.units import SECTOR, MiB

if TYPE_CHECKING:
    from hostel.cli.storage_daemon.daemon import Daemon

_MAX_BLOCK: Final = 2 * MiB
_END_TIMEOUT: Final = 70.0  # seconds for the thread to end, which waits for the front end itself


class VhostUserBlkRunning(Export):
    """A device that waits for front ends, and serves one at a time."""

    kind = "vhost-user-blk"

    def start(self, daemon: Daemon, given: Mapping[str, Any]) -> None:
        """Listen, and serve who comes.

        Raises:
            QmpError: an argument makes no sense.
            NetworkError: the address cannot be listened on.
        """
        size = given.get("logical-block-size", SECTOR)
        if not SECTOR <= size <= _MAX_BLOCK:
            raise generic(
                f"Property {self.id}.logical-block-size doesn't take value {size} "
                f"(minimum: {SECTOR}, maximum: {_MAX_BLOCK})"
            )
        if size & (size - 1):
            raise generic(f"Property {self.id}.logical-block-size doesn't take value '{size}', it's not a power of 2")
        queues = given.get("num-queues", 1)
        if not queues:
            raise generic("num-queues must be greater than 0")
        where = place.read(given["addr"], text=self.from_text)
        if where.type not in ("unix", "fd"):  # descriptors come over no other
            raise generic("Only socket address types 'unix' and 'fd' are supported")
        self._device = VhostUserBlk(
            self.root, writable=self.writable, block_size=size, queues=queues, report=daemon.report
        )
        self._report = daemon.report
        self._server = self._device.server(where.listen(1))
        self._path = where.path()
        self._thread = threading.Thread(target=self._run, name="vhost-user-blk", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """See :class:`Export`."""
        if self._path is not None:
            address.remove_unix(self._path)
        self._server.stop()
        self._thread.join(_END_TIMEOUT)
        if self._thread.is_alive():
            raise NetworkError(f"export '{self.id}' does not end")

    def resized(self) -> None:
        """See :class:`Export`."""
        self._device.resized()

    def _run(self) -> None:
        try:
            self._server.run()
        except OSError as error:
            self._report(f"vhost-user-blk: {error}")
