"""The filter ``blkdebug``: rules, limits, breakpoints, and the points that our formats tell it of."""

from __future__ import annotations

import errno
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from hostel.block import creating, graph
from hostel.block.blockdev import from_json, from_options
from hostel.block.filters.blkdebug import BlkdebugDriver
from hostel.block.filters.rule import Injection, StateChange, rules
from hostel.block.formats.qcow2.driver import Qcow2Driver
from hostel.block.node import BlockNode
from hostel.block.options import OptionError
from hostel.errors import BlockError

KiB = 1024


@pytest.fixture
def image(tmp_path: Path) -> str:
    """An empty qcow2 image of 8 MiB, in which an L2 table covers 2 MiB."""
    path = str(tmp_path / "disk")
    with creating.create(path) as file:
        Qcow2Driver.create(file, 8 << 20, Qcow2Driver.create_options.convert({"cluster_size": "4k"}))
    return path


def qcow2(image: str, options: Mapping[str, str]) -> BlockNode:
    """A qcow2 image over ``blkdebug``, open for writing."""
    tree = {"driver": "qcow2", "file.driver": "blkdebug", "file.image.filename": image}
    return graph.open(
        from_options({**tree, **{f"file.{key}": value for key, value in options.items()}}), read_only=False
    )


def raw(path: Path, options: Mapping[str, str], size: int = 64 * KiB) -> BlockNode:
    """A raw image over ``blkdebug``, open for writing."""
    path.write_bytes(bytes(size))
    tree = {"driver": "raw", "file.driver": "blkdebug", "file.image.filename": str(path)}
    return graph.open(
        from_options({**tree, **{f"file.{key}": value for key, value in options.items()}}), read_only=False
    )


def debugger(node: BlockNode) -> BlkdebugDriver:
    assert node.file is not None
    driver = node.file.driver
    assert isinstance(driver, BlkdebugDriver)
    return driver


# ---- rules


def test_rules_come_from_options_and_from_a_file(tmp_path: Path) -> None:
    config = tmp_path / "conf"
    config.write_text(
        '# why\n[inject-error]\nevent = "l2_load"\nerrno = "28"\nonce ="on"\nsector = "2"\n\n'
        '[set-state "x"]\nevent = "none"\nstate = "1"\nnew_state = "3"\n'
    )
    found = rules({"inject-error.event": "read_aio", "inject-error.1.event": "none", "align": "1"}, str(config))
    assert [type(rule) for rule in found] == [Injection, Injection, Injection, StateChange]
    first = found[0]
    assert isinstance(first, Injection)
    assert (first.event, first.errno, first.once, first.offset) == ("l2_load", errno.ENOSPC, True, 1024)
    options = {"inject-error.event": "read_aio", "inject-error.1.event": "none"}
    assert found[1:] == [*rules(options, None), StateChange("none", 1, 3)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[other]\n", "conf:1: There is no option group 'other'"),
        ('event = "none"\n', "conf:1: no group defined"),
        ("[inject-error]\nevent none\n", "conf:2: parse error"),
        ('[inject-error]\nwhen = "none"\n', "conf:2: Invalid parameter 'when'"),
        ("[inject-error]\n", "Missing event name for rule"),
        ('[inject-error]\nevent = "never"\n', "invalid parameter value: never"),
        ('[inject-error]\nevent = "none"\niotype = "seek"\n', "invalid parameter value: seek"),
        ('[inject-error]\nevent = "none"\nerrno = "x"\n', "Parameter 'errno' expects a number"),
    ],
)
def test_a_wrong_rule_is_refused(tmp_path: Path, image: str, text: str, message: str) -> None:
    config = tmp_path / "conf"
    config.write_text(text)
    with pytest.raises(OptionError) as caught:
        graph.open(f"blkdebug:{config}:{image}", "qcow2")
    assert str(caught.value).endswith(message)


def test_a_missing_file_of_rules_is_refused(image: str) -> None:
    with pytest.raises(BlockError, match="Could not read blkdebug config file: No such file or directory"):
        graph.open(f"blkdebug:{image}.conf:{image}", "qcow2")


def test_a_name_needs_two_colons(image: str) -> None:
    with pytest.raises(OptionError, match="blkdebug requires both config file and image path"):
        graph.open(f"blkdebug:{image}", "qcow2")


# ---- injected errors


def test_a_rule_counts_from_its_event_on(tmp_path: Path) -> None:
    with raw(tmp_path / "disk", {"inject-error.0.event": "write_aio", "inject-error.0.errno": "28"}) as node:
        node.read(0, 512)
        with pytest.raises(OSError, match="No space left") as caught:
            node.pwrite(0, b"x")
        assert caught.value.errno == errno.ENOSPC
        with pytest.raises(OSError, match="No space left"):
            node.read(0, 512)


def test_once_is_once(tmp_path: Path) -> None:
    with raw(tmp_path / "disk", {"inject-error.0.event": "write_aio", "inject-error.0.once": "on"}) as node:
        with pytest.raises(OSError, match="Input/output error"):
            node.pwrite(0, b"x")
        node.pwrite(0, b"x")


