"""``qemu-storage-daemon`` beside the real one: the same commands and mistakes, the same answers and words."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from hostel.cli.main import main
from support.additions import without_additions
from support.daemon import OURS, THEIRS, daemon, end
from support.nbd import Certificates

pytestmark = [pytest.mark.requires_tool("qemu-storage-daemon"), pytest.mark.requires_tool("qemu-img")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where both tools run: a raw image, and a qcow2 image with a bitmap."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.raw").write_bytes(bytes(range(256)) * 4096)
    for words in (
        "create -q -f qcow2 a.qcow2 4M",
        "bitmap --add -g 64k a.qcow2 b0",
    ):
        subprocess.run(["qemu-img", *words.split()], check=True, timeout=60)
    return tmp_path


def run(name: str, /, **arguments: Any) -> str:
    return json.dumps(
        {"execute": name, "arguments": {key.replace("_", "-"): value for key, value in arguments.items()}}
    )


def file(name: str, node: str, **more: Any) -> dict[str, Any]:
    return {"driver": "file", "node-name": node, "filename": name, **more}


def null(node: str) -> dict[str, Any]:
    return {"driver": "null-co", "node-name": node, "size": 1 << 20}


UNIX = {"type": "unix", "path": "vhost.sock"}
# One session, in its order; what is no command is text that is sent as it is.
SESSION = [
    run("blockdev-add", driver="nosuch", node_name="q"),
    run("blockdev-add", node_name="q"),
    run("blockdev-add", driver="file", filename="a.raw"),
    run("blockdev-add", driver="file", node_name="q"),
    run("blockdev-add", **file("nosuch", "q")),
    run("blockdev-add", **file("a.raw", "q", foo=1)),
    run("blockdev-add", driver="file", node_name="q", filename=7),
    run("blockdev-add", **file("a.raw", "q", read_only="on")),
    run("blockdev-add", **file("a.raw", "9q")),
    run("blockdev-add", driver="raw", node_name="q"),
    run("blockdev-add", driver="raw", node_name="q", file="zz"),
    run("blockdev-add", driver="qcow2", node_name="q", file=file("a.raw", "f")),
    run("blockdev-add", **file("a.raw", "f")),
    run("blockdev-add", driver="raw", node_name="r", file="f", read_only=True),
    run("blockdev-add", driver="raw", node_name="r", file="f"),
    run("query-block-exports"),
    run("block-export-add", type="nbd", id="e", node_name="f"),
    run("nbd-server-start", addr={"type": "unix", "data": {"path": "/nosuch/nbd.sock"}}),
    run("nbd-server-start", addr={"type": "inet", "data": {"host": "localhost"}}),
    run("nbd-server-start", addr={"type": "inet", "data": {"host": "localhost", "port": 10888}}),
    run("nbd-server-start", addr={"type": "foo", "data": {}}),
    run("nbd-server-start", addr={"type": "unix", "data": {"path": "nbd.sock"}}, tls_creds="no"),
    run("nbd-server-start", addr={"type": "unix", "data": {"path": "nbd.sock"}}, max_connections=-1),
    run("nbd-server-start", addr={"type": "unix", "data": {"path": "nbd.sock"}}),
    run("nbd-server-start", addr={"type": "unix", "data": {"path": "nbd.sock"}}),
    run("block-export-add", type="nbd", id="e", node_name="r", writable=True),
    run("block-export-add", type="nbd", id="e", node_name="zz"),
    run("block-export-add", type="foo", id="e", node_name="f"),
    run("block-export-add", id="e", node_name="f"),
    run("block-export-add", type="nbd", node_name="f"),
    run("block-export-add", type="nbd", id="9", node_name="f"),
    run("block-export-add", type="nbd", id="e", node_name="f", bitmaps=["b"]),
    run("block-export-add", type="nbd", id="e", node_name="f", iothread="b"),
    run("block-export-add", type="nbd", id="e", node_name="f", mountpoint="b"),
    run("block-export-add", type="nbd", id="e", node_name="f", name="x" * 5000),
    run("block-export-add", type="nbd", id="e", node_name="f", writable=True),
    run("block-export-add", type="nbd", id="e", node_name="f"),
    run("block-export-add", type="nbd", id="e2", node_name="f"),
    run("block-export-add", type="vhost-user-blk", id="v", node_name="r", addr=UNIX, logical_block_size=100),
    run("block-export-add", type="vhost-user-blk", id="v", node_name="r", addr=UNIX, logical_block_size=1000),
    run("block-export-add", type="vhost-user-blk", id="v", node_name="r", addr=UNIX, num_queues=0),
    run("block-export-add", type="vhost-user-blk", id="v", node_name="r", addr={"type": "unix"}),
    run("block-export-add", type="vhost-user-blk", id="v", node_name="r"),
    run("block-export-add", type="vhost-user-blk", id="v", node_name="r", addr=UNIX),
    run("block-export-add", type="fuse", id="fu", node_name="r", mountpoint="nosuch"),
    run("block-export-add", type="fuse", id="fu", node_name="r", mountpoint="."),
    run("block-export-add", type="fuse", id="fu", node_name="r"),
    run("query-block-exports"),
    run("blockdev-del", node_name="f"),
    run("blockdev-add", driver="qcow2", node_name="q", file=file("a.qcow2", "qf")),
    run("blockdev-add", driver="qcow2", node_name="q", file="f"),
    run("query-named-block-nodes", flat=True),
    run("query-named-block-nodes", flat="x"),
    run("block-export-add", type="nbd", id="e3", node_name="qf", writable=True),
    run("block-export-add", type="nbd", id="e3", node_name="qf"),
    run("nbd-server-add", device="q", bitmap="no"),
    run("nbd-server-add", device="q", bitmap="b0"),
    run("nbd-server-add", device="q"),
    run("block_resize", node_name="q", size=8 << 20),
    run("nbd-server-remove", name="q"),
    run("nbd-server-remove", name="q"),
    run("block-export-del", id="e3", mode="foo"),
    run("block-export-del", id="e3"),
    run("block_resize", size=4096),
    run("block_resize", node_name="q", size=-1),
    run("block_resize", node_name="q", size=1000),
    run("block_resize", node_name="q", size=8 << 20),
    run("blockdev-del", node_name="qf"),
    run("blockdev-del", node_name="q"),
    run("blockdev-del", node_name="q"),
    run("object-add", qom_type="nosuch", id="s"),
    run("object-add", qom_type="secret", id="s"),
    run("object-add", qom_type="secret", id="s", data="x"),
    run("object-add", qom_type="secret", id="s", data="x"),
    run("object-add", qom_type="iothread", id="io"),
    run("object-del", id="s"),
    run("object-del", id="s"),
    run("object-add", qom_type="throttle-group", id="g", limits={"iops-total": -1}),
    run("object-add", qom_type="throttle-group", id="g", limits={"iops-total": 5}),
    run("qom-get", path="/objects/g", property="limits"),
    run("qom-get", path="g", property="x-iops-total"),
    run("qom-get", path="g", property="type"),
    run("qom-get", path="g", property="nosuch"),
    run("qom-get", path="/objects/nosuch", property="limits"),
    run("qom-get", path="g"),
    run("qom-set", path="g", property="limits"),
    run("qom-set", path="g", property="limits", value=7),
    run("qom-set", path="g", property="limits", value={"nosuch": 7}),
    run("qom-set", path="g", property="limits", value={"bps-read": "7"}),
    run("qom-set", path="g", property="limits", value={"bps-read": 7, "bps-total": 7}),
    run("qom-set", path="g", property="limits", value={"bps-read-max": 7}),
    run("qom-set", path="g", property="limits", value={"iops-size": 512, "iops-total": 0}),
    run("qom-set", path="g", property="limits", value={"bps-read": 7, "iops-total": 0}),
    run("qom-set", path="g", property="x-bps-read", value=7),
    run("qom-set", path="g", property="type", value="x"),
    run("qom-set", path="g", property="nosuch", value="x"),
    run("qom-get", path="/objects/g", property="limits"),
    run("object-del", id="g"),
    run("block-export-add", type="nbd", id="io", node_name="r", name="io", iothread="io"),
    run("block-export-del", id="io"),
    run("block-export-del", id="e"),
    run("nbd-server-stop"),
    run("nbd-server-stop"),
    run("query-block-exports"),
    # what every node takes, in an image and in what is below it
    run("blockdev-add", driver="raw", node_name="n", detect_zeroes="unmap", file=null("nf")),
    run(
        "blockdev-add", driver="raw", node_name="n", file={**null("nf"), "detect-zeroes": "unmap", "discard": "ignore"}
    ),
    run("blockdev-add", driver="raw", node_name="n", file={**null("nf"), "detect-zeroes": "unmap"}),
    run("query-named-block-nodes", flat=True),
    run("blockdev-del", node_name="nf"),
    run("blockdev-del", node_name="n"),
    run("blockdev-add", driver="raw", node_name="n", detect_zeroes="unmap", discard="unmap", file=null("nf")),
    run("blockdev-del", node_name="n"),
    run("blockdev-add", driver="raw", node_name="n", file={**null("nf"), "foo": 1}),
    run("blockdev-add", driver="qcow2", node_name="n", file={**file("a.qcow2", "nf"), "read-only": True}),
    run("blockdev-add", driver="raw", node_name="n", file={**null("nf"), "read-only": True}),
    run("nbd-server-start", addr={"type": "unix", "data": {"path": "nbd.sock"}}),
    run("block-export-add", type="nbd", id="n", node_name="n", writable=True),
    run("nbd-server-stop"),
    run("blockdev-del", node_name="n"),
    run("nosuch"),
    run("query-version", a=1),
    run("qmp_capabilities"),
    '{"execute":"query-block-exports","id":{"a":[1,"x"]}}',
    '{"exec-oob":"query-version"}',
    '{"exec":"x"}',
    '{"id":3}',
    '{"execute":7}',
    '{"execute":"query-version","foo":1}',
    '{"execute":"query-version","arguments":7}',
    "[1]",
    '"x"',
    "{'execute': 'query-block-exports'}",
]


def settled(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without what is each tool's own: how much room its files take, and when a bitmap's flag is written."""
    text = re.sub(r'"(actual|virtual)-size": \d+', '"size": 0', json.dumps(answer)).replace('"in-use", ', "")
    return dict(json.loads(text))


