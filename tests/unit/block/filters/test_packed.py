"""The filters gzip, xz and zstd: compressed files read as what is in them, and files that are refused."""

from __future__ import annotations

import gzip
import lzma
import os
import random
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.filters.packed import driver as driver_module
from hostel.block.filters.packed.spool import Spool
from hostel.block.probe import detect
from hostel.errors import BlockError, CorruptImage, InvalidImage, NoSpace, ReadOnly, UnsupportedFeature
from support.bounded import bounded
from support.formats import good, ours

zstandard = pytest.importorskip("zstandard")
RANDOM = random.Random("packed")
CONTENT = b"".join(RANDOM.choice((RANDOM.randbytes(4096), bytes(70_000))) for _ in range(40))


def pieces(length: int = 100_000) -> list[bytes]:
    return [CONTENT[at : at + length] for at in range(0, len(CONTENT), length)]


def xz_blocks(parts: list[bytes], check: int = lzma.CHECK_CRC64) -> bytes:
    """One stream of several blocks, which Python's own module cannot write."""
    body, records, head = b"", b"", b""
    for part in parts:
        whole = lzma.compress(part, check=check, preset=0)
        head = whole[:12]
        size = (int.from_bytes(whole[-8:-4], "little") + 1) * 4
        index = whole[-12 - size : -12]
        body += whole[12 : -12 - size]
        count, used = 1, index[2:-4]
        # The record's two numbers, without what fills the index up.
        end, seen = 0, 0
        while seen < 2:
            seen += not used[end] & 0x80
            end += 1
        assert index[1] == count
        records += used[:end]
    index = b"\0" + number(len(parts)) + records
    index += bytes(-len(index) % 4)
    index += struct.pack("<I", zlib.crc32(index))
    fields = struct.pack("<I", len(index) // 4 - 1) + head[6:8]
    return head + body + index + struct.pack("<I", zlib.crc32(fields)) + fields + b"YZ"


def number(value: int) -> bytes:
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def zstd(part: bytes, **options: bool) -> bytes:
    return bytes(zstandard.ZstdCompressor(write_checksum=True, **options).compress(part))


PACKED: dict[str, tuple[str, Callable[[], bytes], bool]] = {
    # filter, file, whether it has parts
    "gzip": ("gzip", lambda: gzip.compress(CONTENT), False),
    "gzip of several members": ("gzip", lambda: b"".join(map(gzip.compress, pieces())) + bytes(1000), False),
    "xz": ("xz", lambda: lzma.compress(CONTENT), True),
    "xz of several blocks": ("xz", lambda: xz_blocks(pieces()), True),
    "xz of several streams": ("xz", lambda: b"".join(lzma.compress(part) + bytes(8) for part in pieces()), True),
    "xz with another check": ("xz", lambda: xz_blocks(pieces(), lzma.CHECK_SHA256), True),
    "zstd": ("zstd", lambda: zstd(CONTENT), True),
    "zstd of several frames": ("zstd", lambda: b"".join(map(zstd, pieces())), True),
    "zstd with frames to skip": (
        "zstd",
        lambda: b"".join(struct.pack("<II", 0x184D2A5E, 5) + b"12345" + zstd(part) for part in pieces()),
        True,
    ),
    "zstd of unknown length": ("zstd", lambda: zstd(CONTENT, write_content_size=False), False),
}


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize("case", PACKED)
def test_any_range_of_what_is_in_it_can_be_read(tmp_path: Path, case: str) -> None:
    name, make, has_parts = PACKED[case]
    with graph.open(f"{name}:{write(tmp_path / 'a', make())}", "raw") as node:
        assert node.file is not None
        assert (node.file.format, node.file.length) == (name, -(-len(CONTENT) // 512) * 512)
        assert (node.file.driver._spool is None) == has_parts  # type: ignore[attr-defined]
        for _ in range(60):
            start = RANDOM.randrange(len(CONTENT))
            length = RANDOM.randrange(1, min(300_000, len(CONTENT) - start + 1))
            assert node.read(start, length) == CONTENT[start : start + length]
        assert node.read(0, len(CONTENT)) == CONTENT


@pytest.mark.parametrize("case", ["xz", "zstd"])
def test_large_parts_are_unpacked_once_into_a_file_without_a_name(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "_MAX_UNIT", 1000)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "temporary").mkdir()
    name, make, _ = PACKED[case]
    with graph.open(f"{name}:{write(tmp_path / 'a', make())}", "raw") as node:
        assert node.file is not None
        spool = node.file.driver._spool  # type: ignore[attr-defined]
        assert isinstance(spool, Spool) and spool.fill(0) == 0, "nothing was wanted yet"
        assert node.read(len(CONTENT) - 5000, 5000) == CONTENT[-5000:]
        assert node.read(10, 5000) == CONTENT[10:5010]
        assert not list((tmp_path / "temporary").iterdir())
        assert os.fstat(spool._file.fileno()).st_blocks * 512 < len(CONTENT) * 2 // 3, "zeroes take space"


def test_an_image_is_recognised_in_its_wrapper_and_never_unpacked_unasked(tmp_path: Path) -> None:
    disk = write(tmp_path / "disk", CONTENT[: len(CONTENT) // 512 * 512])
    good(ours("convert", "-f", "raw", "-O", "qcow2", disk, tmp_path / "a.qcow2"))
    for name, pack in (("gzip", gzip.compress), ("xz", lzma.compress), ("zstd", zstd)):
        packed = write(tmp_path / name, pack((tmp_path / "a.qcow2").read_bytes()))
        with graph.open(f"{name}:{packed}") as node:
            assert (node.format, node.filename) == ("qcow2", f"{name}:{packed}")
            assert node.read(0, node.length) == CONTENT[: node.length]
        # A guest may write such a magic into its disk.
        assert detect(Path(packed).read_bytes()[:512], packed) == "raw"


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("xz", lzma.compress), ("zstd", zstd)])
def test_a_part_of_a_sector_is_filled_up_with_zeroes(tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    with graph.open(f"{name}:{write(tmp_path / 'a', pack(CONTENT[:1000]))}", "raw") as node:
        assert node.length == 1024
        assert node.read(0, 1024) == CONTENT[:1000] + bytes(24)
        assert node.read(1010, 14) == bytes(14)


def test_threads_read_at_once(tmp_path: Path) -> None:
    for case in ("xz of several blocks", "gzip"):
        name, make, _ = PACKED[case]
        wrong: list[int] = []
        with graph.open(f"{name}:{write(tmp_path / 'a', make())}", "raw") as node:

            def work(seed: int, node: object = node, wrong: list[int] = wrong) -> None:
                rng = random.Random(seed)
                for _ in range(20):
                    start = rng.randrange(len(CONTENT) - 5000)
                    if node.read(start, 5000) != CONTENT[start : start + 5000]:  # type: ignore[attr-defined]
                        wrong.append(start)

            threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
        assert not wrong


def test_it_cannot_be_written(tmp_path: Path) -> None:
    path = write(tmp_path / "a", gzip.compress(CONTENT))
    with pytest.raises(ReadOnly, match="Image is read-only"):
        graph.open(f"gzip:{path}", "raw", read_only=False)


def test_a_file_that_holds_too_much_is_refused_before_the_disk_is_full(tmp_path: Path) -> None:
    path = write(tmp_path / "a", gzip.compress(bytes(1 << 25)))
    options = f'{{"driver": "gzip", "file": {{"driver": "file", "filename": "{path}"}}, "unpacked-limit": "16M"}}'
    with pytest.raises(NoSpace, match="The file holds more than 16777216 bytes") as caught:
        graph.open(f"json:{options}")
    assert "unpacked-limit" in str(caught.value.hint)
    with graph.open("json:" + options.replace("16M", "32M")) as node:
        assert node.length == 1 << 25


def test_a_temporary_file_without_room_is_said_to_be_what_is_full(tmp_path: Path) -> None:
    path = write(tmp_path / "a", gzip.compress(RANDOM.randbytes(1 << 20) * 4))

    def attempt() -> tuple[str, str | None]:
        with pytest.raises(NoSpace) as caught:
            graph.open(f"gzip:{path}", "raw")
        return str(caught.value), caught.value.hint

    message, hint = bounded(attempt, file_size=1 << 20)
    assert message.startswith("The temporary file in '") and message.endswith(
        "cannot hold what is unpacked: File too large"
    )
    assert hint is not None and "TMPDIR" in hint


def broken(data: bytes, at: int, value: int | None = None) -> bytes:
    out = bytearray(data)
    out[at] = out[at] ^ 0xFF if value is None else value
    return bytes(out)


GZIP, XZ, ZSTD = gzip.compress(CONTENT), xz_blocks(pieces()), zstd(CONTENT)
HOSTILE: dict[str, tuple[str, bytes, str]] = {
    "no gzip": ("gzip", b"nonsense", "No gzip member begins where one should"),
    "gzip cut off": ("gzip", GZIP[:-100], "A gzip member is cut off"),
    "gzip cut off in its checksum": ("gzip", GZIP[:-3], "A gzip member is cut off"),
    "gzip with a wrong checksum": ("gzip", broken(GZIP, -6), "A gzip member is broken"),
    "gzip with a wrong length": ("gzip", broken(GZIP, -2), "A gzip member is broken"),
    "gzip and something else": ("gzip", GZIP + b"more", "No gzip member begins where one should"),
    "no xz": ("xz", b"nonsense" * 10, "does not end as an xz file does"),
    "nothing of xz": ("xz", b"", "The xz file is empty"),
    "xz of zeroes": ("xz", bytes(2 << 20), "does not end as an xz file does"),
    "xz cut off": ("xz", XZ[:-4], "does not end as an xz file does"),
    "xz with a broken footer": ("xz", broken(XZ, -12), "does not end as an xz file does"),
    "xz with a broken index": ("xz", broken(XZ, -20), r"The xz index at .* is broken"),
    "xz without its start": ("xz", XZ[4:], "does not lead to the start of a stream"),
    "no zstd": ("zstd", b"nonsense", "No zstd frame begins at 0x0"),
    "nothing of zstd": ("zstd", b"", "The zstd file is empty"),
    "zstd cut off": ("zstd", ZSTD[:-10], "The zstd file is cut off"),
    "zstd to be skipped beyond the end": ("zstd", ZSTD + struct.pack("<II", 0x184D2A50, 1 << 30), "cut off"),
    "zstd and something else": ("zstd", ZSTD + b"more", "No zstd frame begins at"),
    "zstd of a kind unknown": ("zstd", ZSTD[:9] + b"\xff\xff\xff" + ZSTD[12:], "is of no known kind"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused(tmp_path: Path, case: str) -> None:
    name, data, message = HOSTILE[case]
    with pytest.raises((InvalidImage, CorruptImage), match=message):
        graph.open(f"{name}:{write(tmp_path / 'a', data)}", "raw")


def test_an_index_that_asks_for_memory_is_refused(tmp_path: Path) -> None:
    fields = struct.pack("<I", 0xFFFFFFFF) + b"\0\4"
    data = XZ + bytes(40) + struct.pack("<I", zlib.crc32(fields)) + fields + b"YZ"
    with pytest.raises(InvalidImage, match="The index of 17179869184 bytes is too large"):
        graph.open(f"xz:{write(tmp_path / 'a', data)}", "raw")


def test_a_frame_that_needs_a_dictionary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFeature, match="needs a dictionary"):
        graph.open(f"zstd:{write(tmp_path / 'a', ZSTD[:4] + bytes([ZSTD[4] | 1, 7]) + ZSTD[5:])}", "raw")


@pytest.mark.parametrize("name", ["xz", "zstd"])
def test_a_part_that_is_broken_cannot_be_read_and_others_can(tmp_path: Path, name: str) -> None:
    parts = [zstd(part) for part in pieces()]
    whole = b"".join(parts) if name == "zstd" else XZ
    sixth = lzma.compress(pieces()[5], preset=0)[24:200]
    middle = len(b"".join(parts[:5])) + 200 if name == "zstd" else XZ.index(sixth) + 50
    with graph.open(f"{name}:{write(tmp_path / 'a', broken(whole, middle))}", "raw") as node:
        assert node.read(0, 100_000) == CONTENT[:100_000]
        with pytest.raises(BlockError, match=r"The (zstd frame|xz block) at 0x"):
            node.read(500_000, 100)
        assert node.read(len(CONTENT) - 100, 100) == CONTENT[-100:]
