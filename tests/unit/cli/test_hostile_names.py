"""Images that name a file of the host, where nobody may follow: none of the tools does, in whatever way it is asked.

Said to be raw, an image is its bytes, whatever they begin with; not trusted, it is refused, by ``inspect`` too.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hostel.block import graph
from hostel.block.registry import format_driver
from hostel.block.trust import Trust
from hostel.cli.main import main
from hostel.errors import BlockError
from hostel.img.inspect import inspect
from hostel.img.inspection import Level
from support import hostile, vmdk
from support.bounded import bounded
from support.memory import MemoryDriver, memory_node

MIB = 1 << 20
SECRET = "secret"


def _over(format: str, name: str) -> bytes:
    driver = MemoryDriver()
    options = {"backing_file": name}
    format_driver(format).create(memory_node(driver), MIB, options)  # type: ignore[attr-defined]
    return bytes(driver.data)


def _data_file(name: str) -> bytes:
    """An image of version 3 whose data is in another file."""
    extension = struct.pack(">II", 0x44415441, len(name)) + name.encode() + bytes(-len(name) % 8)
    return (hostile.header(incompatible=4) + extension).ljust(512, b"\0") + hostile.CLUSTERS


def _vmdk(line: str, **fields: str) -> bytes:
    return vmdk.descriptor("monolithicFlat", line, **fields).encode()


IMAGES: dict[str, Callable[[str], bytes]] = {
    "CVE-2008-2004 qcow2": lambda name: hostile.naming(name.encode()),
    "CVE-2015-5163 qcow2, absolute": lambda name: hostile.naming(os.path.abspath(name).encode()),
    "CVE-2024-4467 qcow2, json": lambda name: hostile.naming(b'json:{"driver":"file","filename":"%s"}' % name.encode()),
    "CVE-2024-4467 qcow2, nbd": lambda name: hostile.naming(b"nbd+unix:///?socket=" + name.encode()),
    "CVE-2024-32498 data file": _data_file,
    "CVE-2024-4467 data file, json": lambda name: _data_file(f'json:{{"driver":"file","filename":"{name}"}}'),
    "CVE-2008-2004 qcow": lambda name: _over("qcow", name),
    "qed": lambda name: _over("qed", name),
    "CVE-2022-47951 vmdk": lambda name: _vmdk(f'RW 2048 FLAT "{name}" 0'),
    "CVE-2022-47951 vmdk, absolute": lambda name: _vmdk(f'RW 2048 FLAT "{os.path.abspath(name)}" 0'),
    "vmdk, parent": lambda name: _vmdk('RW 2048 FLAT "image" 0', hint=name, parent_cid="12345678"),
}
# CVE-2008-2004, CVE-2024-40767, CVE-2026-24708: what a guest made of a disk that is said to be raw.
RAW = (
    "qemu-img info -f raw image",
    "qemu-img info --image-opts driver=raw,file.filename=image",
    "qemu-img convert -f raw -O raw image copy",
    "qemu-img convert -f raw -O qcow2 image copy",
    "qemu-img dd -f raw -O raw if=image of=copy bs=64k",
    "qemu-img compare -f raw -F raw image image",
    "qemu-img map -f raw image",
    "qemu-img measure -f raw -O qcow2 image",
    "qemu-io -f raw -c 'read 0 512' -c 'write 1k 512' image",
    "qemu-img resize -f raw image 8M",
    # CVE-2010-2237: a link in the middle of a chain
    "qemu-img create -q -f qcow2 -b image -F raw copy",
    "qemu-img convert -O raw top copy",
)


def touched(call: Callable[[], Any]) -> list[str]:
    """The files that a call opens and the sockets that it connects to, of those that are called the secret."""
    found: list[str] = []

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if event in ("open", "socket.connect") and SECRET in str(given):
            found.append(f"{event} {given}")

    def in_child() -> list[str]:
        sys.addaudithook(hook)
        call()
        return found

    return bounded(in_child, memory=256 * MIB, seconds=120)


@pytest.fixture(params=IMAGES)
def data(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """An image, which lies in the present directory beside what it names."""
    monkeypatch.chdir(tmp_path)
    Path(SECRET).write_bytes(b"root:x:0:0\n".ljust(MIB, b"s"))
    made = IMAGES[request.param](SECRET).ljust(4096, b"\0")
    Path("image").write_bytes(made)
    return made


def _run(line: str, data: bytes) -> None:
    Path("image").write_bytes(data)
    Path("copy").unlink(missing_ok=True)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main(["hostel", *shlex.split(line)])
    assert code == 0, (line, said.getvalue())
    assert b"root:x" not in Path("image").read_bytes()
    if line.endswith("copy") and "qcow2" not in line:
        assert Path("copy").read_bytes().rstrip(b"\0") == data.rstrip(b"\0"), line


def test_a_disk_that_is_said_to_be_raw_is_its_bytes(data: bytes) -> None:
    def every_way() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            assert main(shlex.split("hostel qemu-img create -q -f qcow2 -b image -F raw top")) == 0
        for line in RAW:
            _run(line, data)

    assert touched(every_way) == []


def test_an_image_that_is_trusted_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(SECRET).write_bytes(bytes(MIB))
    Path("image").write_bytes(hostile.naming(SECRET.encode()))
    assert any(SECRET in each for each in touched(lambda: graph.open("image").close()))


def test_an_image_that_is_not_trusted_is_refused_and_what_it_names_not_touched(data: bytes) -> None:
    def looked_at() -> None:
        for format in (None, inspect("image").format):
            with pytest.raises(BlockError, match=r"is not trusted|no known format|must be a plain path"):
                graph.open("image", format, trust=Trust.UNTRUSTED)
        for expected in (None, "raw", "qcow2", "vmdk"):
            assert inspect("image", expected=expected).verdict is Level.UNSAFE

    assert touched(looked_at) == []
