"""Replacing a header of several sectors: whatever part of each step is on the disk, it is the old one or the new."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostel.block.formats.qcow2 import header as headers
from hostel.block.formats.qcow2 import layout
from hostel.block.formats.qcow2.header import Preamble
from hostel.block.formats.qcow2.header_update import steps
from hostel.block.formats.qcow2.layout import Extension, ExtensionType
from support import qcow2

SECTOR = 512
NAMES = st.sampled_from([None, "b", "base.raw", "n" * 100, "a/" * 200, "x" * 1023])
KINDS = st.sampled_from([ExtensionType.BITMAPS, ExtensionType.FEATURE_NAMES, 0x12345678])


def preamble(cluster_size: int, version: int, name: str | None, kinds: list[int]) -> Preamble:
    found = headers.parse(qcow2.create(1 << 20, {"cluster_size": cluster_size, "compat": f"v{version}"}))
    names = layout.feature_name_table()
    datas: dict[int, bytes] = {ExtensionType.BITMAPS: b"b" * 24, ExtensionType.FEATURE_NAMES: names}
    extensions = [Extension(int(kind), datas.get(kind, b"unknown ones are kept")) for kind in dict.fromkeys(kinds)]
    if name:
        extensions.insert(0, Extension(int(ExtensionType.BACKING_FORMAT), b"raw"))
    return found._replace(extensions=tuple(extensions), backing_file=name)


def meaning(data: bytes, cluster_size: int) -> tuple[object, ...]:
    """What a header says, the names of features and where things lie left out."""
    read = headers.parse(data.ljust(cluster_size, b"\0"))
    kept = tuple(each for each in read.extensions if each.type != ExtensionType.FEATURE_NAMES)
    return read.header.replace(backing_file_offset=0), read.unknown_fields, kept, read.backing_file


def torn(data: bytearray, writes: list[tuple[int, bytes]]) -> list[bytes]:
    """The disk after every part of every write, those before it done; each sector is written whole or not at all."""
    found = []
    for offset, part in writes:
        starts = range(0, len(part), SECTOR)
        for chosen in itertools.product((False, True), repeat=len(starts)):
            state = bytearray(data)
            for start in itertools.compress(starts, chosen):
                piece = part[start : start + SECTOR]
                state[offset + start : offset + start + len(piece)] = piece
            found.append(bytes(state))
        data[offset : offset + len(part)] = part
    return found


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([4096, 65536]),
    st.tuples(st.sampled_from([2, 3]), NAMES, st.lists(KINDS, max_size=3)),
    st.tuples(st.sampled_from([2, 3]), NAMES, st.lists(KINDS, max_size=3)),
)
def test_every_torn_state_is_the_old_header_or_the_new_one(
    cluster_size: int, before: tuple[int, str | None, list[int]], after: tuple[int, str | None, list[int]]
) -> None:
    old, new = preamble(cluster_size, *before), preamble(cluster_size, *after)
    disk = bytearray(headers.serialise(old).ljust(cluster_size, b"\0"))
    current = headers.parse(bytes(disk))
    meanings = {meaning(headers.serialise(each), cluster_size) for each in (old, new)}
    for state in torn(disk, steps(current, bytes(disk), new)):
        assert meaning(state, cluster_size) in meanings
    assert disk == headers.serialise(new).ljust(cluster_size, b"\0"), "nothing of the old header is left behind"


def test_one_sector_that_changes_is_one_write() -> None:
    old = preamble(65536, 3, None, [ExtensionType.FEATURE_NAMES, ExtensionType.BITMAPS])
    disk = headers.serialise(old).ljust(65536, b"\0")
    assert steps(headers.parse(disk), disk, old) == []
    changed = headers.replace_extension(old, ExtensionType.BITMAPS, b"c" * 24)
    assert [(offset, len(data)) for offset, data in steps(headers.parse(disk), disk, changed)] == [(512, 24 + 8)]


@pytest.mark.parametrize(("cluster_size", "length"), [(1024, 1023 - 160), (65536, 1023)])
def test_a_name_that_fits_nowhere_beside_the_present_one_is_written_at_once(cluster_size: int, length: int) -> None:
    old, new = (preamble(cluster_size, 3, letter * length, []) for letter in "ab")
    disk = headers.serialise(old).ljust(cluster_size, b"\0")
    planned = steps(headers.parse(disk), disk, new)
    assert (len(planned) == 1) == (cluster_size == 1024)
    assert planned[-1][0] == 0 or cluster_size > 1024
