"""Documents on disk: what a kill at any step, other processes and a refusing host leave of them."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hostel.drivers import store as store_module
from hostel.drivers.store import Directories, Store, is_usable_name, write_atomically
from hostel.errors import ErrorCode, VirtError
from support.kill_step import MAX_STEPS, killed_at

SOURCE = Path(store_module.__file__)
OLD = "<old>" + "o" * 300_000 + "</old>"
NEW = "<new>" + "n" * 300_000 + "</new>"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "documents")


def temporaries(store: Store) -> list[str]:
    return [name for name in os.listdir(store.directory) if name.endswith(".new")]


def test_what_is_written_is_read_and_listed(store: Store) -> None:
    assert store.names() == []
    assert store.read("a") is None
    with store.locked():
        store.write("b", "2")
        store.write("a", "1")
    assert store.names() == ["a", "b"]
    assert store.read("a") == "1"


def test_what_is_removed_is_gone_and_removing_again_says_so(store: Store) -> None:
    with store.locked():
        store.write("a", "1")
        assert store.remove("a")
        assert not store.remove("a")
    assert store.names() == []


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "../a", "a\0b", "x" * 201, "ä" * 101, "\udc80"])
def test_a_name_that_no_file_can_have_is_refused(store: Store, name: str) -> None:
    assert not is_usable_name(name)
    with pytest.raises(VirtError) as caught:
        store.path(name)
    assert caught.value.code is ErrorCode.XML_ERROR
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["a", "a b", "ä" * 100, "a.b", "-", "~", "a'\"<&>", "x" * 200])
def test_every_other_name_is_a_document_of_its_own(store: Store, name: str) -> None:
    with store.locked():
        store.write(name, name)
        store.write("other", "other")
    assert store.read(name) == name
    assert name in store.names()


def test_files_of_others_in_the_directory_are_no_documents(store: Store) -> None:
    with store.locked():
        store.write("a", "1")
    (store.directory / "notes.txt").write_text("x")
    (store.directory / ".b.xml").write_text("x")
    assert store.names() == ["a"]


def test_a_document_is_its_owners_alone(store: Store) -> None:
    with store.locked():
        store.write("a", "1")
    assert store.path("a").stat().st_mode & 0o777 == 0o600
    assert store.directory.stat().st_mode & 0o777 == 0o700


def test_kill_at_every_step_of_a_replacement_leaves_the_old_or_the_new(store: Store) -> None:
    with store.locked():
        store.write("a", OLD)

    def replace() -> None:
        with store.locked():
            store.write("a", NEW)

    seen = set()
    for step in range(1, MAX_STEPS):
        killed = killed_at(step, (SOURCE,), replace)
        found = store.read("a")
        assert found in (OLD, NEW)
        seen.add(found)
        if not killed:
            break
        with store.locked(timeout=0):  # a killed process holds no lock
            store.sweep()
            assert temporaries(store) == []
            store.write("a", OLD)
    assert step > 15, "the steps were not traced"
    assert not killed
    assert seen == {OLD, NEW}


def test_kill_at_every_step_of_a_first_write_leaves_nothing_or_the_whole(store: Store) -> None:
    def write() -> None:
        with store.locked():
            store.write("a", NEW)

    for step in range(1, MAX_STEPS):
        killed = killed_at(step, (SOURCE,), write)
        assert store.read("a") in (None, NEW)
        assert store.names() in ([], ["a"])
        if not killed:
            break
        with store.locked(timeout=0):
            store.remove("a")
    assert not killed


def test_kill_at_every_step_of_a_removal_leaves_the_whole_or_nothing(store: Store) -> None:
    def remove() -> None:
        with store.locked():
            store.remove("a")

    for step in range(1, MAX_STEPS):
        with store.locked(timeout=0):
            store.write("a", OLD)
        killed = killed_at(step, (SOURCE,), remove)
        assert store.read("a") in (None, OLD)
        if not killed:
            break
    assert not killed
    assert store.read("a") is None


def test_kill_at_random_moments_leaves_old_or_new(store: Store) -> None:
    """The steps inside the interpreter's own calls: a write of many blocks, the sync, the rename."""
    script = (
        "import sys, pathlib; from hostel.drivers.store import Store\n"
        "store = Store(pathlib.Path(sys.argv[1]))\n"
        "texts = ['<a>' + 'a' * 2000000, '<b>' + 'b' * 2000000]\n"
        "print('up', flush=True)\n"
        "while True:\n"
        "    for text in texts:\n"
        "        with store.locked(): store.write('x', text)\n"
    )
    whole = {"<a>" + "a" * 2_000_000, "<b>" + "b" * 2_000_000}
    chance = random.Random(7)
    for _ in range(8):
        child = subprocess.Popen([sys.executable, "-c", script, str(store.directory)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        time.sleep(chance.uniform(0.005, 0.08))
        child.send_signal(signal.SIGKILL)
        child.wait(timeout=10)
        child.stdout.close()
        found = store.read("x")
        assert found is None or found in whole
        with store.locked(timeout=1):
            store.sweep()
        assert temporaries(store) == []


def _add_documents(directory: Path, prefix: str, barrier: object) -> None:
    store = Store(directory)
    barrier.wait()  # type: ignore[attr-defined]
    for number in range(30):
        with store.locked():
            count = int(store.read("count") or "0")
            store.write("count", str(count + 1))
            store.write(f"{prefix}{number}", prefix)


def test_processes_at_once_lose_nothing(store: Store) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    writers = [context.Process(target=_add_documents, args=(store.directory, name, barrier)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=60)
        assert writer.exitcode == 0
    assert store.read("count") == "90"
    assert len(store.names()) == 91


def test_threads_of_one_process_exclude_each_other_too(store: Store) -> None:
    def add() -> None:
        for _ in range(20):
            with store.locked():
                store.write("count", str(int(store.read("count") or "0") + 1))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert store.read("count") == "80"


def test_a_lock_that_stays_held_is_a_timeout_that_names_the_directory(store: Store) -> None:
    with store.locked(), pytest.raises(VirtError, match=str(store.directory)) as caught, store.locked(timeout=0.05):
        pass
    assert caught.value.code is ErrorCode.OPERATION_TIMEOUT


def test_a_host_that_refuses_is_an_error_of_one_line_and_the_old_stays(store: Store, tmp_path: Path) -> None:
    with store.locked():
        store.write("a", "old")
    target = store.path("a")
    target.unlink()
    target.mkdir()  # renaming a file over a directory is refused to everybody, root included
    with store.locked(), pytest.raises(VirtError, match=r"cannot write '.*a\.xml': ") as caught:
        store.write("a", "new")
    assert caught.value.code is ErrorCode.SYSTEM_ERROR
    assert "\n" not in str(caught.value)
    assert temporaries(store) == []


def test_a_full_disk_keeps_the_old_document(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("the host has no /dev/full")
    document = tmp_path / "a.xml"
    document.write_text("old")
    # The temporary file is a link to the device that is always full.
    os.symlink(full, tmp_path / f".a.xml.{os.getpid()}.new")
    with pytest.raises(OSError, match="No space left"):
        write_atomically(document, "new")
    assert document.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.xml"]


def test_directories_follow_xdg_and_one_variable_puts_all_in_one_place(tmp_path: Path) -> None:
    under = Directories.from_environment({"HOSTEL_HOME": str(tmp_path)})
    assert under.config.parent == under.state.parent == under.cache.parent == under.data.parent == tmp_path
    user = Directories.from_environment({"HOME": "/home/u", "XDG_RUNTIME_DIR": "/run/user/7"})
    assert (user.config, user.state) == (Path("/home/u/.config/hostel"), Path("/run/user/7/hostel"))
    assert Directories.from_environment({"HOME": "/home/u"}).state == Path("/home/u/.cache/hostel/run")


def test_the_hosts_own_machines_are_kept_apart_from_roots_and_libvirts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    system = Directories.of_uri("qemu:///system", {"HOME": "/root"})
    assert system == Directories.system()
    assert not any("libvirt" in str(path) for path in system)
    assert Directories.of_uri("qemu:///session", {"HOME": "/root"}).config == Path("/root/.config/hostel")
    assert Directories.of_uri("qemu:///system", {"HOSTEL_HOME": str(tmp_path)}) == Directories.under(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert Directories.of_uri("qemu:///system", {"HOME": "/home/u"}).config == Path("/home/u/.config/hostel")