def test_the_same_session_has_the_same_answers(folder: Path) -> None:
    answers = {}
    for name, tool in (("real", THEIRS), ("ours", OURS)):
        work = folder / name
        work.mkdir()
        for image in ("a.raw", "a.qcow2"):
            (work / image).write_bytes((folder / image).read_bytes())
        with daemon(work, tool=tool) as running:
            answers[name] = [settled(running.monitor.send(text)) for text in SESSION]
            deleted = [event["data"]["id"] for event in running.monitor.events]
            assert deleted == ["q", "io", "e"]
            assert running.stop() == 0
        assert not (work / "nbd.sock").exists()
        assert not (work / "vhost.sock").exists() or name == "real"
    pairs = zip(SESSION, answers["real"], answers["ours"], strict=True)
    assert [(text, real, ours) for text, real, ours in pairs if ours != real] == []


@pytest.mark.parametrize("first", [run("query-version"), run("qmp_capabilities", enable=1), run("nosuch")])
def test_capabilities_come_first(folder: Path, first: str) -> None:
    answers = []
    for tool in (THEIRS, OURS):
        with daemon(folder, tool=tool) as running:
            running.monitor.close()
            running.monitor = type(running.monitor)(running.path)
            assert running.monitor.greeting["QMP"]["capabilities"] == ["oob"]
            assert running.monitor.greeting["QMP"]["version"]["qemu"]["major"] == 7
            answers.append([running.monitor.send(text) for text in (first, run("qmp_capabilities"))])
    assert answers[1] == answers[0]


