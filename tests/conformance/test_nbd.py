"""NBD between ours and others: nbdinfo, nbdcopy, libnbd, nbdkit, qemu-nbd, qemu-img, qemu-io, in both directions."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.extent import Status
from hostel.block.node import BlockNode
from hostel.errors import BlockError
from hostel.export.nbd.export import NbdExport
from hostel.img import create
from support.nbd import MIB, Peer, Serving, raw_disk, serving

OURS = [sys.executable, "-m", "hostel", "qemu-img"]
SIZE = 8 * MIB


def run(*words: object, code: int = 0) -> str:
    result = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == code, f"{words}: {result.stderr}{result.stdout}"
    return result.stdout


def nbdsh(script: str) -> None:
    """Run a script of libnbd's shell, with the Python that has libnbd: the distribution's."""
    words = ["nbdsh", "-c", textwrap.dedent(script)]
    environment = {**os.environ, "PATH": "/usr/bin:/bin"}
    result = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert result.returncode == 0, result.stderr


def sparse_content() -> bytes:
    rng = random.Random(5)
    content = bytearray(SIZE)
    for _ in range(20):
        offset, length = rng.randrange(SIZE // 4096) * 4096, rng.choice((4096, 65536, 300_000))
        content[offset : offset + length] = rng.randbytes(min(length, SIZE - offset))
    return bytes(content)


CONTENT = sparse_content()


def fill(node: BlockNode) -> None:
    for offset in range(0, SIZE, 4096):
        if any(CONTENT[offset : offset + 4096]):
            node.pwrite(offset, CONTENT[offset : offset + 4096])


@pytest.fixture(params=["raw", "qcow2"])
def ours(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Serving]:
    """Our server, of an image with data and holes."""
    path = str(tmp_path / "ours")
    create.create(create.plan(path, request.param, SIZE))
    with graph.open(path, request.param, read_only=False) as node:
        fill(node)
        export = NbdExport(node, shared=True, description="ours", allocation_depth=True)
        with serving(tmp_path, export) as server:
            yield server


# ---- others on our server


@pytest.mark.requires_tool("nbdinfo")
def test_nbdinfo_reads_all_that_we_offer(ours: Serving) -> None:
    found = json.loads(run("nbdinfo", "--json", ours.uri))
    assert found["protocol"] == "newstyle-fixed"
    assert found["structured"] is True
    (export,) = found["exports"]
    wanted = {
        "export-name": "",
        "description": "ours",
        "contexts": ["base:allocation", "qemu:allocation-depth"],
        "is_read_only": False,
        "can_cache": True,
        "can_df": True,
        "can_fast_zero": True,
        "can_flush": True,
        "can_fua": True,
        "can_multi_conn": True,
        "can_trim": True,
        "can_zero": True,
        "block_size_minimum": 1,
        "block_size_preferred": 4096,
        "block_size_maximum": 32 * MIB,
        "export-size": SIZE,
    }
    assert {name: export.get(name) for name in wanted} == wanted


@pytest.mark.requires_tool("nbdinfo")
def test_nbdinfo_maps_what_is_there(ours: Serving) -> None:
    position = 0
    for extent in json.loads(run("nbdinfo", "--json", "--map", ours.uri)):
        assert extent["offset"] == position
        position += extent["length"]
        if extent["type"] & 2:
            assert not any(CONTENT[extent["offset"] : position])
        else:
            assert extent["type"] == 0
    assert position == SIZE
    zeroes = [extent for extent in json.loads(run("nbdinfo", "--json", "--map", ours.uri)) if extent["type"]]
    assert sum(extent["length"] for extent in zeroes) > SIZE // 3


@pytest.mark.requires_tool("nbdcopy")
@pytest.mark.parametrize(
    "options", [(), ("--connections=4", "--threads=4"), ("--synchronous",), ("--request-size=4096",)]
)
def test_nbdcopy_copies_from_and_to_us(tmp_path: Path, ours: Serving, options: tuple[str, ...]) -> None:
    run("nbdcopy", *options, ours.uri, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == CONTENT
    other = CONTENT[::-1]
    (tmp_path / "other").write_bytes(other)
    run("nbdcopy", "--flush", *options, tmp_path / "other", ours.uri)
    run("nbdcopy", ours.uri, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == other


@pytest.mark.requires_tool("qemu-img")
def test_qemu_img_and_qemu_io_work_on_us(tmp_path: Path, ours: Serving) -> None:
    (tmp_path / "content").write_bytes(CONTENT)
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", ours.uri, tmp_path / "content")
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", ours.uri, tmp_path / "copy.qcow2")
    run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", ours.uri, tmp_path / "copy.qcow2")
    commands = (
        *("aio_write -q -P 1 0 2M", "aio_write -q -P 2 2M 2M", "aio_flush", "write -q -zu 1M 512k", "discard -q 3M 1M"),
        *("read -q -P 1 0 1M", "read -q -P 0 1M 512k", "read -q -P 1 1536k 512k", "read -q -P 2 2M 1M"),
        *("write -q -f -P 3 5M 64k", "read -q -P 3 5M 64k", "writev -q -P 4 6M 512 1k 64k", "read -q -P 4 6M 67072"),
    )
    words = [word for command in commands for word in ("-c", command)]
    run("qemu-io", "-f", "raw", "-t", "none", "-d", "unmap", *words, ours.uri)
    run("qemu-img", "bench", "-f", "raw", "-c", 500, "-d", 64, "-s", 4096, ours.uri)
    run("qemu-img", "bench", "-w", "-f", "raw", "-c", 500, "-d", 16, "-s", 65536, "--flush-interval=50", ours.uri)


@pytest.mark.requires_tool("nbdsh")
def test_libnbd_finds_every_command_as_the_protocol_has_it(ours: Serving) -> None:
    script = f"""
        import errno
        h.add_meta_context("base:allocation")
        h.connect_uri({ours.uri!r})
        size = h.get_size()
        def fails(code, call, *args, **options):
            h.set_strict_mode(0)
            try:
                call(*args, **options)
            except nbd.Error as error:
                assert error.errnum == code, error
            else:
                raise AssertionError("it was to fail")
            h.set_strict_mode(nbd.STRICT_MASK)
        h.pwrite(b"x" * 70000, 1000)
        assert h.pread(70000, 1000) == b"x" * 70000
        pieces = []
        take = lambda data, offset, kind, error: pieces.append((offset, kind))
        assert h.pread_structured(70000, 1000, take, flags=nbd.CMD_FLAG_DF) == b"x" * 70000
        assert len(pieces) == 1
        buffer = h.pread_structured(1 << 20, 0, take)
        assert len(pieces) > 1 and buffer[1000:71000] == b"x" * 70000
        h.pwrite(b"y" * 512, 0, flags=nbd.CMD_FLAG_FUA)
        h.zero(4096, 0)
        h.zero(4096, 4096, flags=nbd.CMD_FLAG_NO_HOLE)
        assert h.pread(8192, 0) == bytes(8192)
        h.trim(65536, 65536)
        h.cache(65536, 0)
        h.flush()
        extents = []
        h.block_status(size, 0, lambda context, offset, entries, error: extents.append((context, entries)))
        ((context, entries),) = extents
        assert context == "base:allocation" and sum(entries[::2]) == size
        one = []
        h.block_status(size, 0, lambda *a: one.append(a[2]), flags=nbd.CMD_FLAG_REQ_ONE)
        assert len(one[0]) == 2 and one[0][0] <= size
        fails(errno.EINVAL, h.pread, 1, size)
        fails(errno.ENOSPC, h.pwrite, b"x", size)
        fails(errno.ENOSPC, h.zero, 2, size - 1)
        fails(errno.EINVAL, h.trim, 1, size)
        fails(errno.EINVAL, h.flush, flags=nbd.CMD_FLAG_DF)
        # Many at a time, answered in any order.
        cookies = {{h.aio_pread(nbd.Buffer(4096), index * 100) for index in range(200)}}
        while cookies:
            h.poll(1000)
            cookies -= {{cookie for cookie in cookies if h.aio_command_completed(cookie)}}
        h.shutdown()
    """
    nbdsh(script)


@pytest.mark.requires_tool("nbdsh")
def test_libnbd_sees_a_disk_error_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.preadv

    def failing(fd: int, buffers: list[memoryview], offset: int, *rest: int) -> int:
        if offset <= MIB < offset + sum(map(len, buffers)):
            raise OSError(5, "Input/output error")
        return real(fd, buffers, offset, *rest)

    with raw_disk(tmp_path, CONTENT) as disk, serving(tmp_path, NbdExport(disk)) as server:
        monkeypatch.setattr(os, "preadv", failing)
        monkeypatch.delattr(os, "splice", raising=False)
        script = f"""
            h.connect_uri({server.uri!r})
            for length in (4096, 300000):
                try:
                    h.pread(length, 1 << 20)
                    raise SystemExit("it was to fail")
                except nbd.Error as error:
                    assert error.errno == "EIO", error
            h.pread(4096, 0)
        """
        nbdsh(script)


@pytest.mark.requires_tool("nbdkit")
def test_nbdkit_passes_us_on(tmp_path: Path, ours: Serving) -> None:
    # Its plugin is a client of ours, and its filter reads and writes in odd places.
    command = f"nbdcopy $uri {tmp_path / 'copy'}"
    run("nbdkit", "-U", "-", "--filter=offset", "nbd", f"uri={ours.uri}", "offset=512", "--run", command)
    assert (tmp_path / "copy").read_bytes() == CONTENT[512:]


# ---- our client on others


@contextlib.contextmanager
def other(folder: Path, *words: object) -> Iterator[str]:
    """Another's server on a Unix socket; its URI, once it answers."""
    path = folder / "other.sock"
    arguments = [str(word).format(socket=path) for word in words]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    with Peer(path) as peer:
                        peer.receive(16)
                    break
                except (OSError, AssertionError):
                    assert process.poll() is None, process.stderr and process.stderr.read()
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
            yield f"nbd+unix:///?socket={path}"
        finally:
            process.kill()  # nbdkit waits for its clients when it is asked to end
            process.wait(20)


