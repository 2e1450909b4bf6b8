"""Objects and character devices of the storage daemon beside QEMU's: what there is, and what may be changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hostel.cli.qemu.object_types import TYPES
from support.daemon import OURS, THEIRS, daemon
from support.scene import Command, compare, run

pytestmark = [pytest.mark.requires_tool("qemu-storage-daemon")]

OBJECTS = [
    *("--object", "throttle-group,id=g"),
    *("--object", "secret,id=s,data=x"),
    *("--object", "iothread,id=io"),
    *("--object", "authz-simple,id=one,identity=x"),
    *("--object", "authz-list,id=several"),
    *("--blockdev", "null-co,node-name=n"),
]


def get(path: str, name: str) -> Command:
    return run("qom-get", path=path, property=name)


def put(path: str, name: str, value: object) -> Command:
    return run("qom-set", path=path, property=name, value=value)


def test_the_object_model_is_that_of_qemu(tmp_path: Path) -> None:
    steps = [
        *(run("qom-list", path=path) for path in ("/", "/objects", "/chardevs", "/objects/", "/objects/g", "io", "s")),
        *(run("qom-list", path=path) for path in ("/chardevs/monitor", "/none", "none", "", "/objects/none")),
        *(run("qom-list-properties", typename=name) for name in (*TYPES, "user-creatable", "none")),
        run("qom-list-types", implements="none"),
        *(get("s", name) for name in ("type", "data", "file", "format", "iv", "keyid", "loaded", "none")),
        *(get("io", name) for name in ("poll-max-ns", "poll-grow", "aio-max-batch", "thread-pool-max", "type", "none")),
        get("one", "identity"),
        get("several", "policy"),
        get("several", "rules"),
        *(get(path, "type") for path in ("/", "/objects", "/objects/g", "/objects//g", "/chardevs/monitor")),
        get("/objects", "g"),
        get("/", "objects"),
        get("/objects", "none"),
        get("/chardevs/monitor", "connected"),
        get("/chardevs/monitor", "addr"),
        *(put("io", "poll-max-ns", value) for value in (5, -1, 1 << 63, "x")),
        get("io", "poll-max-ns"),
        put("io", "thread-pool-min", 100),
        put("io", "none", 1),
        put("s", "data", "y"),
        put("s", "loaded", True),
        put("one", "identity", "y"),
        get("one", "identity"),
        put("several", "policy", "allow"),
        put("several", "policy", "none"),
        put("s", "format", "zz"),
        put("one", "identity", 5),
        get("several", "policy"),
        *(put("g", "limits", value) for value in (5, {"iops-total": "1"}, {"foo": 1}, {"iops-total": 7})),
        get("g", "limits"),
        put("/objects", "type", "x"),
        put("/chardevs/monitor", "connected", True),
        run("object-add", qom_type="iothread", id="monitor"),
        run("qom-list", path="monitor"),
        get("monitor", "type"),
        run("object-add", qom_type="iothread", id="i", poll_max_ns=-7),
        run("object-add", qom_type="iothread", id="i", foo=1),
        run("object-add", qom_type="iothread", id="i", poll_max_ns=7),
        get("i", "poll-max-ns"),
        run("x-blockdev-set-iothread", node_name="n", iothread="i"),
        run("x-blockdev-set-iothread", node_name="n", iothread=None),
        run("x-blockdev-set-iothread", node_name="n", iothread="none"),
        run("x-blockdev-set-iothread", node_name="none", iothread="i"),
        run("x-blockdev-set-iothread", node_name="n", iothread=3),
    ]
    compare(tmp_path, [], OBJECTS, steps)


def test_types_are_some_of_those_of_qemu(tmp_path: Path) -> None:
    given: list[dict[str, Any]] = [{}, {"abstract": True}, {"implements": "user-creatable"}, {"implements": "chardev"}]
    found = []
    for tool in (THEIRS, OURS):
        with daemon(tmp_path, tool=tool) as running:
            found.append([running.monitor.command("qom-list-types", **each) for each in given])
    for real, ours in zip(*found, strict=True):
        assert ours
        assert [each for each in ours if each not in real] == []


def added(name: str, kind: str, **data: object) -> Command:
    backend = {"type": kind, "data": {key.replace("_", "-"): value for key, value in data.items()}}
    return run("chardev-add", id=name, backend=backend)


def unix(path: str) -> dict[str, Any]:
    return {"type": "unix", "data": {"path": path}}


def test_character_devices_come_and_go_as_with_qemu(tmp_path: Path) -> None:
    steps = [
        added("r", "ringbuf"),
        added("r", "ringbuf"),
        added("t", "ringbuf", size=100),
        added("t", "memory", size=16),
        run("ringbuf-write", device="r", data="hello"),
        run("ringbuf-read", device="r", size=3),
        run("ringbuf-read", device="r", size=30),
        run("ringbuf-write", device="t", data="0123456789abcdefXYZ"),
        run("ringbuf-read", device="t", size=30),
        run("ringbuf-write", device="r", data="aGVsbG8=", format="base64"),
        run("ringbuf-read", device="r", size=30, format="base64"),
        run("ringbuf-write", device="r", data="ä€"),
        run("ringbuf-read", device="r", size=30),
        run("ringbuf-write", device="r", data="/w==", format="base64"),
        run("ringbuf-read", device="r", size=30),
        run("ringbuf-write", device="r", data="!!", format="base64"),
        *(run("ringbuf-write", device=name, data="a") for name in ("none", "monitor")),
        *(run("ringbuf-read", device=name, size=1) for name in ("none", "monitor")),
        *(run("ringbuf-read", device="r", size=size) for size in (0, -1)),
        added("n", "null"),
        added("f", "file", out="x.out"),
        added("g", "file", out="none/x.out"),
        added("s", "socket", addr=unix("s.sock"), server=True, wait=False),
        added("c", "socket", addr=unix("none.sock"), server=False),
        added("c", "socket", addr=unix("c.sock"), reconnect=1),
        added("c", "socket"),
        added("p", "pipe", device="none"),
        added("x", "none"),
        added("x", "vc"),
        run("chardev-add", id="x", backend={"type": "null"}),
        run("chardev-add", id="x"),
        run("chardev-add", backend={"type": "null", "data": {}}),
        run("query-chardev"),
        *(run("chardev-send-break", id=name) for name in ("n", "none", "monitor")),
        run("chardev-change", id="none", backend={"type": "null", "data": {}}),
        run("chardev-change", id="monitor", backend={"type": "null", "data": {}}),
        run("chardev-change", id="f", backend={"type": "none", "data": {}}),
        run("chardev-change", id="f", backend={"type": "ringbuf", "data": {}}),
        run("ringbuf-write", device="f", data="a"),
        run("query-chardev"),
        *(run("chardev-remove", id=name) for name in ("monitor", "none", "n", "r", "s")),
        run("query-chardev"),
    ]
    compare(tmp_path, [], [], steps)
    assert not (tmp_path / "ours" / "s.sock").exists()


def test_a_terminal_is_there_while_its_device_is(tmp_path: Path) -> None:
    with daemon(tmp_path) as running:
        name = running.monitor.command("chardev-add", id="p", backend={"type": "pty", "data": {}})["pty"]
        assert Path(name).is_char_device()
        running.monitor.command("chardev-remove", id="p")
        assert not Path(name).exists()
