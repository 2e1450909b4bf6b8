"""Files that are given away: what is remembered with them, what is written down, what comes back after a kill."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import threading
from pathlib import Path

import pytest

from hostel.drivers.qemu.ownership import lending, remembered
from hostel.drivers.qemu.ownership.claims import Claim, Return
from hostel.drivers.qemu.ownership.dac import MARK
from hostel.drivers.qemu.ownership.lending import Ledger, Loan, give
from hostel.drivers.qemu.ownership.lending import settle as settle_marked
from hostel.drivers.qemu.ownership.lending import take_all_back as take_all_marked_back
from hostel.drivers.qemu.ownership.remembered import Kept, OpenFile
from hostel.drivers.qemu.ownership.user import Owner
from hostel.errors import ErrorCode, VirtError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
MINE, QEMU, OTHER = Owner(1000, 1001), Owner(4242, 4343), Owner(4444, 4444)
ATTRIBUTES = ("dac", "ref_dac", "timestamp_dac")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(bytes(512))
    try:
        os.setxattr(path, "trusted.hostel", b"1")
        os.removexattr(path, "trusted.hostel")
    except OSError:
        pytest.skip("this file system keeps no such attributes")
    os.chown(path, *MINE)
    return path


def owner(path: Path) -> Owner:
    status = path.stat()
    return Owner(status.st_uid, status.st_gid)


def kept(path: Path) -> dict[str, str]:
    names = [name for name in os.listxattr(path) if name.startswith("trusted.libvirt.security.")]
    return {name.rpartition(".")[2]: os.getxattr(path, name).decode() for name in names}


def lend(
    ledger: Ledger, path: Path, back: Return = Return.REMEMBERED, to: Owner = QEMU, remembers: bool = True
) -> None:
    give(ledger, MARK, [Claim(str(path), to.label, back)], remembers=remembers)


def take_all_back(ledger: Ledger) -> list[str]:
    return take_all_marked_back(ledger, MARK)


def settle(ledger: Ledger, wanted: list[str]) -> list[str]:
    return settle_marked(ledger, MARK, wanted)


def ledger(tmp_path: Path, name: str = "a") -> Ledger:
    return Ledger(tmp_path / "given" / name)


def test_it_is_kept_with_a_file_whose_it_was_as_libvirt_does(tmp_path: Path, image: Path) -> None:
    first, second = ledger(tmp_path), ledger(tmp_path, "b")
    lend(first, image)
    assert owner(image) == QEMU
    assert {name: kept(image)[name] for name in ATTRIBUTES[:2]} == {"dac": "+1000:+1001", "ref_dac": "1"}
    assert abs(int(kept(image)["timestamp_dac"]) - remembered.boot_time()) <= 1
    lend(second, image)
    assert kept(image)["ref_dac"] == "2"
    assert take_all_back(first) == []
    assert (owner(image), kept(image)["ref_dac"]) == (QEMU, "1")
    assert take_all_back(second) == []
    assert (owner(image), kept(image)) == (MINE, {})
    assert not first.exists and not second.exists


def test_a_file_in_use_is_not_given_to_another_user(tmp_path: Path, image: Path) -> None:
    lend(ledger(tmp_path), image)
    with pytest.raises(VirtError, match=f"Setting different DAC user or group on {image} which is already in use") as e:
        lend(ledger(tmp_path, "b"), image, to=OTHER)
    assert e.value.code == ErrorCode.OPERATION_INVALID
    assert (owner(image), kept(image)["ref_dac"]) == (QEMU, "1")
    assert take_all_back(ledger(tmp_path, "b")) == []
    assert kept(image)["ref_dac"] == "1"


def test_it_is_given_once_however_often_it_is_asked_for(tmp_path: Path, image: Path) -> None:
    for _ in range(3):
        lend(ledger(tmp_path), image)
    assert kept(image)["ref_dac"] == "1"


def test_what_others_may_read_is_not_taken_back_and_devices_go_to_root(tmp_path: Path, image: Path) -> None:
    for back, after in ((Return.NEVER, QEMU), (Return.USUAL, Owner(0, 0))):
        os.chown(image, *MINE)
        lend(ledger(tmp_path), image, back)
        assert (owner(image), kept(image)) == (QEMU, {})
        take_all_back(ledger(tmp_path))
        assert owner(image) == after


def test_an_image_that_becomes_a_disk_s_own_is_given_back_to_who_had_it(tmp_path: Path, image: Path) -> None:
    lend(ledger(tmp_path), image, Return.NEVER)
    lend(ledger(tmp_path), image)
    take_all_back(ledger(tmp_path))
    assert owner(image) == MINE


def test_what_is_read_by_others_is_given_anew_where_it_is_to_be_otherwise(tmp_path: Path, image: Path) -> None:
    for to in (QEMU, OTHER, OTHER):
        lend(ledger(tmp_path), image, Return.NEVER, to=to)
        assert owner(image) == to
    assert len([line for line in (tmp_path / "given/a").read_text().splitlines() if '"done"' in line]) == 2


def test_without_remembering_files_go_to_root(tmp_path: Path, image: Path) -> None:
    lend(ledger(tmp_path), image, remembers=False)
    assert (owner(image), kept(image)) == (QEMU, {})
    take_all_back(ledger(tmp_path))
    assert owner(image) == (0, 0)


def test_where_the_file_system_keeps_nothing_files_go_to_root(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, os.strerror(95))

    monkeypatch.setattr(os, "setxattr", refuse)
    lend(ledger(tmp_path), image)
    assert owner(image) == QEMU
    take_all_back(ledger(tmp_path))
    assert owner(image) == (0, 0)


def test_what_is_no_longer_needed_is_given_back_alone(tmp_path: Path, image: Path) -> None:
    other = tmp_path / "other"
    other.touch()
    lend(ledger(tmp_path), image)
    lend(ledger(tmp_path), other)
    assert settle(ledger(tmp_path), [str(image)]) == []
    assert (owner(image), owner(other)) == (QEMU, Owner(0, 0))
    assert [*ledger(tmp_path).loans()] == [str(image)]


def test_what_is_not_there_is_passed_over(tmp_path: Path, image: Path) -> None:
    lend(ledger(tmp_path), tmp_path / "missing")
    lend(ledger(tmp_path), image)
    image.unlink()
    assert take_all_back(ledger(tmp_path)) == []


def test_after_a_reboot_the_first_owner_is_known_still(tmp_path: Path, image: Path) -> None:
    lend(ledger(tmp_path), image)
    ledger(tmp_path).close()  # which was in memory
    os.setxattr(image, "trusted.libvirt.security.timestamp_dac", b"17")
    os.setxattr(image, "trusted.libvirt.security.ref_dac", b"3")
    lend(ledger(tmp_path), image)
    assert (kept(image)["ref_dac"], kept(image)["dac"]) == ("1", "+1000:+1001")
    take_all_back(ledger(tmp_path))
    assert owner(image) == MINE


@pytest.mark.parametrize("had", [0, 2])
@pytest.mark.parametrize("stop", ["note", "keep", "give", "done"])
def test_who_is_killed_while_he_gives_leaves_what_can_be_given_back(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch, stop: str, had: int
) -> None:
    """Killed after each of the steps, with no machine or two others that have the file."""
    others = [ledger(tmp_path, f"other{number}") for number in range(had)]
    for other in others:
        lend(other, image)
    before = owner(image), kept(image)

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    place, name = {"note": (OpenFile, "keep"), "keep": (OpenFile, "give"), "give": (Ledger, "done"),
                   "done": (lending, "_is_remote")}[stop]  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(place, name, kill)
        if stop == "done":
            lend(ledger(tmp_path), image)
        else:
            with pytest.raises(Killed):
                lend(ledger(tmp_path), image)
    assert take_all_back(ledger(tmp_path)) == []
    assert (owner(image), kept(image)) == before
    for other in others:
        take_all_back(other)
    assert (owner(image), kept(image)) == (MINE, {})


def test_who_is_killed_while_he_gives_back_is_followed_by_another(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    for place, name in ((OpenFile, "give"), (OpenFile, "keep"), (Ledger, "back")):
        lend(ledger(tmp_path), image)
        with monkeypatch.context() as patch:
            patch.setattr(place, name, kill)
            with pytest.raises(Killed):
                take_all_back(ledger(tmp_path))
        assert take_all_back(ledger(tmp_path)) == []
        assert (owner(image), kept(image)) == (MINE, {})


def test_a_line_that_was_cut_off_is_no_step(tmp_path: Path, image: Path) -> None:
    found = ledger(tmp_path)
    lend(found, image)
    path = tmp_path / "given" / "a"
    path.write_text(path.read_text() + '\n{"step": "give", "pa')
    other = tmp_path / "other"
    other.touch()
    lend(found, other)
    assert [*found.loans()] == [str(image), str(other)]


def test_a_ledger_reads_what_it_wrote(tmp_path: Path) -> None:
    found = ledger(tmp_path)
    loan = Loan("/a\udcff", QEMU.label, MINE.label, Return.USUAL, None)
    found.give(loan)
    assert found.loans() == {"/a\udcff": loan}
    found.done(loan.path)
    assert found.loans() == {"/a\udcff": loan._replace(is_done=True)}
    found.back(loan.path)
    assert found.loans() == {}
    assert all(json.loads(line) for line in (tmp_path / "given" / "a").read_text().splitlines() if line)


def test_a_file_that_somebody_else_locks_is_waited_for(tmp_path: Path, image: Path) -> None:
    lock = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 1, 1, 0)
    descriptor = os.open(image, os.O_RDWR)
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
    is_closing = threading.Event()

    def close() -> None:
        is_closing.set()
        os.close(descriptor)

    timer = threading.Timer(0.1, close)
    timer.start()
    lend(ledger(tmp_path), image)
    assert is_closing.is_set() and owner(image) == QEMU
    timer.join(60)


def test_a_file_that_stays_locked_is_refused(tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "_LOCK_SECONDS", 0.05)
    with image.open("r+b") as held:
        fcntl.fcntl(held, fcntl.F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 1, 1, 0))
        with pytest.raises(VirtError, match=r"unable to set user and group to '4242:4343' on .* for metadata change"):
            lend(ledger(tmp_path), image)
    assert (owner(image), kept(image), ledger(tmp_path).loans()) == (MINE, {}, {})


def test_links_are_followed_and_stay(tmp_path: Path, image: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(image)
    lend(ledger(tmp_path), link)
    assert owner(image) == QEMU and link.lstat().st_uid == 0
    with OpenFile(str(link), MARK) as file:
        assert file.kept() == Kept(MINE.label, 1)


def test_what_machines_have_whose_ledgers_are_of_numbers_comes_back(tmp_path: Path, image: Path) -> None:
    lend(ledger(tmp_path), image)
    row = {"step": "give", "path": str(image), "owner": QEMU, "before": MINE, "back": "remembered", "users": 0}
    device = {**row, "path": "/dev/x", "back": "root", "users": None}
    lines = [json.dumps(line) for line in (row, {"step": "done", "path": str(image)}, device)]
    (tmp_path / "given" / "a").write_text("\n".join(lines))
    assert ledger(tmp_path).loans()["/dev/x"].back is Return.USUAL
    assert take_all_back(ledger(tmp_path)) == []
    assert owner(image) == MINE
