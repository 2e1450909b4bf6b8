"""Zeroes that our ``qemu-io`` and the real one write, or refuse where they would take as long as other bytes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from support.qemu_io import OURS, both, commands, run

pytestmark = [pytest.mark.requires_tool("qemu-io"), pytest.mark.requires_tool("qemu-img")]


def bytes_of(disk: Path) -> bytes:
    raw = disk.with_suffix(".raw")
    subprocess.run(
        ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", disk.name, raw.name],
        cwd=disk.parent,
        check=True,
        timeout=60,
    )
    return raw.read_bytes()


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_zeroes_that_are_not_to_be_written_out(tmp_path: Path, format: str) -> None:
    lines = commands(
        "write -P 1 0 1M", "write -z -n 0 64k", "write -z -n -u 64k 64k", "write -z -n 1k 512", "read -v 0 16"
    )
    assert both(tmp_path, "-f", format, *lines, "disk", format=format)[0] == 0


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ("", ("-P 1 0 1M", "-z -n 0 1000", "-z -n 65000 1000", "-z -n 65000 70000", "-z -n 64k 70000", "-z -n 2M 1M")),
        ("", ("-P 1 0 64k", "-z -n 64k 1000", "-z -n 100000 100000", "-z -n 60k 8k", "-z -n 4194000 304", "-z -n 0 0")),
        ("", ("-P 1 4128768 64k", "-z -n 4190208 4k", "-z -n 4128768 64k", "-z -u -n 4190208 4k")),
        ("", ("-P 1 0 64k", "-z 0 64k", "-z -n 1000 1000", "-z -u 0 64k", "-z -n 3k 1k", "-P 2 0 1k", "-z -n 2k 1k")),
        ("", ("-c 0 64k", "-z -n 0 32k", "-z -n 0 64k")),
        ("compat=0.10", ("-P 1 0 64k", "-z -n 0 64k", "-z -n 1M 64k")),
        ("extended_l2=on", ("-P 1 0 64k", "-z -n 0 2k", "-z -n 2k 2k", "-z -n 1k 2k", "-z -n 4k 3k", "-z -n 70000 1k")),
        ("extended_l2=on", ("-P 1 2k 2k", "-z -n 4100 100", "-z -n 2100 100", "-z -n 0 64k")),
        ("data_file=data", ("-P 1 0 1M", "-z -n 0 1000", "-z -n 128k 64k", "-z -n 2M 1000", "-c 0 64k", "-c 512 512")),
        ("data_file=data,data_file_raw=on", ("-P 1 0 1M", "-z -n 0 1000", "-z -n 128k 64k", "-z -n 2M 1000")),
    ],
)  # fmt: skip
def test_zeroes_at_the_ends_of_which_something_would_have_to_be_written_out(
    tmp_path: Path, options: str, lines: tuple[str, ...]
) -> None:
    answers: list[list[tuple[int, str, str]]] = []
    for command in (("qemu-io",), OURS):
        create = ["qemu-img", "create", "-q", "-f", "qcow2", *(["-o", options] if options else []), "disk", "4M"]
        subprocess.run(create, cwd=tmp_path, check=True, timeout=60)
        answers.append([])
        for line in lines:
            before = bytes_of(tmp_path / "disk")
            answers[-1].append(run(command, tmp_path, "-f", "qcow2", "-c", f"write {line}", "disk"))
            # The real tool zeroes what lies before the end that it fails at; ours has looked at both ends by then.
            refused = command == OURS and "failed" in answers[-1][-1][1]
            assert not refused or bytes_of(tmp_path / "disk") == before
    assert answers[1] == answers[0]


def test_zeroes_over_a_backing_file_that_are_not_to_be_written_out(tmp_path: Path) -> None:
    lines = ("write -z -n 0 1000", "write -z -n 64k 1000", "write -z -n 130000 1000", "write -z -n 3M 1000")
    answers = []
    for command in (("qemu-io",), OURS):
        for line in ("create -q -f raw base 2M", "create -q -f qcow2 -b base -F raw disk 4M"):
            subprocess.run(["qemu-img", *line.split()], cwd=tmp_path, check=True, timeout=60)
        run(("qemu-io",), tmp_path, "-f", "raw", "-c", "write -P 3 0 66000", "base")
        answers.append([run(command, tmp_path, "-f", "qcow2", "-c", line, "disk") for line in lines])
    assert answers[1] == answers[0]


def test_zeroes_that_would_have_to_be_written_out(tmp_path: Path) -> None:
    answers = [
        run(command, tmp_path, "-f", "raw", *commands("write -z -n 0 64k", "write -z 0 64k"), "null-co://")
        for command in (("qemu-io",), OURS)
    ]
    assert answers[1] == answers[0]
    assert "Operation not supported" in answers[0][1] + answers[0][2]


@pytest.mark.parametrize("options", ["align=4096", "align=512,opt-write-zero=64k", "align=512,opt-write-zero=1536"])
def test_zeroes_in_parts_of_the_blocks_that_a_filter_takes(tmp_path: Path, options: str) -> None:
    lines = commands(
        "write -P 1 0 1M",
        *(f"write -z -n {at}" for at in ("0 64k", "512 4k", "64k 4k", "0 1", "128k 64k", "1536 3072")),
    )
    answers = []
    for command in (("qemu-io",), OURS):
        (tmp_path / "disk").write_bytes(bytes(1 << 20))
        image = f"driver=blkdebug,{options},image.driver=file,image.filename=disk"
        answers.append(run(command, tmp_path, "--image-opts", *lines, image))
    assert answers[1] == answers[0]