def test_a_sector_and_a_kind_of_request_narrow_a_rule(tmp_path: Path) -> None:
    rule = {"event": "none", "sector": "3", "iotype": "write"}
    with raw(tmp_path / "disk", {f"inject-error.0.{key}": value for key, value in rule.items()}) as node:
        node.read(0, 4096)
        node.pwrite(0, bytes(3 * 512))
        node.pwrite(4 * 512, bytes(512))
        node.write_zeroes(0, 4096)
        with pytest.raises(OSError, match="Input/output error"):
            node.pwrite(0, bytes(3 * 512 + 1))


def test_extents_fail_only_when_asked_for(tmp_path: Path) -> None:
    with raw(tmp_path / "disk", {"inject-error.0.event": "none"}) as node:
        assert len(list(node.extents())) == 1
    rule = {"inject-error.0.event": "none", "inject-error.0.iotype": "block-status"}
    with raw(tmp_path / "disk", rule) as node, pytest.raises(OSError, match="Input/output error"):
        list(node.extents())


def test_states_order_rules(tmp_path: Path) -> None:
    options = {
        "set-state.0.event": "write_aio", "set-state.0.state": "1", "set-state.0.new_state": "2",
        "inject-error.0.event": "write_aio", "inject-error.0.state": "2",
    }  # fmt: skip
    with raw(tmp_path / "disk", options) as node:
        node.pwrite(0, b"x")
        with pytest.raises(OSError, match="Input/output error"):
            node.pwrite(0, b"x")


@pytest.mark.parametrize(
    "event",
    ["l2_load", "l2_update", "l2_alloc_write", "l1_update", "write_aio", "refblock_load", "refblock_update_part",
     "refblock_alloc", "cluster_alloc", "flush_to_os", "flush_to_disk", "read_aio"],
)  # fmt: skip
def test_qcow2_comes_to_the_event_and_reports_the_error(image: str, event: str) -> None:
    with graph.open(image, "qcow2", read_only=False) as node:
        node.pwrite(512 * KiB, b"\1" * 4096)
    with pytest.raises(OSError, match="Input/output error"), qcow2(image, {"inject-error.0.event": event}) as node:
        node.read(512 * KiB, 4096)
        node.pwrite(4096 * KiB, b"\2" * 4096)
        node.flush()
        node.flush()
    with graph.open(image, "qcow2") as node:
        assert node.read(512 * KiB, 4096) == b"\1" * 4096


@pytest.mark.parametrize("event", ["l1_grow_alloc_table", "l1_grow_write_table", "l1_grow_activate_table"])
def test_a_table_that_cannot_move_leaves_the_image_as_it_was(image: str, event: str) -> None:
    with graph.open(image, "qcow2", read_only=False) as node:
        node.pwrite(0, b"\1" * 4096)
    rule = {"inject-error.0.event": event, "inject-error.0.once": "on"}
    with pytest.raises(OSError, match="Input/output error"), qcow2(image, rule) as node:
        node.resize(4 << 30)
    with graph.open(image, "qcow2") as node:
        assert (node.length, bytes(node.read(0, 4096))) == (8 << 20, b"\1" * 4096)


# ---- limits


def test_what_is_not_aligned_is_read_modified_and_written(tmp_path: Path) -> None:
    options = {"align": "4k", "inject-error.0.event": "pwritev_rmw_head", "inject-error.0.iotype": "read"}
    with raw(tmp_path / "disk", options) as node:
        node.pwrite(4096, b"\1" * 4096)
        assert node.read(4095, 3) == b"\0\1\1"
        with pytest.raises(OSError, match="Input/output error"):
            node.pwrite(5000, b"\2")
    with raw(tmp_path / "disk", {"align": "4k"}) as node:
        node.pwrite(4000, b"\1" * 9000)
        node.pwrite(5000, b"\2")
        node.write_zeroes(6000, 3)
        node.write_zeroes(4090, 10)
        expected = bytearray(64 * KiB)
        expected[4000:13000] = b"\1" * 9000
        expected[5000:5001] = b"\2"
        expected[6000:6003] = bytes(3)
        expected[4090:4100] = bytes(10)
        assert node.read(0, 64 * KiB) == expected


def test_requests_are_cut_to_the_limits(tmp_path: Path) -> None:
    options = {"align": "512", "max-transfer": "4k", "opt-write-zero": "3k", "max-write-zero": "6k",
               "opt-discard": "3k", "max-discard": "3k"}  # fmt: skip
    with raw(tmp_path / "disk", options) as node:
        node.pwrite(0, b"\1" * 64 * KiB)
        node.write_zeroes(1000, 40000)
        node.discard(50 * KiB, 6 * KiB)
        found = node.read(0, 64 * KiB)
    expected = bytearray(b"\1" * 64 * KiB)
    expected[1000:41000] = bytes(40000)
    expected[50 * KiB : 56 * KiB] = found[50 * KiB : 56 * KiB]
    assert found == expected


