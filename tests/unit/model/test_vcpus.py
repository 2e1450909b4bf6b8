"""Processors one by one, as libvirt keeps them."""

from __future__ import annotations

import pytest

from hostel.drivers.qemu import document as documents
from hostel.errors import ModelError, VirtError
from hostel.model.domain import vcpus
from hostel.model.domain.domain import Domain
from support.domain import QEMU
from support.refused import document

NO = "<vcpu id='0' enabled='no'/>"


def machine(listed: str = "", head: str = "<vcpu current='2'>6</vcpu>") -> Domain:
    return documents.parse(document(head=f"{head}{listed and f'<vcpus>{listed}</vcpus>'}"), QEMU)


def entry(number: int, *, enabled: str = "yes", more: str = "") -> str:
    return f"<vcpu id='{number}' enabled='{enabled}'{more}/>"


def shown(domain: Domain) -> tuple[str, str]:
    """Which are there, and which of these may be taken out; the number that the document says."""
    letters = "".join("." if not item.enabled else "h" if item.hotpluggable else "s" for item in vcpus.states(domain))
    current = domain.vcpu.current if domain.vcpu is not None else None
    return letters, f"{current}{'' if domain.vcpus is None else ' listed'}"


def test_number_of_a_definition_changes_as_libvirts() -> None:
    domain = machine()
    seen = [shown(domain)]
    for count, hotpluggable in ((3, False), (4, True), (5, False), (2, False)):
        vcpus.set_count(domain, count, hotpluggable=hotpluggable)
        seen.append(shown(domain))
    vcpus.change(domain, {5}, is_on=True)
    seen.append(shown(domain))
    vcpus.set_count(domain, 4, hotpluggable=False)
    seen.append(shown(domain))
    assert seen == [
        ("ss....", "2"),
        ("sss...", "3"),
        ("sssh..", "4 listed"),
        ("ssshh.", "5 listed"),
        ("ss....", "2 listed"),
        ("ss...h", "3 listed"),
        ("sss..h", "4 listed"),
    ]


def test_what_is_not_listed_is_not_there() -> None:
    domain = machine(entry(0) + entry(4, more=" hotpluggable='yes'"))
    assert shown(domain) == ("s...h.", "2 listed")
    assert [item.id for item in vcpus.plugged_in(domain)] == [4]


def test_order_is_that_of_plugging_in() -> None:
    others = entry(2, more=" hotpluggable='yes' order='3'") + entry(3, more=" hotpluggable='yes' order='2'")
    domain = machine(entry(0, more=" order='1'") + others)
    assert [item.id for item in vcpus.plugged_in(domain)] == [3, 2]
    vcpus.check_orders(domain)


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (NO, "vcpu 0 can't be offline"),
        (entry(0, more=" hotpluggable='yes'"), "vcpu0 can't be hotpluggable"),
        (entry(0, more=" order='2'"), "vcpu0 must be enabled first"),
        (entry(0) + entry(1, more=" order='1'"), "all vcpus must have either set or unset order"),
        (
            entry(0) + entry(1, more=" hotpluggable='yes'") + entry(2, more=" hotpluggable='no'"),
            "online non-hotpluggable vcpus need to be ordered prior to hotplugable vcpus",
        ),
        (
            entry(0, more=" order='1'") + entry(1, more=" order='3'") + entry(2, more=" order='2'"),
            "online non-hotpluggable vcpus must be ordered in ascending order",
        ),
        (entry(0) + entry(1, enabled="no", more=" hotpluggable='no'"), "vcpu '1' is both offline and not hotpluggable"),
        (entry(0) + entry(9), "vcpu id '9' is out of range of maximum vcpu count"),
    ],
)
def test_list_that_cannot_be_is_refused(listed: str, message: str) -> None:
    with pytest.raises(VirtError, match=message):
        machine(listed)


def test_order_is_one_processors() -> None:
    twice = entry(1, more=" hotpluggable='yes' order='2'") + entry(2, more=" hotpluggable='yes' order='2'")
    with pytest.raises(ModelError, match="duplicate vcpu order '2'"):
        vcpus.check_orders(machine(entry(0, more=" order='1'") + twice))
    with pytest.raises(ModelError, match="vcpu order '7' exceeds vcpu count"):
        vcpus.check_orders(machine(entry(0, more=" order='1'") + entry(1, more=" hotpluggable='yes' order='7'")))
