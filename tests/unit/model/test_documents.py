"""Documents beside the domain's, as real libvirt 9.0 writes them (tools/record-golden)."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.codec.xml import Element
from hostel.model.storage import Pool, Volume
from support.documents import KINDS, Reader

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = sorted(f"{kind}/{path.name}" for kind in KINDS for path in (GOLDEN / kind).glob("*.xml"))
WRITTEN = [case for case in CASES if case.endswith(".out.xml")]
GIVEN = [case for case in CASES if not case.endswith(".out.xml")]


def kind_of(case: str) -> tuple[type[Element], Reader]:
    return KINDS[case.partition("/")[0]]


@pytest.mark.parametrize("case", WRITTEN)
def test_what_libvirt_writes_is_written_without_a_change(case: str) -> None:
    xml = (GOLDEN / case).read_text()
    document = kind_of(case)[0].parse(xml)
    assert list(document.unknown_paths()) == []
    assert document.format() == xml


@pytest.mark.parametrize("case", GIVEN)
def test_what_we_wrote_settles(case: str) -> None:
    cls, _ = kind_of(case)
    document = cls.parse((GOLDEN / case).read_text())
    assert list(document.unknown_paths()) == []
    assert cls.parse(document.format()) == document


def read(case: str, expected: str) -> Element:
    """A document, with what libvirt's test driver makes up beside it: sizes, and where a volume is."""
    document = kind_of(case)[1]((GOLDEN / case).read_text())
    if isinstance(document, Pool):
        pool = Pool.parse(expected)
        document.capacity, document.allocation, document.available = pool.capacity, pool.allocation, pool.available
    elif isinstance(document, Volume):
        volume = Volume.parse(expected)
        assert document.target is not None and volume.target is not None
        document.key, document.target.path, document.allocation = volume.key, volume.target.path, volume.allocation
    return document


@pytest.mark.parametrize("case", GIVEN)
def test_what_is_read_is_completed_as_libvirt_does(case: str) -> None:
    expected = (GOLDEN / case).with_suffix(".out.xml").read_text()
    assert read(case, expected).format() == expected


@pytest.mark.parametrize("case", WRITTEN)
def test_what_is_complete_stays_as_it_is(case: str) -> None:
    expected = (GOLDEN / case).read_text()
    assert read(case, expected).format() == expected