@pytest.mark.parametrize(
    "options",
    [{"align": "3"}, {"align": "2G"}, {"align": "4k", "max-transfer": "1k"}, {"opt-write-zero": "2G"},
     {"opt-write-zero": "15k", "max-write-zero": "16k"}, {"align": "512", "opt-discard": "1"}],
)  # fmt: skip
def test_limits_that_do_not_fit_each_other_are_refused(tmp_path: Path, options: dict[str, str]) -> None:
    with pytest.raises(OptionError, match="Cannot meet constraints with "):
        raw(tmp_path / "disk", options)


def test_an_unknown_option_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="Block protocol 'blkdebug' doesn't support the option 'max'"):
        raw(tmp_path / "disk", {"max": "3"})


# ---- breakpoints


def test_a_breakpoint_suspends_one_request_until_it_is_resumed(tmp_path: Path) -> None:
    with raw(tmp_path / "disk", {}) as node:
        heard: list[str] = []
        debugger(node).listener = heard.append
        debugger(node).set_breakpoint("write_aio", "A")
        thread = threading.Thread(target=lambda: node.pwrite(0, b"x"))
        thread.start()
        while not debugger(node).is_suspended("A"):
            thread.join(0.01)
        node.pwrite(512, b"y")
        assert node.read(0, 1) == b"\0"
        debugger(node).resume("A")
        thread.join(60)
        assert node.read(0, 1) == b"x"
        assert heard == ["Suspended request 'A'", "Resuming request 'A'"]
        with pytest.raises(FileNotFoundError):
            debugger(node).resume("A")


def test_overlapping_unaligned_writes_wait_for_each_other(tmp_path: Path) -> None:
    with raw(tmp_path / "disk", {"align": "4k"}) as node:
        debugger(node).set_breakpoint("pwritev_rmw_after_tail", "A")
        first = threading.Thread(target=lambda: node.pwrite(0x200, b"\1" * 512))
        first.start()
        while not debugger(node).is_suspended("A"):
            first.join(0.01)
        second = threading.Thread(target=lambda: node.pwrite(0x400, b"\2" * 512))
        second.start()
        second.join(0.05)
        assert second.is_alive()
        node.pwrite(0x2000, b"\3")
        debugger(node).remove_breakpoint("A")
        first.join(60)
        second.join(60)
        assert node.read(0x200, 1024) == b"\1" * 512 + b"\2" * 512


def test_closing_lets_suspended_requests_go(tmp_path: Path) -> None:
    node = raw(tmp_path / "disk", {})
    debugger(node).set_breakpoint("read_aio", "A")
    thread = threading.Thread(target=lambda: node.read(0, 1))
    thread.start()
    while not debugger(node).is_suspended("A"):
        thread.join(0.01)
    debugger(node).resume_all()
    thread.join(60)
    assert not thread.is_alive()
    node.close()


# ---- names


def test_names_tell_config_and_image_and_else_are_json(image: str, tmp_path: Path) -> None:
    config = tmp_path / "conf"
    config.write_text("")
    with graph.open(f"blkdebug:{config}:{image}", "qcow2") as node:
        assert node.filename == f"blkdebug:{config}:{image}"
        assert node.place == image
    with graph.open(f"blkdebug::{image}") as node:
        assert (node.format, node.filename) == ("qcow2", f"blkdebug::{image}")
    with qcow2(image, {"align": "512"}) as node:
        assert from_json(node.filename).children["file"].options == {"align": "512"}


def test_a_format_below_the_filter_is_opened_with_its_backing_file(image: str, tmp_path: Path) -> None:
    top = str(tmp_path / "top")
    with creating.create(top) as file:
        given = {"backing_file": "disk", "backing_fmt": "qcow2"}
        Qcow2Driver.create(file, 1 << 20, Qcow2Driver.create_options.convert(given))
    with graph.open(image, "qcow2", read_only=False) as node:
        node.pwrite(0, b"base")
    options = {"driver": "blkdebug", "image.driver": "qcow2", "image.file.filename": top}
    with graph.open(from_options(options), read_only=False) as node:
        assert node.read(0, 4) == b"base"
        assert node.backing is not None
        assert node.backing.filename == image


def test_a_write_that_waits_holds_up_no_other_one(tmp_path: Path) -> None:
    with raw(tmp_path / "disk", {"align": "4k"}) as node:
        debugger(node).set_breakpoint("pwritev_rmw_after_tail", "A")
        first = threading.Thread(target=lambda: node.pwrite(0x2000, b"\1" * 512))
        first.start()
        while not debugger(node).is_suspended("A"):
            first.join(0.01)
        second = threading.Thread(target=lambda: node.pwrite(0x2800, b"\2" * 0x1000))
        second.start()
        second.join(0.05)
        node.pwrite(0x3E00, b"\3" * 512)
        assert second.is_alive()
        debugger(node).resume("A")
        first.join(60)
        second.join(60)
        found = node.read(0x2000, 0x2000)
    assert found == b"\1" * 512 + bytes(0x600) + b"\2" * 0x1000 + bytes(0x600) + b"\3" * 512
