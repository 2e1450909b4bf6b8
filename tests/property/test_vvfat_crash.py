"""Ends amid bringing a guest's changes into the directory: no file of the host is lost, none is half new."""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest

from hostel.block import graph
from support.fat import Guest
from support.tally import tried

__all__ = ["tried"]

# What the interpreter tells of before it does it; the library is asked for each renaming that may replace nothing.
STEPS = ("open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.truncate", "ctypes.dlopen")
ENDED = 77
OLD = {
    "stays": b"stays",
    "moved here": b"moved" * 3000,
    "first": b"first" * 2000,
    "second": b"second" * 2000,
    "saved": b"old text" * 1500,
    "removed": b"removed",
    "folder/inside": b"inside" * 4000,
}


def change(guest: Guest) -> dict[str, bytes]:
    """All kinds of changes at once; returns what is there in the end."""
    guest.mkdir("new folder")
    guest.rename("moved here", "new folder/moved there")
    for old, new in (("first", "spare"), ("second", "first"), ("spare", "second")):
        guest.rename(old, new)
    guest.create("temporary", b"new text" * 1500)
    guest.remove("saved")
    guest.rename("temporary", "saved")
    guest.remove("removed")
    guest.rename("folder", "new folder/folder")
    guest.create("created", b"created" * 3000)
    return {
        "stays": OLD["stays"],
        "new folder/moved there": OLD["moved here"],
        "first": OLD["second"],
        "second": OLD["first"],
        "saved": b"new text" * 1500,
        "new folder/folder/inside": OLD["folder/inside"],
        "created": b"created" * 3000,
    }


def prepare(folder: Path) -> None:
    """The directory as it was."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in OLD.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def files(folder: Path) -> dict[str, bytes]:
    """What lies in the directory."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(folder: Path, last: int) -> int:
    """Change everything in a process that ends before its step number ``last``; returns how it ended."""
    child = os.fork()
    if not child:
        code = 1
        try:
            node = graph.open(f"fat:floppy:rw:{folder}", "raw", read_only=False)
            guest = Guest(node, random.Random(6))
            change(guest)
            for number, sector in guest.staged.items():
                node.pwrite(number * 512, sector)
            left = [last]

            def step(event: str, arguments: object) -> None:
                if event in STEPS:
                    left[0] -= 1
                    if left[0] < 0:
                        os._exit(ENDED)

            sys.addaudithook(step)
            node.flush()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_an_end_at_any_step_loses_nothing(tmp_path: Path, tried: Counter[str]) -> None:
    folder = tmp_path / "top"
    prepare(folder)
    with graph.open(f"fat:floppy:rw:{folder}", "raw", read_only=False) as node:
        guest = Guest(node, random.Random(6))
        new = change(guest)
        guest.write_back()
    assert files(folder) == new
    whole = {*OLD.values(), *new.values()}
    kept = set(OLD.values()) & set(new.values())
    for last in range(1000):
        prepare(folder)
        code = run(folder, last)
        found = files(folder)
        if code == 0:
            assert found == new
            break
        assert code == ENDED
        tried["ends"] += 1
        assert kept <= set(found.values()), "a file that the guest has is on the host no more"
        named = {path: data for path, data in found.items() if ".hostel-" not in path}
        assert set(named.values()) <= whole, "a file is neither old nor new"
        assert named.get("saved") in (OLD["saved"], new["saved"]), "a file that was saved anew has no content"
        if OLD["removed"] not in found.values():
            assert set(new.values()) <= set(found.values()), "something was removed before the rest was there"
        graph.open(f"fat:floppy:{folder}").close()
    else:
        pytest.fail("it never came to its end")
    assert tried["ends"] > 20
