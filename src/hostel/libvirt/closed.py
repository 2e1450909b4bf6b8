"""What answers where a connection is closed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from hostel.daemon.access import api_name
from hostel.errors import ErrorCode, VirtError
from hostel.libvirt.method import Peer
from hostel.wire.rpc.procedure import Procedure


def closed(function: str) -> VirtError:
    """The error of a call of a function."""
    return VirtError(ErrorCode.INVALID_CONN, f"invalid connection pointer in {function}")


class Closed:
    """Refuses each call, in a caller's place."""

    def call(self, procedure: Procedure, arguments: Sequence[Any]) -> NoReturn:
        """Refuse."""
        raise closed(api_name(procedure.name))

    def call_with_files(self, procedure: Procedure, arguments: Sequence[Any], files: Sequence[int]) -> NoReturn:
        """Refuse."""
        raise closed(api_name(procedure.name))

    def open_stream(self, procedure: Procedure, arguments: Sequence[Any]) -> tuple[Sequence[Any], Peer]:
        """Refuse."""
        raise closed(api_name(procedure.name))

    def listen(self, heard: Callable[[Procedure, Sequence[Any]], None], ended: Callable[[int], None]) -> None:
        """Nothing is to be heard."""

    def is_alive(self) -> bool:
        """It is not."""
        return False

    def is_test(self) -> bool:
        """Nobody answers."""
        return False

    def is_encrypted(self) -> bool:
        """Nobody is there who could listen."""
        return False

    def set_keepalive(self, interval: int, count: int) -> NoReturn:
        """Refuse."""
        raise closed("virConnectSetKeepAlive")

    def close(self) -> None:
        """It is closed."""
