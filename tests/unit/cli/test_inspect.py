"""``hostel inspect``: its lines, its JSON, its exit codes, and that it opens one file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hostel.cli.main import run_tool
from support import hostile, images

MIB = 1 << 20


def run(*words: str | Path) -> int:
    return run_tool("inspect", [str(word) for word in words])


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.qcow2"
    images.make(path, MIB, options="cluster_size=4096")
    return path


def test_safe_image_has_its_facts_and_exit_code_0(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-f", "qcow2", "--max-virtual-size", "1M", image) == 0
    size = image.stat().st_size
    assert capsys.readouterr().out == (
        f"safe\nimage: {image}\nformat: qcow2 (expected qcow2)\nfile size: {size / 1024:0.3g} KiB ({size} bytes)\n"
        f"virtual size: 1 MiB (1048576 bytes), {-(-MIB // size)} times the file\n"
    )


def test_unsafe_image_has_its_reasons_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x"
    path.write_bytes(hostile.naming(b"/etc/shadow"))
    assert run("--format=raw", path) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "unsafe: The format should be raw; the content is of qcow2 (and 1 more)"
    assert lines[-2:] == [
        "unsafe: format-mismatch: The format should be raw; the content is of qcow2",
        "unsafe: backing-file: The image names a backing file, by an absolute path: '/etc/shadow'",
    ]


def test_warnings_have_exit_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x"
    path.write_bytes(hostile.header(incompatible=1) + hostile.CLUSTERS)
    assert run(path) == 3
    assert capsys.readouterr().out.startswith("safe, with warnings: The image was not closed properly (dirty bit)")


def test_control_characters_in_names_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a\nsafe\x1b[2J"
    path.write_bytes(hostile.naming("b\nsafe\r\x1b]0;x\x07\u202e".encode() + b"\xff"))
    assert run(path) == 2
    out = capsys.readouterr().out
    assert all(char.isprintable() for line in out.removesuffix("\n").split("\n") for char in line)
    assert r"'b\x0asafe\x0d\x1b]0;x\x07\xe2\x80\xae\xff'" in out
    assert r"/a\x0asafe\x1b[2J" in out
    assert run("--output=json", path) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["references"] == [{"role": "backing", "filename": "b\nsafe\r\x1b]0;x\x07\u202e\ufffd"}]


def test_json_has_the_verdict_the_facts_and_the_findings(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images.write(image, "qcow2", {510: b"\x55\xaa", 446: b"\x80\0\0\0\x83\0\0\0\1\0\0\0\1\0\0\0"})
    assert run("--output", "json", "-f", "qcow2", image) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.pop("file-size") == image.stat().st_size
    assert found.pop("actual-size") == image.stat().st_blocks * 512
    assert found.pop("size-ratio") > 1
    assert found == {
        "filename": str(image),
        "verdict": "safe",
        "format": "qcow2",
        "expected-format": "qcow2",
        "matching-formats": ["qcow2"],
        "virtual-size": MIB,
        "references": [],
        "snapshots": 0,
        "encrypted": False,
        "partition-table": "mbr",
        "partitions": 1,
        "findings": [],
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: IMAGE (try 'hostel inspect --help')"),
        (["-f", "nosuch", "x"], "argument -f/--format: invalid choice: 'nosuch'"),
        (["--max-virtual-size", "x\n", "x"], "--max-virtual-size: 'x\\x0a' is not a size"),
        (["--max-virtual-size", "-1", "x"], "--max-virtual-size: '-1' is negative"),
        (["--output=xml", "x"], "argument --output: invalid choice: 'xml'"),
        (["--nosuch", "x"], "unrecognized arguments: --nosuch"),
        (["/nowhere/x\ny"], "Could not open '/nowhere/x\\x0ay': No such file or directory"),
        (["/dev"], "'file' driver requires '/dev' to be a regular file"),
    ],
)
def test_what_cannot_be_looked_at_is_one_line_and_exit_code_1(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {message}")
    assert said.err.count("\n") == 1


def test_help_lists_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("--help")
    assert ended.value.code == 0
    assert "2  unsafe" in capsys.readouterr().out


_TRACED = """
import sys
from hostel.cli import inspect
from hostel.block.formats.qcow2 import driver
import argparse, importlib
opened = []
sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
code = inspect.main(sys.argv[1:])
lib = [each for each in opened if each.endswith((".py", ".pyc", ".so")) or "__pycache__" in each]
print([each for each in opened if each not in lib], code)
"""


@pytest.mark.parametrize(
    "data",
    [
        hostile.naming(b"other"),
        hostile.naming(b'json:{"driver":"file","filename":"other"}'),
        hostile.header(incompatible=4) + b"DATA\0\0\0\5other\0\0\0" + hostile.CLUSTERS,
        b'version=1\nRW 1 FLAT "other" 0\n',
        hostile.header() + hostile.CLUSTERS,
    ],
    ids=["backing", "json", "data-file", "vmdk", "sound"],
)
def test_one_file_is_opened_and_once(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "image"
    path.write_bytes(data)
    (tmp_path / "other").write_bytes(bytes(MIB))
    done = subprocess.run(
        [sys.executable, "-c", _TRACED, str(path)], capture_output=True, text=True, timeout=60, cwd=tmp_path, check=True
    )
    opened = done.stdout.splitlines()[-1].rpartition(" ")[0]
    assert opened == repr([str(path)])
