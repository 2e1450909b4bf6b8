"""How long a client may take for its handshake, where that is said."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hostel.export.nbd import connection
from hostel.export.nbd.export import NbdExport
from hostel.wire.nbd.protocol import Command
from support.nbd import Peer, raw_disk, serving

CONTENT = bytes(range(256)) * 256


def test_a_handshake_has_the_time_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_disk(tmp_path, CONTENT) as disk, serving(tmp_path, NbdExport(disk), handshake_limit=1) as server:
        with Peer(server.path) as quiet:
            quiet.receive(18)
            assert quiet.ended()
        assert server.log == ["option negotiation failed: no handshake within 1 seconds"]
    monkeypatch.setattr(connection, "HANDSHAKE_TIMEOUT", 0.1)
    with (
        raw_disk(tmp_path, CONTENT) as disk,
        serving(tmp_path, NbdExport(disk), handshake_limit=0) as server,
        Peer(server.path) as peer,
    ):
        time.sleep(0.3)
        peer.use()
        peer.request(Command.READ, 0, 4)
        assert peer.simple(4) == (0, CONTENT[:4])
