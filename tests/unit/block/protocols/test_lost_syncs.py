"""A server that could not store what was written, and says nothing of it the next time."""

from __future__ import annotations

import errno
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from hostel.block.driver import BlockDriver
from hostel.block.protocols.gluster.driver import GlusterDriver
from hostel.block.protocols.nfs.driver import NfsDriver
from hostel.block.protocols.ssh.driver import SshDriver
from hostel.errors import BlockError


class Forgetful:
    """A remote file, as far as a driver asks it before it is written."""

    can_sync = True

    def __init__(self) -> None:
        self.loses = True

    def sync(self) -> bool:
        loses, self.loses = self.loses, False
        if loses:
            raise BlockError("Input/output error", errno=errno.EIO)
        return True

    def status(self) -> SimpleNamespace:
        return SimpleNamespace(size=512)

    def size(self) -> int:
        return 512

    def seek(self, offset: int, whence: int) -> None:
        return None


@pytest.mark.parametrize("driver", [GlusterDriver, NfsDriver, SshDriver])
def test_a_sync_that_failed_once_keeps_failing(driver: Callable[..., BlockDriver]) -> None:
    remote: Any = Forgetful()
    opened = driver(remote, "remote", no_flush=False)
    for _ in range(3):
        with pytest.raises(BlockError, match="Input/output error"):
            opened.flush()


@pytest.mark.parametrize("driver", [GlusterDriver, NfsDriver, SshDriver])
def test_nothing_is_synced_in_unsafe_mode(driver: Callable[..., BlockDriver]) -> None:
    remote: Any = Forgetful()
    driver(remote, "remote", no_flush=True).flush()
    assert remote.loses
