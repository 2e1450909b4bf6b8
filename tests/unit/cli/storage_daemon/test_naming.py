"""Names of nodes: of each level once, however many stand on it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hostel.block import blockdev
from hostel.block.nodes import NodeTable
from hostel.cli.storage_daemon.monitor.naming import Names


def test_each_name_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes, written = NodeTable(), list[str]()
    write = blockdev.json_name

    def counted(tree: Any) -> str:
        written.append(write(tree))
        return written[-1]

    try:
        nodes.add({"driver": "null-co", "node-name": "f0"})
        for index in range(1, 8):
            nodes.add({"driver": "copy-on-read", "node-name": f"f{index}", "file": f"f{index - 1}"})
        monkeypatch.setattr(blockdev, "json_name", counted)
        names = Names()
        found = [names.of(nodes[f"f{index}"]) for _ in range(3) for index in range(8)]
        assert len(written) == 7
        tree = json.loads(found[7].removeprefix("json:"))
        for _ in range(7):
            assert tree["driver"] == "copy-on-read"
            tree = tree["file"]
        assert tree["driver"] == "null-co"
    finally:
        nodes.close()