def check(uri: str, *, size: int = SIZE) -> None:
    """Write, zero and read at random, and compare with bytes."""
    rng = random.Random(7)
    expected = bytearray(size)
    with graph.open(uri, "raw", read_only=False) as node:
        assert node.length == size
        for _ in range(40):
            offset = rng.randrange(size)
            length = min(rng.choice((1, 512, 5000, 300_000, 3 * MIB)), size - offset)
            if rng.random() < 0.3:
                node.write_zeroes(offset, length, unmap=rng.random() < 0.5)
                expected[offset : offset + length] = bytes(length)
            else:
                data = rng.randbytes(length)
                node.pwrite(offset, data)
                expected[offset : offset + length] = data
        node.flush()
        assert node.read(0, size) == expected
        position = 0
        for extent in node.extents():
            assert extent.offset == position
            position = extent.end
            assert not extent.status & Status.ZERO or not any(expected[extent.offset : position])
        assert position == size
        node.discard(0, size)


@pytest.mark.requires_tool("qemu-nbd")
@pytest.mark.parametrize("options", ["-f raw", "-f qcow2", "-f raw --discard=unmap -e 4"])
def test_our_client_on_qemu_nbd(tmp_path: Path, options: str) -> None:
    format = options.split()[1]
    run("qemu-img", "create", "-q", "-f", format, tmp_path / "disk", SIZE)
    with other(tmp_path, "qemu-nbd", *options.split(), "-t", "-k", "{socket}", tmp_path / "disk") as uri:
        check(uri)


