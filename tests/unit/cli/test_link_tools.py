"""The tools under their own names."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hostel.cli.link_tools import NAMES
from hostel.cli.main import main


def link(*words: object) -> int:
    return main(["hostel", "link-tools", *map(str, words)])


def test_every_tool_gets_its_name_and_acts_as_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a" / "bin"
    assert link(folder) == 0
    assert f"To use them: export PATH={folder}:$PATH" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)
    for name, words, expected in (
        ("qemu-img", ["--version"], "qemu-img version"),
        ("virsh", ["-c", "test:///default", "list", "--name"], "test"),
        ("qemu-nbd", ["--version"], "qemu-nbd"),
    ):
        done = subprocess.run([folder / name, *words], capture_output=True, text=True, timeout=60, check=True)
        assert expected in done.stdout


def test_once_more_is_no_error_and_a_link_to_a_hostel_that_is_gone_is_renewed(tmp_path: Path) -> None:
    assert link(tmp_path) == 0
    (tmp_path / "virsh").unlink()
    (tmp_path / "virsh").symlink_to("/nosuch/bin/hostel")
    assert link(tmp_path) == 0
    assert (tmp_path / "virsh").exists()


@pytest.mark.parametrize("kind", ["file", "link", "directory", "dangling"])
def test_what_is_not_ours_is_left_alone_and_then_nothing_is_made(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "real").write_text("theirs")
    path = tmp_path / "virt-install"
    match kind:
        case "file":
            path.write_text("theirs")
        case "link":
            path.symlink_to("real")
        case "directory":
            path.mkdir()
        case "dangling":
            path.symlink_to("/nosuch/hostel-of-somebody")
    before = sorted(tmp_path.iterdir())
    assert link(tmp_path) == 1
    assert capsys.readouterr().err == (f"error: not made by hostel, and left alone: {path}; choose another directory\n")
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "real").read_text() == "theirs"


def test_removing_takes_away_the_links_alone(tmp_path: Path) -> None:
    assert link(tmp_path) == 0
    (tmp_path / "virsh").unlink()
    (tmp_path / "virsh").write_text("theirs")
    assert link("--remove", tmp_path) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["virsh"]


def test_what_is_found_first_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, mine = tmp_path / "first", tmp_path / "mine"
    first.mkdir()
    (first / "virsh").write_text("#!/bin/sh\n")
    (first / "virsh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{first}:{mine}")
    assert link(mine) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"Found before these in PATH: {first}/virsh"


@pytest.mark.parametrize("words", [[], ["a", "b"], ["--force", "a"]])
def test_a_wrong_command_line_is_refused_with_where_help_is(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert link(*words) == 1
    assert "(try 'hostel link-tools --help')" in capsys.readouterr().err
