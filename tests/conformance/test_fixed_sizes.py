"""Images in what has a size of its own, a block device or an NBD export: laid out, filled, full; real tools judge."""

from __future__ import annotations

import contextlib
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from hostel.cli.main import run_tool
from support import loop
from support.daemon import listens
from support.image import qemu_img, real_qemu_img
from support.process import end

MIB = 1 << 20
SIZE = 4 * MIB
HAS_NO_CHECK = 63

Place = Callable[[Path, bytes], AbstractContextManager[str]]


@contextlib.contextmanager
def device(folder: Path, content: bytes) -> Iterator[str]:
    """A block device with a content; gives its name."""
    with loop.device(folder / "backing", len(content)) as name:
        Path(name).write_bytes(content)
        yield name


@contextlib.contextmanager
def export(folder: Path, content: bytes) -> Iterator[str]:
    """A real server's export with a content; gives its name."""
    disk, socket = folder / "exported", folder / "socket"
    disk.write_bytes(content)
    words = ["qemu-nbd", "-t", "-e", "5", "-f", "raw", "-k", str(socket), str(disk)]
    with subprocess.Popen(words) as server:
        try:
            until = time.monotonic() + 60
            while not listens(socket):
                assert server.poll() is None
                assert time.monotonic() < until
                time.sleep(0.01)
            yield f"nbd+unix:///?socket={socket}"
        finally:
            end(server)


@pytest.fixture(params=["device", "export"])
def place(request: pytest.FixtureRequest) -> Place:
    if request.param == "device" and not loop.may_attach():
        pytest.skip("needs root and loop devices")
    return device if request.param == "device" else export


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw image with data here and there."""
    path = tmp_path_factory.mktemp("source") / "source.raw"
    with path.open("wb") as file:
        file.truncate(SIZE)
        for offset in (0, MIB + 512, SIZE - 5000):
            file.seek(offset)
            file.write(random.Random(offset).randbytes(5000))
    return path


@pytest.mark.parametrize("format", ["qcow2", "vdi", "vhdx", "vpc", "parallels"])
def test_an_image_is_laid_out_in_what_is_there(tmp_path: Path, place: Place, source: Path, format: str) -> None:
    garbage = random.Random(1).randbytes(MIB) * 16
    with place(tmp_path, garbage) as name:
        qemu_img("convert", "-f", "raw", "-O", format, source, name)
        assert "identical" in real_qemu_img("compare", "-f", "raw", "-F", format, source, name)


@pytest.mark.parametrize("format", ["qcow2", "vdi", "vhdx", "vpc", "parallels", "vmdk", "qcow", "qed"])
def test_what_is_full_says_so_and_stays_as_it_was(
    tmp_path: Path, place: Place, source: Path, format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    real_qemu_img("create", "-f", format, empty, str(SIZE))
    content = empty.read_bytes()
    with place(tmp_path, content.ljust(-(-len(content) // 512) * 512, b"\0")) as name:
        assert run_tool("qemu-img", ["convert", "-n", "-f", "raw", "-O", format, str(source), name]) == 1
        assert "error while writing at byte 0: No space left on device" in capsys.readouterr().err
        assert run_tool("qemu-img", ["resize", "-f", "raw", name, "64M"]) == 1
        assert "Cannot resize" in capsys.readouterr().err
        real_qemu_img("compare", "-f", format, "-F", format, empty, name)
        checked = subprocess.run(
            ["qemu-img", "check", "-f", format, name], capture_output=True, check=False, timeout=60
        )
        assert checked.returncode in (0, HAS_NO_CHECK), checked.stdout


def test_what_is_as_long_as_its_file_is_refused(
    tmp_path: Path, place: Place, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = b"before" * 256
    with place(tmp_path, before) as name:
        assert run_tool("qemu-img", ["create", "-f", "qed", name, "1M"]) == 1
        assert "Cannot resize" in capsys.readouterr().err
        real_qemu_img("dd", "-f", "raw", "-O", "raw", f"if={name}", f"of={tmp_path / 'after'}")
    assert (tmp_path / "after").read_bytes() == before