@pytest.mark.requires_tool("nbdkit")
@pytest.mark.parametrize(
    "options",
    [
        "memory 8M",
        "--no-sr memory 8M",
        "--mask-handshake=0 memory 8M",
        "--filter=nozero memory 8M",
        "--filter=noextents memory 8M",
        "--filter=fua memory 8M fuamode=emulate",
        "--filter=blocksize-policy memory 8M blocksize-minimum=4096 blocksize-maximum=64k blocksize-error-policy=error",
        "--filter=delay memory 8M rdelay=1ms wdelay=1ms",
    ],
)
def test_our_client_on_nbdkit(tmp_path: Path, options: str) -> None:
    words = options.split()
    with other(tmp_path, "nbdkit", "-f", "-U", "{socket}", *words) as uri:
        check(uri)


@pytest.mark.requires_tool("nbdkit")
def test_our_client_on_a_server_of_the_old_style(tmp_path: Path) -> None:
    words = ("nbdkit", "-f", "-U", "{socket}", "--oldstyle", "memory", "8M")
    with other(tmp_path, *words) as uri, graph.open(uri, "raw", read_only=False) as node:
        node.pwrite(100, CONTENT[: 3 * MIB])
        assert node.read(0, SIZE) == bytes(100) + CONTENT[: 3 * MIB] + bytes(SIZE - 100 - 3 * MIB)


