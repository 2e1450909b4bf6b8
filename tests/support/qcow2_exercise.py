"""Doing with an image file everything that its driver can, however little of it the image survives."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

from hostel.block import graph
from hostel.block.driver import CACHE_MODES
from hostel.block.node import BlockNode
from hostel.block.powers import Checkable, Preallocation, Repair, Snapshotting
from hostel.errors import UnsupportedFeature

UNSAFE = CACHE_MODES["unsafe"]
_SOME = 1 << 20  # bytes read and written of a disk that may claim any size


def digest(path: Path) -> bytes:
    """What tells whether a file was changed."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def attempt(call: Callable[[], object]) -> bool:
    """Whether a call succeeds; it may raise nothing but OSError."""
    try:
        call()
    except OSError as error:
        assert str(error), "an error without a text"
        return False
    return True


def read_only(path: Path, format: str = "qcow2") -> bool:
    """Open for reading and look at everything; whether it opened. The file must not change."""
    before = digest(path)
    opened = attempt(lambda: _look(path, format))
    attempt(lambda: _check(path, Repair.NOTHING, format))
    assert digest(path) == before, "reading changed the image"
    return opened


def _look(path: Path, format: str) -> None:
    with graph.open(str(path), format, no_backing=True) as node:
        node.driver.info()
        node.driver.references()
        if isinstance(node.driver, Snapshotting):
            attempt(node.driver.snapshots)
        attempt(lambda: [extent for extent, _ in zip(node.extents(), range(5000), strict=False)])
        for offset in range(0, min(node.length, _SOME), 65536):
            attempt(functools.partial(node.read, offset, min(65536, node.length - offset)))
        if node.length > _SOME:
            attempt(lambda: node.read(node.length - 65536, 65536))


def _check(path: Path, repair: Repair, format: str) -> tuple[int, int, int]:
    lines = 0

    def count(line: str) -> None:
        nonlocal lines
        assert "\n" not in line
        lines += 1

    with graph.open(str(path), format, read_only=not repair, check=True, no_backing=True, cache=UNSAFE) as node:
        if not isinstance(node.driver, Checkable):
            raise UnsupportedFeature("This format has no checks")
        result = node.driver.check(repair, count)
    return result.corruptions, result.leaks, result.check_errors


def writing(path: Path, data: bytes, format: str = "qcow2", *, marked: Callable[[bytes], bool] | None = None) -> None:
    """Each kind of change, each on an image of its own; ``marked`` tells one that opening may repair."""
    marked = marked or (lambda data: bool(data[79] & 1))
    changes: list[Callable[[BlockNode], object]] = [
        lambda node: node.pwrite(0, bytes(node.length if node.length < _SOME else _SOME)),
        lambda node: node.pwrite(5000, b"x"),
        lambda node: node.write_zeroes(100, min(node.length - 100, _SOME)),
        lambda node: node.write_zeroes(0, node.length, unmap=True),
        lambda node: node.discard(0, node.length),
        _driver("pwrite_compressed", 0, b"xxx"),
        _driver("snapshot_create", "three", date=(0, 0)),
        _driver("snapshot_apply", "one"),
        _driver("snapshot_apply", "two"),
        _driver("snapshot_delete", "one"),
        _driver("snapshot_delete", "two"),
        lambda node: node.resize(node.length + (1 << 20)),
        lambda node: node.resize(node.length + (1 << 20), Preallocation.METADATA),
        lambda node: node.resize(5120),
        _driver("change_backing", "another.raw", "raw"),
        _driver("change_backing", None, None),
    ]
    for change in changes:
        path.write_bytes(data)
        before = digest(path)
        if not attempt(lambda: graph.open(str(path), format, read_only=False, no_backing=True, cache=UNSAFE).close()):
            # One that is marked dirty may have been repaired in part.
            assert digest(path) == before or marked(data), "a refused image was changed"
            return
        path.write_bytes(data)
        attempt(functools.partial(_change, path, change, format))


def _driver(name: str, *values: object, **named: object) -> Callable[[BlockNode], object]:
    """A call of a power that not each format has."""
    return lambda node: getattr(node.driver, name, lambda *values, **named: None)(*values, **named)


def _change(path: Path, change: Callable[[BlockNode], object], format: str) -> None:
    with graph.open(str(path), format, read_only=False, no_backing=True, cache=UNSAFE) as node:
        attempt(lambda: change(node))
        attempt(node.flush)
        attempt(lambda: node.read(0, min(node.length, 65536)))


def repairing(path: Path, data: bytes, format: str = "qcow2") -> None:
    """A repair that says it succeeded has left a sound image that can be written."""
    for repair in (Repair.LEAKS, Repair.ALL):
        path.write_bytes(data)
        left = (1, 1, 1)

        def mend(repair: Repair = repair) -> None:
            nonlocal left
            left = _check(path, repair, format)

        if attempt(mend) and left == (0, 0, 0):
            assert _check(path, Repair.NOTHING, format) == (0, 0, 0), "the repaired image is not sound"
            if repair is Repair.ALL:
                read_only(path, format)