def test_quit_ends_it_and_exports_are_said_to_go(folder: Path) -> None:
    with daemon(folder, "--blockdev", "file,node-name=f,filename=a.raw") as running:
        monitor = running.monitor
        monitor.command("nbd-server-start", addr={"type": "unix", "data": {"path": "nbd.sock"}})
        monitor.command("block-export-add", type="nbd", id="e", node_name="f")
        assert monitor.send('{"execute": "quit", "id": 7}') == {"return": {}, "id": 7}
        assert monitor.wait_for("BLOCK_EXPORT_DELETED")["data"] == {"id": "e"}
        assert running.process.wait(20) == 0
    assert not (folder / "nbd.sock").exists()
    assert not (folder / "monitor.sock").exists()


def test_our_commands_are_all_commands_of_qemu(folder: Path) -> None:
    found = []
    for tool in (THEIRS, OURS):
        with daemon(folder, tool=tool) as running:
            found.append({each["name"] for each in running.monitor.command("query-commands")})
    assert found[1] <= found[0]


@pytest.mark.parametrize("read_only", [False, True])
def test_an_image_found_corrupt_is_told_of(tmp_path: Path, read_only: bool) -> None:
    told = []
    for tool in (THEIRS, OURS):
        image = tmp_path / "a.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "1M"], check=True, timeout=60)
        subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -q 0 64k", image], check=True, timeout=60)
        # The first cluster lies on the table of refcounts; for one who reads, the second one is askew.
        with image.open("r+b") as file:
            file.seek(4 << 16)
            file.write((1 << 63 | 1 << 16).to_bytes(8, "big") + (1 << 63 | 5 << 16 | 1 << 9).to_bytes(8, "big"))
        node = f"qcow2,node-name=q,file.driver=file,file.filename=a.qcow2,read-only={'on' if read_only else 'off'}"
        with daemon(
            tmp_path,
            *("--blockdev", node, "--nbd-server", "addr.type=unix,addr.path=nbd.sock"),
            *("--export", f"nbd,id=e,node-name=q,name=disk,writable={'off' if read_only else 'on'}"),
            tool=tool,
        ) as running:
            request = "read 64k 512" if read_only else "write 0 512"
            uri = f"nbd+unix:///disk?socket={tmp_path / 'nbd.sock'}"
            words = ["qemu-io", *(["-r"] if read_only else []), "-f", "raw", "-c", request, uri]
            assert subprocess.run(words, capture_output=True, timeout=60).returncode == 1
            told.append(running.monitor.wait_for("BLOCK_IMAGE_CORRUPTED")["data"])
    assert told[1] == told[0]
    assert told[1]["fatal"] is not read_only


