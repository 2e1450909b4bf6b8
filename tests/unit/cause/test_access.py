"""Which part of a path denies what, to whom, and how its owner allows it."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from hostel.cause import access, beyond_errno, explain, sentence
from hostel.errors import BlockError
from support.unprivileged import as_nobody

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has files that are another user's")


@pytest.fixture
def place(reachable: Path) -> Path:
    """A directory that everybody reaches."""
    return reachable


@needs_root
def test_directory_that_is_closed_is_named_with_its_owner_and_the_remedy(place: Path) -> None:
    (place / "vault/deep").mkdir(parents=True)
    (place / "vault").chmod(0o700)
    said = as_nobody(lambda: explain(errno.EACCES, f"{place}/vault/deep/disk", write=False))
    assert said == (
        f"The directory '{place}/vault' (root:root, mode 0700) does not let user 'nobody' (uid 65534) through; "
        f"to allow it: setfacl -m u:nobody:x {place}/vault"
    )


@needs_root
@pytest.mark.requires_tool("setfacl")
def test_remedy_allows_what_was_denied(place: Path) -> None:
    disk = place / "it's a disk"
    disk.write_bytes(b"x")
    disk.chmod(0o604)
    said = as_nobody(lambda: explain(errno.EACCES, str(disk), write=True))
    assert said is not None
    assert "does not let user 'nobody' (uid 65534) write it" in said
    remedy = said.partition("to allow it: ")[2]
    if subprocess.run(["sh", "-c", remedy], check=False, capture_output=True).returncode:
        pytest.skip("the file system has no access control lists")

    def both() -> bytes:
        with disk.open("r+b") as stream:
            return stream.read()

    assert as_nobody(both) == b"x"


@needs_root
def test_own_file_is_opened_by_its_mode_and_a_groups_by_membership(place: Path) -> None:
    mine, groups = place / "mine", place / "groups"
    for path in (mine, groups):
        path.touch()
    os.chown(mine, 65534, 0)
    mine.chmod(0o400)
    os.chown(groups, 0, 6)
    groups.chmod(0o660)
    assert str(as_nobody(lambda: explain(errno.EACCES, str(mine), write=True))).endswith(f": chmod u+rw {mine}")
    assert str(as_nobody(lambda: explain(errno.EACCES, str(groups), write=True))).endswith(
        "read it or write it; to allow it: usermod -aG disk nobody, and log in again"
    )


@needs_root
def test_file_to_be_made_or_removed_is_a_matter_of_its_directory(place: Path) -> None:
    place.chmod(0o755)
    (place / "there").touch(0o666)
    made = as_nobody(lambda: explain(errno.EACCES, f"{place}/new", write=True))
    removed = as_nobody(lambda: explain(errno.EACCES, f"{place}/there", removing=True))
    assert made == removed
    assert str(made).startswith(
        f"The directory '{place}' (root:root, mode 0755) does not let user 'nobody' (uid 65534)"
    )
    assert str(made).endswith(f"make or remove files in it; to allow it: setfacl -m u:nobody:rwx {place}")
    assert "setfacl" not in str(as_nobody(lambda: explain(errno.EACCES, "/etc/new", write=True)))


@needs_root
def test_sticky_directory_and_its_rules(place: Path) -> None:
    place.chmod(0o1777)
    other = place / "other"
    other.touch()
    os.chown(other, 1234, 1234)
    other.chmod(0o666)
    removal = as_nobody(lambda: explain(errno.EPERM, str(other), removing=True))
    assert "is another user's in" in str(removal)
    assert "where only owners may remove" in str(removal)
    assert "fs.protected_regular" in str(as_nobody(lambda: explain(errno.EACCES, str(other), write=True)))


@needs_root
def test_attribute_that_binds_root_too_is_named(place: Path) -> None:
    path = place / "kept"
    path.touch()
    if subprocess.run(["chattr", "+i", path], check=False, capture_output=True).returncode:
        pytest.skip("the file system has no such attribute")
    try:
        with pytest.raises(OSError, match="not permitted") as caught:
            path.open("r+b")
        assert sentence(caught.value) == (
            f"Operation not permitted; '{path}' has the attribute 'immutable'; to take it away: chattr -i {path}"
        )
    finally:
        subprocess.run(["chattr", "-i", path], check=True)


def test_what_confines_a_process_is_told_where_owner_and_mode_allow(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place / "disk"
    path.touch()
    monkeypatch.setattr(access, "confinement", lambda: "system_u:system_r:svirt_t:s0:c1,c2")
    monkeypatch.setattr(access, "label_of", lambda _path: "unconfined_u:object_r:user_home_t:s0")
    said = str(explain(errno.EACCES, str(path), write=True))
    assert "label unconfined_u:object_r:user_home_t:s0) allow it" in said
    assert "(system_u:system_r:svirt_t:s0:c1,c2) does not" in said
    assert said.endswith(f"restorecon {path} sets the label that its place has.")


def test_block_errors_keep_their_own_words() -> None:
    error = BlockError("L2 table is off", hint="Run check.\n")
    assert sentence(error) == "L2 table is off; run check"
    assert beyond_errno(error) == "L2 table is off"
