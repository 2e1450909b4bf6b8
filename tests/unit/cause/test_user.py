"""What another user may do with a file, beside what that user finds out by trying."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.cause.user import User, closed_way, denied_to, rights

NOBODY = User(4242, [4343, 4444])


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory on a way that is open; what pytest makes is closed."""
    found = Path(tempfile.mkdtemp(prefix="way-"))
    found.chmod(0o755)
    yield found
    shutil.rmtree(found)


def test_owner_group_and_others_have_their_bits(place: Path) -> None:
    path = place / "file"
    path.touch()
    path.chmod(0o640)
    mine = path.stat()
    assert rights(str(path), User(mine.st_uid or 0, [])) == (7 if mine.st_uid == 0 else 6)
    assert rights(str(path), User(NOBODY.uid, [mine.st_gid])) == 4
    assert rights(str(path), NOBODY) == 0
    with pytest.raises(FileNotFoundError):
        rights(str(place / "missing"), NOBODY)


def test_the_first_directory_that_is_closed_is_named(place: Path) -> None:
    (place / "a/b").mkdir(parents=True)
    (place / "a/b/file").touch()
    assert closed_way(str(place / "a/b/file"), NOBODY) is None
    (place / "a/b").chmod(0o700)
    (place / "a").chmod(0o744)
    assert closed_way(str(place / "a/b/file"), NOBODY) == str(place / "a")
    (place / "link").symlink_to(place / "a/b/file")
    assert closed_way(str(place / "link"), NOBODY) == str(place / "a")
    assert closed_way(str(place / "missing/file"), NOBODY) is None


@pytest.mark.parametrize(
    ("folder", "file", "said"),
    [
        (0o700, 0o666, "The directory '{place}' ({owner}, mode 0700) does not let the user with uid 4242 through"),
        (0o755, 0o600, "'{place}/file' ({owner}, mode 0600) does not let the user with uid 4242 read it"),
        (0o755, 0o644, "'{place}/file' ({owner}, mode 0644) does not let the user with uid 4242 write it"),
        (0o755, None, "The directory '{place}' ({owner}, mode 0755) does not let the user with uid 4242 make files in"),
    ],
)
def test_what_denies_a_file_and_what_to_do_about_it(place: Path, folder: int, file: int | None, said: str) -> None:
    path = place / "file"
    if file is not None:
        path.touch()
        path.chmod(file)
    place.chmod(folder)
    found = denied_to(str(path), NOBODY)
    owner = f"{place.owner()}:{place.group()}"
    assert found is not None and found.startswith(said.format(place=place, owner=owner))
    assert f"setfacl -m u:{NOBODY.uid}:" in found and found.endswith("or name another user in qemu.conf")


def test_what_is_allowed_is_not_explained(place: Path) -> None:
    (place / "file").touch()
    (place / "file").chmod(0o666)
    assert denied_to(str(place / "file"), NOBODY) is None


@pytest.mark.requires_tool("setfacl")
@pytest.mark.requires_tool("setpriv")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_what_acls_allow_is_what_that_user_finds(place: Path) -> None:
    path = place / "file"
    tried = [("u:4242:r", "m::rx"), ("g:4343:rx", "m::r"), ("g:4343:rwx",), ("u:1:w", "o::x"), ("u:4242:rwx",)]
    for chosen in tried:
        path.unlink(missing_ok=True)
        path.touch()
        path.chmod(0o640)
        subprocess.run(["setfacl", *(word for entry in chosen for word in ("-m", entry)), path], check=True)
        words = ["setpriv", "--reuid=4242", "--regid=4343", "--groups=4343,4444"]
        found = 0
        for bit, letter in ((4, "-r"), (2, "-w"), (1, "-x")):
            found |= 0 if subprocess.run([*words, "test", letter, path], check=False).returncode else bit
        assert rights(str(path), NOBODY) == found, chosen
