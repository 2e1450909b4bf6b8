"""Our records of what libvirt makes of domains, against a real libvirtd."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from support import libvirtd
from support.domain import CASES, GOLDEN
from support.libvirtd import Libvirtd
from support.refused import REFUSED, recorded

pytestmark = [pytest.mark.requires_tool("virsh"), pytest.mark.requires_tool("libvirtd")]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Libvirtd]:
    with libvirtd.running() as daemon:
        daemon.skip_unless_recorded()
        yield daemon


@pytest.mark.parametrize("case", CASES)
def test_libvirt_stores_a_definition_as_recorded(daemon: Libvirtd, case: str) -> None:
    path = GOLDEN / f"{case}.xml"
    found = re.search("<name>([^<]+)</name>", path.read_text())
    assert found is not None
    assert daemon.normal_form(path, found[1]).strip() == (GOLDEN / f"{case}.out.xml").read_text().strip()


def test_libvirt_refuses_in_the_words_that_are_recorded(daemon: Libvirtd) -> None:
    assert {name: daemon.refusal(xml) for name, xml in REFUSED.items()} == recorded()
