"""The directory of the tour: what is refused, what a user types first, and that it goes without a trace."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostel.cli.quickstart.place import Place
from hostel.errors import UsageError


def test_directory_with_something_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"):
        Place(str(tmp_path))
    with pytest.raises(UsageError, match="is not a directory"):
        Place(str(tmp_path / "mine"))
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("name", ["a,b", "it's", 'say "x"', "back\\slash", "two\nlines", "not-\udcff-utf8"])
def test_directory_that_commands_cannot_carry_is_refused_and_not_made(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="without commas, quotes"):
        Place(str(tmp_path / name))
    assert list(tmp_path.iterdir()) == []


def test_directory_for_temporary_files_is_held_to_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "a,b"))
    with pytest.raises(UsageError, match="without commas, quotes"):
        Place(None)


def test_empty_directory_stays_and_a_new_one_goes(tmp_path: Path) -> None:
    for name in ("new", "old"):
        (tmp_path / "old").mkdir(exist_ok=True)
        place = Place(str(tmp_path / name))
        place.pool.mkdir()
        place.log.write_text("x")
        place.remove()
    assert [entry.name for entry in tmp_path.iterdir()] == ["old"]
    assert list((tmp_path / "old").iterdir()) == []


def test_environment_is_the_places_own_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", "qemu+ssh://elsewhere/system")
    monkeypatch.setenv("HOSTEL_HOME", "/before")
    monkeypatch.delenv("VIRSH_DEFAULT_CONNECT_URI", raising=False)
    before = Path.cwd()
    place = Place(str(tmp_path / "place"))
    assert "unset LIBVIRT_DEFAULT_URI" in place.preparation()
    assert place.preparation()[-2:] == [f"export HOSTEL_HOME={tmp_path / 'place'}", 'cd "$HOSTEL_HOME"']
    with place.entered():
        assert os.environ["HOSTEL_HOME"] == str(tmp_path / "place")
        assert "LIBVIRT_DEFAULT_URI" not in os.environ
        assert Path.cwd() == place.root
    assert os.environ["LIBVIRT_DEFAULT_URI"] == "qemu+ssh://elsewhere/system"
    assert os.environ["HOSTEL_HOME"] == "/before"
    assert "VIRSH_DEFAULT_CONNECT_URI" not in os.environ
    assert Path.cwd() == before
