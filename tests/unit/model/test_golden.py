"""Documents of domains as we store them, against what real libvirt 9.0 made of the same ones (tools/record-golden)."""

from __future__ import annotations

import pytest

from hostel.model.domain.devices.character import Console
from hostel.model.domain.domain import Domain
from hostel.model.domain.validate import validate
from support.domain import CASES, GOLDEN, QEMU, defined


@pytest.mark.parametrize("case", CASES)
def test_a_definition_is_stored_as_libvirt_stores_it(case: str) -> None:
    domain = defined((GOLDEN / f"{case}.xml").read_text())
    assert domain.format() == (GOLDEN / f"{case}.out.xml").read_text()


@pytest.mark.parametrize("case", CASES)
def test_a_stored_definition_is_read_and_written_without_a_change(case: str) -> None:
    xml = (GOLDEN / f"{case}.out.xml").read_text()
    assert Domain.parse(xml).format() == xml
    assert not list(Domain.parse(xml).unknown_paths())


@pytest.mark.parametrize("case", CASES)
def test_a_definition_breaks_no_rule(case: str) -> None:
    validate(defined((GOLDEN / f"{case}.xml").read_text()), QEMU)


def places(domain: Domain) -> list[str]:
    """Every device's kind and address; consoles that are serial ports count as these."""
    return sorted(
        f"{device.TAG} {device.address.format()}"
        for device in domain.devices.all()
        if device.address is not None and not isinstance(device, Console)
    )


@pytest.mark.parametrize("case", CASES)
def test_defining_a_stored_definition_again_moves_no_device(case: str) -> None:
    domain = defined((GOLDEN / f"{case}.xml").read_text())
    again = defined(domain.format())
    assert places(again) == places(domain)
    assert again.uuid == domain.uuid and again.cpu == domain.cpu and again.memory == domain.memory


@pytest.mark.parametrize("case", CASES)
def test_a_definition_settles_when_it_is_defined_again(case: str) -> None:
    again = defined(defined((GOLDEN / f"{case}.xml").read_text()).format())
    consoles = again.devices.consoles
    third = defined(again.format())
    # A console's number is its place among the consoles, counted before the first serial port becomes one.
    for console, last in zip(consoles, third.devices.consoles, strict=True):
        console.target = last.target
    assert third == again
