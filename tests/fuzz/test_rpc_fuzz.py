"""Noise from clients of the daemon: an error or a closed connection, and everybody else is served as if nothing was."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostel.codec.xdr import split_type
from hostel.errors import HostelError
from hostel.wire.rpc.packet import HEADER, Splitter, frame
from hostel.wire.rpc.programs import LXC, PROGRAMS, QEMU, REMOTE
from hostel.wire.rpc.table.types import TYPES
from support import hosteld
from support.hosteld import RawClient

ROUNDS = 40
# What ends the connection for good, which is no mistake; what would put this host to sleep, or change its memory.
LEFT_OUT = {"connect_close", "node_suspend_for_duration", "node_alloc_pages", "node_set_memory_parameters"}
CALLS = [procedure for procedure in REMOTE.by_number.values() if not procedure.event and procedure.name not in LEFT_OUT]
TEXTS = ["", "test", "default", "default-pool", "x" * 300, "<domain>", "<a/>", "/dev/null", "../..", "é\udcff", "%s%n"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("rpc")
    with hosteld.thread(path):
        yield path


def works(folder: Path) -> bool:
    with RawClient(folder / "s") as client:
        client.open()
        return bool(client.call("domain_lookup_by_name", "test")[0].id == 1)


def made_up(kind: str, rng: random.Random) -> Any:
    """A value that a type allows, near its edges."""
    item, mark, bound = split_type(kind)
    if mark == "?":
        return rng.choice((None, made_up(item, rng)))
    if item in ("bytes", "chars"):
        return rng.randbytes(bound if mark == "[" else rng.choice((0, 1, min(bound, 99))))
    if mark:
        return [made_up(item, rng) for _ in range(bound if mark == "[" else rng.choice((0, 1, min(bound, 5))))]
    if kind.startswith(("i", "u")) and kind[1:].isdigit():
        bits = max(32, int(kind[1:]))
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if kind[0] == "i" else (0, 2**bits - 1)
        return rng.choice((0, 1, 2, 3, low, high, rng.randint(low, high)))
    if kind == "f64":
        return rng.choice((0.0, float("nan"), float("inf"), -1.5))
    if kind == "str":
        return rng.choice(TEXTS)
    if kind == "uuid":
        return rng.choice((bytes(16), bytes.fromhex("6695eb01f6a4830479aa97f2502e193f"), rng.randbytes(16)))
    if kind == "typed_value":
        number, of = rng.choice([(1, "i32"), (2, "u32"), (3, "i64"), (4, "u64"), (5, "f64"), (6, "i32"), (7, "str")])
        return number, made_up(of, rng)
    return tuple(made_up(field.type, rng) for field in TYPES.fields(kind))


@pytest.mark.parametrize("uri", ["test:///default", "qemu:///session"])
@pytest.mark.parametrize("procedure", CALLS, ids=lambda procedure: procedure.name)
def test_every_call_with_values_at_the_edges_is_answered(folder: Path, procedure: Any, uri: str) -> None:
    rng = random.Random(procedure.number)
    with RawClient(folder / "s") as client:
        client.open(uri)
        for _ in range(6):
            arguments = [made_up(field.type, rng) for field in procedure.arguments.fields]
            reply = client.reply_to(client.begin(procedure.name, *arguments))
            # What is our own mistake is told so.
            assert reply.error is None or "the daemon's log says more" not in reply.error.message


@pytest.mark.parametrize("seed", range(8))
def test_packets_of_noise(folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(ROUNDS):
        with contextlib.suppress(OSError, HostelError, EOFError), RawClient(folder / "s") as client:
            client.socket.settimeout(1)
            if rng.random() < 0.7:
                client.open()
            for _ in range(rng.randrange(1, 12)):
                body = bytes(rng.choices((0, 0, 0, 1, 4, 16, 65, 128, 255), k=rng.choice((0, 4, 8, 20, 28, 60, 200))))
                program = rng.choice((*PROGRAMS, QEMU.number, LXC.number, 0x6B656570, rng.randrange(2**32)))
                data = frame(
                    program,
                    rng.randrange(-2, 450),
                    rng.choice((0, 0, 0, 0, 3, 6, 4)),
                    rng.randrange(9),
                    rng.choice((0, 0, 0, 1, 2)),
                    body,
                )
                client.socket.sendall(data if rng.random() < 0.9 else data[: rng.randrange(len(data))])
    assert works(folder)


@pytest.mark.parametrize("seed", range(8))
def test_changed_bytes_of_good_calls(folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(ROUNDS):
        with contextlib.suppress(OSError, HostelError, EOFError), RawClient(folder / "s") as client:
            client.socket.settimeout(1)
            client.open()
            for _ in range(6):
                procedure = rng.choice(CALLS)
                arguments = [made_up(field.type, rng) for field in procedure.arguments.fields]
                data = bytearray(client.machine.call(REMOTE, procedure, arguments)[1])
                for _ in range(rng.randrange(4)):
                    data[rng.randrange(4 if rng.random() < 0.95 else 0, len(data))] = rng.choice((0, 1, 127, 255))
                client.socket.sendall(data)
    assert works(folder)


@pytest.mark.parametrize("seed", range(20))
def test_streams_of_noise(tmp_path: Path, seed: int) -> None:
    """Uploads and downloads whose client says anything: holes, ends, aborts, packets of other streams."""
    rng = random.Random(seed)
    with hosteld.thread(tmp_path, streams=4) as daemon, RawClient(tmp_path / "s") as client:
        client.open("qemu:///session")
        xml = f"<pool type='dir'><name>p</name><target><path>{tmp_path}/pool</path></target></pool>"
        (pool,) = client.call("storage_pool_create_xml", xml, 1)
        volumes: list[Any] = []
        for name in "abc":
            text = f"<volume><name>{name}</name><capacity>100000</capacity></volume>"
            volumes += client.call("storage_vol_create_xml", pool, text, 0)
        with contextlib.suppress(OSError, HostelError, EOFError):
            for _ in range(30):
                name = rng.choice(("storage_vol_upload", "storage_vol_download"))
                call = client.begin(
                    name, rng.choice(volumes), rng.choice((0, 7, 2**62)), rng.choice((0, 5)), rng.randrange(2)
                )
                frames = client.frames(call)
                for _ in range(rng.randrange(6)):
                    client.socket.sendall(
                        rng.choice(
                            (
                                frames.data_header(9) + b"123456789", frames.data_header(0), frames.hole(100),
                                frames.hole(0), frames.finish(), frames.abort(),
                                frames._replace(serial=rng.randrange(50)).finish(),
                            )
                        )
                    )  # fmt: skip
        client.socket.close()
        with RawClient(tmp_path / "s") as other:
            assert other.open("qemu:///session").call("storage_pool_num_of_volumes", pool) == (3,)
        assert daemon.workers.threads <= daemon.config.limits.workers + 5


@pytest.mark.parametrize("seed", range(30))
def test_splitter_never_holds_more_than_a_message(seed: int) -> None:
    rng = random.Random(seed)
    splitter = Splitter(limit=4096)
    with contextlib.suppress(HostelError):
        for _ in range(200):
            length = rng.choice((HEADER.size, 40, 4096, rng.randrange(5000)))
            data = length.to_bytes(4, "big") + rng.randbytes(max(0, length - 4))
            for start in range(0, len(data), 700):
                splitter.feed(data[start : start + 700])
                room = splitter.room()
                assert room is None or len(room) <= 4096
