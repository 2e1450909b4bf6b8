"""What a server does that looks for requests before it sleeps, when none come: nothing; and it still ends at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hostel.block.node import BlockNode
from hostel.export.nbd.export import NbdExport
from support import nbd, vhost

LENGTH = 1 << 20
SECONDS = 0.5


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[BlockNode]:
    with nbd.raw_disk(tmp_path, bytes(LENGTH)) as node:
        yield node


def takes(action: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the clock and of processors."""
    start, used = time.monotonic(), time.process_time()
    action()
    return time.monotonic() - start, time.process_time() - used


def test_an_nbd_client_that_waits_costs_nothing(tmp_path: Path, disk: BlockNode) -> None:
    with nbd.serving(tmp_path, NbdExport(disk)) as served, nbd.Peer(served.path) as peer:
        peer.use()
        for number in range(200):
            peer.send(nbd.request(0, 4096 * (number % 64), 4096))
            peer.receive(16 + 4096)
        assert takes(lambda: time.sleep(SECONDS))[1] < SECONDS / 10
        served.server.stop()
        assert takes(lambda: served.thread.join(20))[0] < 2


def test_a_vhost_user_driver_that_waits_costs_nothing(tmp_path: Path, disk: BlockNode) -> None:
    with vhost.serving(tmp_path, disk) as served, vhost.driver(served.path) as (_, ring):
        for number in range(200):
            assert ring.request(vhost.IN, number, read=512) == (0, bytes(512))
        assert takes(lambda: time.sleep(SECONDS))[1] < SECONDS / 10
        assert takes(ring.stop)[0] < 2
