"""Which options may change when an image is opened again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.node import BlockNode
from hostel.block.options import OptionError
from hostel.block.reopen import changed_options
from support.qcow2 import create_file


@pytest.fixture
def node(tmp_path: Path) -> Iterator[BlockNode]:
    create_file(tmp_path / "base", 1 << 20)
    create_file(tmp_path / "top", 1 << 20, {"backing_file": str(tmp_path / "base"), "backing_fmt": "qcow2"})
    with graph.open(str(tmp_path / "top")) as opened:
        yield opened


@pytest.mark.parametrize(
    "name", ["driver", "node-name", "file.driver", "file.filename", "backing.node-name", "nosuch", "file.nosuch"]
)
def test_what_cannot_change_is_named(node: BlockNode, name: str) -> None:
    with pytest.raises(OptionError, match=f"^Cannot change the option '{name.rpartition('.')[2]}'$"):
        changed_options(node, {}, {name: "other"})


def test_what_stays_as_it_is_may_be_repeated(node: BlockNode) -> None:
    changes = {"driver": "qcow2", "node-name": node.name, "file.driver": "file", "backing.driver": "qcow2"}
    assert changed_options(node, {}, changes) == {}
    assert changed_options(node, {"file.filename": "a"}, {"file.filename": "a"}) == {"file.filename": "a"}


def test_values_are_checked(node: BlockNode) -> None:
    with pytest.raises(OptionError, match=r"^Parameter 'lazy-refcounts' expects 'on' or 'off'$"):
        changed_options(node, {}, {"lazy-refcounts": "42"})


def test_what_was_given_before_is_kept_unless_it_is_overridden(node: BlockNode) -> None:
    before = {"overlap-check": "none", "overlap-check.active-l1": "on", "cache-size": "1M", "discard": "unmap"}
    assert changed_options(node, before, {"overlap-check.template": "all", "l2-cache-size": "512k"}) == {
        "overlap-check.template": "all",
        "l2-cache-size": "512k",
        "discard": "unmap",
    }