@pytest.mark.requires_tool("nbdkit")
def test_extents_of_nbdkit_are_found(tmp_path: Path) -> None:
    words = ("nbdkit", "-f", "-U", "{socket}", "data", "@1048576 ( 0x55 )*65536", "size=8M")
    with other(tmp_path, *words) as uri, graph.open(uri, "raw") as node:
        data = [(extent.offset, extent.length) for extent in node.extents() if extent.status & Status.DATA]
        assert data == [(MIB, 65536)]


@pytest.mark.requires_tool("nbdkit")
@pytest.mark.parametrize("size", [513, 1000, 3 * 65536 + 100])
@pytest.mark.parametrize("server", ["--filter=noextents", "--no-sr", "-r"])
@pytest.mark.parametrize(
    "ways", ["--output=json", "--output=json -s 1", "--output=json -l 600", "--output=json -s 514", ""]
)
def test_a_disk_of_no_whole_sectors_is_mapped_as_by_qemu_img(tmp_path: Path, size: int, server: str, ways: str) -> None:
    with other(tmp_path, "nbdkit", "-f", "-U", "{socket}", server, "data", "@10 ( 0x55 )*300", f"size={size}") as uri:
        words = ["map", "-f", "raw", *ways.split(), uri]
        said = [
            subprocess.run([*tool, *words], capture_output=True, text=True, timeout=60, check=True).stdout
            for tool in ((sys.executable, "-m", "hostel", "qemu-img"), ("qemu-img",))
        ]
        assert said[0] == said[1]


@pytest.mark.requires_tool("nbdkit")
def test_errors_of_nbdkit_are_errors_with_their_numbers(tmp_path: Path) -> None:
    words = ("nbdkit", "-f", "-U", "{socket}", "--filter=error", "memory", "8M")
    rates = ("error=ENOSPC", "error-pwrite-rate=100%", "error-pread-rate=0%")
    with other(tmp_path, *words, *rates) as uri, graph.open(uri, "raw", read_only=False) as node:
        with pytest.raises(BlockError, match="failed to write") as caught:
            node.pwrite(0, b"x" * MIB)
        assert caught.value.errno == 28
        assert node.read(0, 10) == bytes(10)


@pytest.mark.requires_tool("nbdkit")
@pytest.mark.parametrize("tool", [["qemu-img"], OURS], ids=["real", "ours"])
@pytest.mark.parametrize(
    ("fault", "said", "line"),
    [
        ("pwrite", "write", "convert -n -f raw -O raw {disk} {uri}"),
        ("pwrite", "write", "dd -f raw -O raw if={disk} of={uri}"),
        ("zero", "write zeroes", "convert -n -f raw -O raw {disk} {uri}"),
        ("pread", "read", "convert -f raw -O qcow2 {uri} {out}"),
        ("extents", "tell the block status", "convert -f raw -O qcow2 {uri} {out}"),
    ],
)
def test_a_copy_that_a_server_fails_is_a_failure(
    tmp_path: Path, fault: str, said: str, line: str, tool: list[str]
) -> None:
    # CVE-2022-0485: nbdcopy told of no error.
    (tmp_path / "disk").write_bytes(CONTENT)
    server = ("--filter=error", "data", "@1048576 ( 0x55 )*65536", "size=8M", f"error-{fault}-rate=100%")
    with other(tmp_path, "nbdkit", "-f", "-U", "{socket}", *server) as uri:
        words = line.format(disk=tmp_path / "disk", out=tmp_path / "out", uri=uri).split()
        ended = subprocess.run([*tool, *words], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1, ended.stderr
    assert "Input/output error" in ended.stderr
    if tool is OURS:
        assert f"failed to {said}: Input/output error" in ended.stderr
        assert not (tmp_path / "out").exists()


@pytest.mark.requires_tool("nbdkit")
def test_nbdkit_that_dies_is_an_error_and_not_a_hang(tmp_path: Path) -> None:
    with other(tmp_path, "nbdkit", "-f", "-U", "{socket}", "memory", "8M") as uri:
        node = graph.open(uri, "raw")
        assert node.read(0, 10) == bytes(10)
    with pytest.raises(BlockError, match="was lost"):
        node.read(0, 10)
    node.close()


@pytest.mark.requires_tool("nbdkit")
def test_a_size_of_no_whole_sector(tmp_path: Path) -> None:
    with other(tmp_path, "nbdkit", "-f", "-U", "{socket}", "memory", "1000") as uri, graph.open(uri, "raw") as node:
        assert node.length == 1024
        assert node.read(0, 1024) == bytes(1024)
        assert sum(extent.length for extent in node.extents()) == 1024
