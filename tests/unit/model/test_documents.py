"""Networks, pools and volumes as real libvirt 9.0 writes them (tools/record-golden)."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.codec.xml import Element
from hostel.model.network import Network
from hostel.model.storage import Pool, Volume

GOLDEN = Path(__file__).parents[2] / "golden"
KINDS: dict[str, type[Element]] = {"network": Network, "pool": Pool, "volume": Volume}
CASES = sorted(f"{kind}/{path.name}" for kind in KINDS for path in (GOLDEN / kind).glob("*.xml"))


@pytest.mark.parametrize("case", [case for case in CASES if case.endswith(".out.xml")])
def test_what_libvirt_writes_is_written_without_a_change(case: str) -> None:
    xml = (GOLDEN / case).read_text()
    document = KINDS[case.partition("/")[0]].parse(xml)
    assert list(document.unknown_paths()) == []
    assert document.format() == xml


@pytest.mark.parametrize("case", [case for case in CASES if not case.endswith(".out.xml")])
def test_what_we_wrote_settles(case: str) -> None:
    kind = KINDS[case.partition("/")[0]]
    document = kind.parse((GOLDEN / case).read_text())
    assert list(document.unknown_paths()) == []
    assert kind.parse(document.format()) == document


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("network/") and ".out." not in case])
def test_network_that_says_everything_is_written_as_libvirt_writes_it(case: str) -> None:
    path = GOLDEN / case
    assert Network.parse(path.read_text()).format() == path.with_suffix(".out.xml").read_text()