def test_an_export_in_use_goes_only_when_it_must(folder: Path) -> None:
    with daemon(
        folder,
        *("--blockdev", "qcow2,node-name=q,file.driver=file,file.filename=a.qcow2"),
        *("--nbd-server", "addr.type=unix,addr.path=nbd.sock"),
        *("--export", "nbd,id=e,node-name=q,name=disk,writable=on"),
    ) as running:
        uri = f"nbd+unix:///disk?socket={folder / 'nbd.sock'}"
        client = subprocess.Popen(
            ["qemu-io", "-f", "raw", uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write("write -P 5 0 64k\n")
        client.stdin.flush()
        assert "wrote 65536/65536" in client.stdout.readline() + client.stdout.readline()
        answer = running.monitor.send(run("block-export-del", id="e"))
        assert answer["error"]["desc"] == "export 'e' still in use"
        running.monitor.command("block-export-del", id="e", mode="hard")
        assert running.monitor.wait_for("BLOCK_EXPORT_DELETED")["data"] == {"id": "e"}
        client.communicate(timeout=30)
        assert running.monitor.command("query-block-exports") == []
    shown = subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", "read -P 5 0 64k", "a.qcow2"], capture_output=True, text=True
    )
    assert "read 65536/65536" in shown.stdout, shown


@pytest.mark.parametrize(
    "command",
    [
        "foo",
        "--nosuch",
        "--blockdev=driver=foo,node-name=x",
        "--blockd driver=foo,node-name=x",
        "--object=foo,id=x extra",
        "extra --object foo,id=x",
        "--blockdev help",
        "--export=nbd,help",
        "--nbd-server ?",
        "--monitor m,mode=readline",
        "--object throttle-group,id=t,x-iops-total=-1",
        "--object memory-backend-ram,id=m,size=1M",
        "--object iothread,help",
        "--blockdev",
        "--blockdev driver=foo,node-name=x",
        "--blockdev driver=file,node-name=x,filename=nosuch",
        "--blockdev '{\"driver\":'",
        "--blockdev file,node-name=x,filename=a.raw,foo",
        "--blockdev file,node-name=x,filename=a.raw,foo=1",
        "--blockdev file,node-name=x,filename=a.raw,read-only=3",
        "--blockdev file,node-name=x,filename=a.raw,driver=raw",
        "--blockdev x=1,x.y=2",
        "--export nbd,id=e,node-name=x",
        "--export nbd,id=e,node-name=x,writable=3",
        "--export fuse,id=e,node-name=x",
        "--export type=foo,id=e,node-name=x",
        "--export id=e",
        "--nbd-server addr.type=unix",
        "--nbd-server foo",
        "--nbd-server addr.type=inet,addr.host=localhost,addr.port=1080x",
        "--nbd-server addr.type=unix,addr.path=x,max-connections=-1",
        "--nbd-server addr.type=unix,addr.path=ns,tls-creds=x",
        "--monitor nosuch",
        "--chardev foo,id=x",
        "--chardev socket,id=x",
        "--chardev socket,path=x",
        "--chardev stdio,id=m,foo=1",
        "--chardev stdio,id=m --monitor m,mode=readline",
        "--chardev socket,id=x,path=/nosuch/x,server=on,wait=off",
        "--chardev socket,id=x,path=/nosuch/x",
        "--chardev null,id=x --chardev null,id=x",
        "--object foo,id=x",
        "--object secret,id=x",
        "--object iothread,id=t --object iothread,id=t",
        '--object \'{"qom-type":"secret","id":"s","data":"x"}\' --export e',
        "--pidfile /nosuch/x",
        "--pidfile /nosuch/x --nbd-server addr.type=unix",
        "--blockdev file,node-name=x,filename=a.raw --daemonize --export nbd,id=e,node-name=x",
        "--blockdev null-co,node-name=n --export nbd,id=e,node-name=n,bitmap=b",
        "--blockdev null-co,node-name=n --export vhost-user-blk,id=e,node-name=n,addr.type=unix",
        "--export vhost-user-blk,id=e,node-name=n,addr.type=unix,addr.path=z,num-queues=x",
        "--blockdev null-co,node-name=n --export vhost-user-blk,id=e,node-name=n,addr.type=fd,addr.str=77",
        "--blockdev null-co,node-name=n --export vhost-user-blk,id=e,node-name=n,addr.type=inet,addr.host=,addr.port=1",
        "--blockdev null-co,node-name=n --export fuse,id=e,node-name=n,mountpoint=a.raw,allow-other=maybe",
    ],
)
def test_a_mistake_has_the_same_words_and_exit_code(folder: Path, command: str) -> None:
    words = shlex.split(command)
    results = []
    for tool in (THEIRS, OURS):
        ended = subprocess.run(
            [*tool, *words], capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
        )
        said = ended.stderr if tool is THEIRS else without_additions(ended.stderr)
        results.append((ended.returncode, ended.stdout, said))
    assert results[1] == results[0]


def test_help_and_version_are_said_before_anything_is_made() -> None:
    for words, text in ((["--blockdev", "nonsense", "--help"], "--blockdev DRIVER"), (["-V"], "version 7.2.22")):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            assert main(["qemu-storage-daemon", *words]) == 0
        assert text in out.getvalue()


def wait_until(condition: Callable[[], object], timeout: float = 20) -> None:
    until = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_in_the_background_it_is_ready_when_the_command_returns(folder: Path, number: signal.Signals) -> None:
    words = [
        "--daemonize", "--pidfile", "pid",
        "--blockdev", "qcow2,node-name=q,file.driver=file,file.filename=a.qcow2",
        "--nbd-server", "addr.type=unix,addr.path=nbd.sock", "--export", "nbd,id=e,node-name=q,name=x",
    ]  # fmt: skip
    assert subprocess.run([*OURS, *words], timeout=60, check=False).returncode == 0
    pid = int((folder / "pid").read_text())
    try:
        info = subprocess.run(
            ["qemu-img", "info", "-f", "raw", f"nbd+unix:///x?socket={folder / 'nbd.sock'}"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert "virtual size: 4 MiB" in info.stdout
    finally:
        os.kill(pid, number)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    assert not (folder / "pid").exists()
    assert not (folder / "nbd.sock").exists()


def test_a_monitor_may_be_on_standard_input(folder: Path) -> None:
    words: Sequence[str] = [*OURS, "--chardev", "stdio,id=m", "--monitor", "m"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        said, _ = process.communicate('{"execute":"qmp_capabilities"}{"execute":"quit"}', timeout=30)
    assert process.returncode == 0
    assert [json.loads(line) for line in said.splitlines()][1:] == [{"return": {}}, {"return": {}}]


@pytest.mark.parametrize("tool", [THEIRS, OURS], ids=["theirs", "ours"])
def test_who_comes_early_finds_all_that_the_command_line_makes(folder: Path, tool: Sequence[str]) -> None:
    words = [
        "--chardev", "socket,id=m,path=early.sock,server=on,wait=off", "--monitor", "m",
        "--nbd-server", "addr.type=unix,addr.path=nbd.sock",
        "--chardev", "socket,id=gate,path=gate.sock,server=on,wait=on",
        "--blockdev", "file,node-name=f,filename=a.raw", "--export", "nbd,id=e,node-name=f,name=disk",
    ]  # fmt: skip
    with subprocess.Popen([*tool, *words]) as process, socket.socket(socket.AF_UNIX) as early:
        try:
            wait_until((folder / "gate.sock").exists)
            early.settimeout(20)
            early.connect("early.sock")
            early.sendall(b'{"execute":"qmp_capabilities"}{"execute":"query-block-exports","id":1}')
            client = subprocess.Popen(
                ["qemu-img", "info", "-f", "raw", "nbd+unix:///disk?socket=nbd.sock"], stdout=subprocess.DEVNULL
            )
            time.sleep(0.3)  # in which they would be told of what there is so far
            with socket.socket(socket.AF_UNIX) as gate:
                gate.connect("gate.sock")
                answers = [json.loads(line) for _, line in zip(range(3), early.makefile("rb"), strict=False)]
                assert [each["id"] for each in answers[2]["return"]] == ["e"]
                assert client.wait(20) == 0
        finally:
            end(process, is_ours=tool is OURS)


@pytest.mark.requires_tool("openssl")
@pytest.mark.parametrize(("identity", "allowed"), [("CN=friend", True), ("CN=somebody", False)])
def test_the_nbd_server_lets_in_whom_tls_and_its_authorization_do(folder: Path, identity: str, allowed: bool) -> None:
    authority = Certificates(folder, "ours")
    server = authority.make("server", server=True, subject="/CN=localhost")
    client = authority.make("client", server=False, subject="/CN=friend")
    found = []
    for tool in (THEIRS, OURS):
        with daemon(
            folder,
            *("--object", f"tls-creds-x509,id=tls,dir={server},endpoint=server,verify-peer=yes"),
            *("--object", f"authz-simple,id=who,identity={identity}"),
            *("--blockdev", "file,node-name=f,filename=a.raw,read-only=on"),
            *("--nbd-server", "addr.type=unix,addr.path=tls.sock,tls-creds=tls,tls-authz=who"),
            *("--export", "nbd,id=e,node-name=f,name=disk"),
            tool=tool,
        ):
            image = "driver=nbd,server.type=unix,server.path=tls.sock,export=disk,tls-creds=c,tls-hostname=localhost"
            words = ["--object", f"tls-creds-x509,id=c,dir={client},endpoint=client", "--image-opts", image]
            ended = subprocess.run(
                ["qemu-img", "info", *words], capture_output=True, text=True, timeout=60, check=False
            )
            found.append(ended.returncode == 0)
    assert found == [allowed, allowed]


def test_several_monitors_hear_of_the_same_things(folder: Path) -> None:
    with (
        daemon(
            folder,
            *("--chardev", "socket,id=two,path=two.sock,server=on,wait=off", "--monitor", "two,pretty=on"),
            *("--blockdev", "file,node-name=f,filename=a.raw", "--nbd-server", "addr.type=unix,addr.path=nbd.sock"),
            *("--export", "nbd,id=e,node-name=f"),
        ) as running,
        socket.socket(socket.AF_UNIX) as second,
    ):
        second.settimeout(20)
        second.connect(str(folder / "two.sock"))
        stream = second.makefile("r")
        assert '"QMP"' in until_empty(stream)
        second.sendall(b'{"execute": "qmp_capabilities"}')
        until_empty(stream)
        running.monitor.command("block-export-del", id="e")
        assert '"BLOCK_EXPORT_DELETED"' in until_empty(stream)
        second.sendall(b'{"execute": "query-block-exports"')
        second.sendall(b"}")
        assert '"return": [\n    ]' in until_empty(stream)
        stream.close()


def until_empty(stream: io.TextIOWrapper) -> str:
    """Read pretty JSON up to the end of a value that has members."""
    text = ""
    while not text.endswith("\n}\n"):
        line = stream.readline().replace("\r", "")
        assert line
        text += line
    return text


def test_a_throttled_node_is_served_at_its_groups_pace(folder: Path) -> None:
    with daemon(
        folder,
        *("--object", '{"qom-type": "throttle-group", "id": "g", "limits": {"iops-total": 20}}'),
        *("--blockdev", "throttle,node-name=t,throttle-group=g,file.driver=file,file.filename=a.raw"),
        *("--nbd-server", "addr.type=unix,addr.path=nbd.sock", "--export", "nbd,id=e,node-name=t,name=x,writable=on"),
    ):
        start = time.monotonic()
        reads = [word for offset in range(30) for word in ("-c", f"read -q {offset}k 512")]
        uri = f"nbd+unix:///x?socket={folder / 'nbd.sock'}"
        subprocess.run(["qemu-io", "-f", "raw", *reads, uri], check=True, timeout=60)
        assert time.monotonic() - start > 1


SNAPSHOT = {"node_name": "q", "snapshot_file": "top.qcow2", "snapshot_node_name": "top"}
FREE = {"path": "/objects/g", "property": "limits", "value": {"bps-write": 0}}


@pytest.mark.parametrize(
    "ending",
    [
        run("quit"),
        run("block-export-del", id="e", mode="hard"),
        run("nbd-server-stop"),
        run("blockdev-snapshot-sync", **SNAPSHOT),
        run("qom-set", **FREE),
    ],
    ids=["quit", "export", "server", "snapshot", "limits"],
)
def test_what_a_limit_holds_up_is_done_where_somebody_waits_for_it(folder: Path, ending: str) -> None:
    with daemon(
        folder,
        *("--object", "throttle-group,id=g"),
        *("--blockdev", "file,node-name=f,filename=a.qcow2"),
        *("--blockdev", "throttle,node-name=t,throttle-group=g,file=f", "--blockdev", "qcow2,node-name=q,file=t"),
        *("--nbd-server", "addr.type=unix,addr.path=nbd.sock", "--export", "nbd,id=e,node-name=q,name=x,writable=on"),
    ) as running:
        running.monitor.command("qom-set", path="g", property="limits", value={"bps-write": 1000})
        uri = f"nbd+unix:///x?socket={folder / 'nbd.sock'}"
        # The first takes all that there is for minutes; the others wait.
        writes = [word for at in range(4) for word in ("-c", f"aio_write -P 7 {at}M 512k")]
        client = subprocess.Popen(["qemu-io", "-f", "raw", *writes, "-c", "aio_flush", uri], stdout=subprocess.DEVNULL)
        try:
            time.sleep(0.5)
            start = time.monotonic()
            assert "error" not in running.monitor.send(ending)
            if "quit" in ending:
                assert running.process.wait(30) == 0
            else:
                running.monitor.command("query-version")
            if "limits" in ending:
                client.wait(30)
            assert time.monotonic() - start < 20
        finally:
            client.kill()
            client.wait(30)
    subprocess.run(["qemu-img", "check", "a.qcow2"], check=True, stdout=subprocess.DEVNULL, timeout=30)
