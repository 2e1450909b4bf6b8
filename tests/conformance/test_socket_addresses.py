"""Which of a host's addresses servers listen at and clients use, and names of sockets without a file, beside QEMU's."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from support.daemon import OURS, THEIRS, Daemon, daemon

pytestmark = [pytest.mark.requires_tool("qemu-storage-daemon"), pytest.mark.requires_tool("qemu-img")]
BOTH = pytest.mark.parametrize("tool", [OURS, THEIRS], ids=["ours", "theirs"])
CLIENTS = [(sys.executable, "-m", "hostel", "qemu-img"), ("qemu-img",)]
HAS_IPV6 = Path("/proc/net/if_inet6").exists() and "lo" in Path("/proc/net/if_inet6").read_text()


def start(running: Daemon, kind: str, **parts: Any) -> str:
    """Start a server; what is wrong with that."""
    arguments = {"addr": {"type": kind, "data": parts}}
    answer = running.monitor.send(json.dumps({"execute": "nbd-server-start", "arguments": arguments}))
    return str(answer.get("error", {}).get("desc", ""))


def info(client: tuple[str, ...], options: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    name = "json:" + json.dumps({"driver": "nbd", "export": "n", **options})
    return subprocess.run([*client, "info", name], capture_output=True, text=True, timeout=60)


def is_listened_at(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 10).close()
    except ConnectionRefusedError:
        return False
    return True


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@BOTH
@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"host": "127.0.0.1", "ipv4": False}, "Address family for hostname not supported"),
        ({"host": "::1", "ipv6": False}, "Address family for hostname not supported"),
        ({"host": "127.0.0.1", "ipv6": True}, "Address family for hostname not supported"),
        ({"host": "localhost", "ipv4": False, "ipv6": False}, "Cannot disable IPv4 and IPv6 at same time"),
        (
            {"host": "localhost", "numeric": True},
            "address resolution failed for localhost:0: Name or service not known",
        ),
        ({"host": "127.0.0.1", "port": "9", "to": 8}, "Failed to create a socket"),
        ({"host": "", "port": ""}, "failed for :: Name or service not known"),
    ],
)
def test_what_cannot_be_listened_at(tmp_path: Path, tool: tuple[str, ...], parts: dict[str, Any], message: str) -> None:
    with daemon(tmp_path, tool=tool) as running:
        assert message in start(running, "inet", **{"port": "0", **parts})


@BOTH
@pytest.mark.skipif(not HAS_IPV6, reason="this host has no IPv6")
@pytest.mark.parametrize(
    ("switches", "open_to"),
    [
        ({"ipv4": False}, "::1"),
        ({"ipv6": True}, "::1"),
        ({"ipv6": False}, "127.0.0.1"),
        ({"ipv4": True}, "127.0.0.1"),
        ({"ipv4": True, "ipv6": False}, "127.0.0.1"),
    ],
)
def test_a_family_that_is_not_wanted_is_not_listened_at(
    tmp_path: Path, tool: tuple[str, ...], switches: dict[str, bool], open_to: str
) -> None:
    port = free_port()
    with daemon(tmp_path, tool=tool) as running:
        assert start(running, "inet", host="", port=str(port), **switches) == ""
        assert {host for host in ("127.0.0.1", "::1") if is_listened_at(host, port)} == {open_to}


@BOTH
@pytest.mark.skipif(not HAS_IPV6, reason="this host has no IPv6")
@pytest.mark.parametrize(
    ("host", "switches", "open_to"),
    [
        ("::", {}, {"127.0.0.1", "::1"}),
        ("::", {"ipv4": True, "ipv6": True}, {"127.0.0.1", "::1"}),
        ("::", {"ipv6": True}, {"::1"}),
        ("", {}, {"127.0.0.1", "::1"}),
        ("", {"ipv4": True, "ipv6": True}, {"127.0.0.1", "::1"}),
        ("0.0.0.0", {}, {"127.0.0.1"}),
    ],
)
def test_a_socket_of_ipv6_serves_ipv4_too(
    tmp_path: Path, tool: tuple[str, ...], host: str, switches: dict[str, bool], open_to: set[str]
) -> None:
    port = free_port()
    with daemon(tmp_path, tool=tool) as running:
        assert start(running, "inet", host=host, port=str(port), **switches) == ""
        assert {each for each in ("127.0.0.1", "::1") if is_listened_at(each, port)} == open_to


@pytest.mark.parametrize(
    ("kind", "part"), [("inet", "abstract"), ("inet", "tight"), ("inet", "foo"), ("unix", "ipv4"), ("unix", "to")]
)
def test_parts_of_another_type_of_address_are_refused(kind: str, part: str) -> None:
    place = {"inet": {"host": "127.0.0.1", "port": "9"}, "unix": {"path": "/nosuch"}}[kind]
    for client in CLIENTS:
        refused = info(client, {"server": {"type": kind, **place, part: "1" if part == "to" else "on"}})
        assert f"Parameter '{part}' is unexpected" in refused.stderr


@BOTH
def test_the_next_port_is_taken_where_one_is_in_use(tmp_path: Path, tool: tuple[str, ...]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with daemon(tmp_path, tool=tool) as running:
            place = {"host": "127.0.0.1", "port": str(port)}
            assert start(running, "inet", **place).startswith("Failed to find an available port")
            assert start(running, "inet", **place, to=min(port + 20, 65535)) == ""
            assert any(is_listened_at("127.0.0.1", each) for each in range(port + 1, port + 21))


@BOTH
@pytest.mark.parametrize("tight", [True, False])
def test_names_of_sockets_without_a_file(tmp_path: Path, tool: tuple[str, ...], tight: bool) -> None:
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    name = f"hostel-{uuid.uuid4()}"
    with daemon(tmp_path, tool=tool) as running:
        running.monitor.command("blockdev-add", driver="file", node_name="n", filename=str(tmp_path / "disk"))
        assert start(running, "unix", path=name, abstract=True, tight=tight) == ""
        running.monitor.command("block-export-add", type="nbd", id="e", node_name="n")
        place = {"type": "unix", "path": name, "abstract": True}
        for client in CLIENTS:
            assert info(client, {"server": {**place, "tight": tight}}).returncode == 0
            assert info(client, {"server": {**place, "tight": not tight}}).returncode == 1
            assert info(client, {"server": {"type": "unix", "path": name}}).returncode == 1
        running.monitor.command("nbd-server-stop")
    assert [path.name for path in tmp_path.iterdir() if path.name == name] == []


@BOTH
def test_a_client_keeps_to_the_family_it_is_told(tmp_path: Path, tool: tuple[str, ...]) -> None:
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    port = free_port()
    with daemon(tmp_path, tool=tool) as running:
        running.monitor.command("blockdev-add", driver="file", node_name="n", filename=str(tmp_path / "disk"))
        assert start(running, "inet", host="127.0.0.1", port=str(port)) == ""
        running.monitor.command("block-export-add", type="nbd", id="e", node_name="n")
        place = {"type": "inet", "host": "127.0.0.1", "port": str(port)}
        for client in CLIENTS:
            assert info(client, {"server": {**place, "ipv4": True}}).returncode == 0
            assert info(client, {"server": {**place, "ipv4": False}}).returncode == 0  # by an IPv6 socket
            refused = info(client, {"server": {**place, "host": "::1", "ipv6": False}})
            assert refused.returncode == 1
            assert "Address family for hostname not supported" in refused.stderr


@BOTH
def test_a_character_device_without_a_file(tmp_path: Path, tool: tuple[str, ...]) -> None:
    name = f"hostel-{uuid.uuid4()}"
    with daemon(tmp_path, tool=tool) as running:
        place = {"type": "unix", "data": {"path": name, "abstract": True, "tight": True}}
        backend = {"type": "socket", "data": {"addr": place, "server": True, "wait": False}}
        running.monitor.command("chardev-add", id="c", backend=backend)
        shown = {each["label"]: each["filename"] for each in running.monitor.command("query-chardev")}
        assert shown["c"] == f"disconnected:unix:{name},abstract=on,tight=on,server=on"
        address = running.monitor.command("qom-get", path="/chardevs/c", property="addr")
        assert address == {"type": "unix", "path": name, "abstract": True, "tight": True}
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(20)
            sock.connect(f"\0{name}")
    assert not (tmp_path / name).exists()


@BOTH
def test_a_character_device_looks_up_no_name_that_must_be_a_number(tmp_path: Path, tool: tuple[str, ...]) -> None:
    with daemon(tmp_path, tool=tool) as running:
        place = {"type": "inet", "data": {"host": "localhost", "port": "0", "numeric": True}}
        backend = {"type": "socket", "data": {"addr": place, "server": True, "wait": False}}
        arguments = {"id": "c", "backend": backend}
        answer = running.monitor.send(json.dumps({"execute": "chardev-add", "arguments": arguments}))
        assert "failed for localhost:0: Name or service not known" in answer["error"]["desc"]


@BOTH
def test_ports_end(tmp_path: Path, tool: tuple[str, ...]) -> None:
    words = ["--chardev", "socket,id=c,host=127.0.0.1,port=65535,to=70000,server=on,wait=off", "--monitor", "c"]
    done = subprocess.run([*tool, *words], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 1
    assert "internal error" not in done.stderr
