"""Filters of packets as objects: the test driver's, and the session's."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from hostel.drivers.base.nwfilter import NwfilterRef
from hostel.drivers.nwfilter.memory import MemoryNwfilterDriver
from hostel.drivers.nwfilter.session import SessionNwfilterDriver
from hostel.drivers.readonly import read_only
from hostel.errors import ErrorCode, VirtError

UUID = "5c6d49af-b071-6127-b4ec-6f8ed4b55335"
OTHER = "6c6d49af-b071-6127-b4ec-6f8ed4b55335"


def document(name: str, uuid: str = "", *included: str) -> str:
    entries = "".join(f"<filterref filter='{other}'/>" for other in included)
    return f"<filter name='{name}'>{f'<uuid>{uuid}</uuid>' if uuid else ''}{entries}</filter>"


@pytest.fixture
def driver() -> MemoryNwfilterDriver:
    return MemoryNwfilterDriver({}, threading.RLock())


def refusal(driver: MemoryNwfilterDriver, xml: str) -> str:
    with pytest.raises(VirtError) as caught:
        driver.nwfilter_define_xml(xml)
    assert caught.value.code is ErrorCode.OPERATION_FAILED
    return caught.value.message


def test_a_filter_is_found_by_name_and_by_uuid_until_it_is_undefined(driver: MemoryNwfilterDriver) -> None:
    ref = driver.nwfilter_define_xml(document("quiet", UUID))
    assert ref == NwfilterRef("quiet", UUID)
    assert driver.nwfilter_lookup_by_name("quiet") == driver.nwfilter_lookup_by_uuid(UUID.upper()) == ref
    assert driver.nwfilter_get_xml_desc(ref).startswith("<filter name='quiet' chain='root'>")
    driver.nwfilter_undefine(ref)
    assert driver.connect_list_all_nwfilters() == []
    for look in (
        lambda: driver.nwfilter_lookup_by_name("quiet"),
        lambda: driver.nwfilter_lookup_by_uuid(UUID),
        lambda: driver.nwfilter_undefine(ref),
        lambda: driver.nwfilter_get_xml_desc(ref),
    ):
        with pytest.raises(VirtError, match="Network filter not found: no nwfilter with matching") as caught:
            look()
        assert caught.value.code is ErrorCode.NO_NWFILTER


def test_a_reference_to_a_filter_that_is_gone_is_to_no_other_of_its_name(driver: MemoryNwfilterDriver) -> None:
    gone = driver.nwfilter_define_xml(document("quiet", UUID))
    driver.nwfilter_undefine(gone)
    ref = driver.nwfilter_define_xml(document("quiet", OTHER))
    for call in (driver.nwfilter_get_xml_desc, driver.nwfilter_undefine):
        with pytest.raises(VirtError, match=f"no nwfilter with matching uuid '{UUID}'") as caught:
            call(gone)
        assert caught.value.code is ErrorCode.NO_NWFILTER
    assert driver.connect_list_all_nwfilters() == [ref]


def test_a_filter_is_changed_under_its_own_uuid_only(driver: MemoryNwfilterDriver) -> None:
    driver.nwfilter_define_xml(document("quiet", UUID))
    driver.nwfilter_define_xml(document("quiet", UUID, "clean"))
    assert "<filterref filter='clean'/>" in driver.nwfilter_get_xml_desc(NwfilterRef("quiet", UUID))
    assert refusal(driver, document("quiet", OTHER)).endswith(f"filter 'quiet' already exists with uuid {UUID}")
    assert refusal(driver, document("quiet")).endswith(f"filter 'quiet' already exists with uuid {UUID}")
    assert "same UUID but different name ('quiet')" in refusal(driver, document("loud", UUID))


def test_filters_cannot_include_themselves(driver: MemoryNwfilterDriver) -> None:
    assert "would introduce a loop" in refusal(driver, document("a", UUID, "a"))
    driver.nwfilter_define_xml(document("a", UUID, "b", "b"))
    driver.nwfilter_define_xml(document("b", OTHER, "c"))
    assert "would introduce a loop" in refusal(driver, document("c", "", "x", "a"))
    driver.nwfilter_define_xml(document("c", "", "x"))


def test_a_uuid_that_is_none_is_an_error(driver: MemoryNwfilterDriver) -> None:
    with pytest.raises(VirtError, match="must be a valid UUID"):
        driver.nwfilter_lookup_by_uuid("nothing")


def test_a_session_has_none_and_cannot_have_one() -> None:
    driver = SessionNwfilterDriver()
    assert driver.connect_list_all_nwfilters() == []
    with pytest.raises(VirtError, match="Can't define NWFilters in session mode") as caught:
        driver.nwfilter_define_xml(document("quiet"))
    assert caught.value.code is ErrorCode.OPERATION_INVALID
    looks: tuple[Callable[[], object], ...] = (
        lambda: driver.nwfilter_lookup_by_name("quiet"),
        lambda: driver.nwfilter_lookup_by_uuid(UUID),
    )
    for look in looks:
        with pytest.raises(VirtError, match="Network filter not found"):
            look()


def test_read_only_connections_change_none(driver: MemoryNwfilterDriver) -> None:
    with pytest.raises(VirtError) as caught:
        read_only(driver).nwfilter_define_xml(document("quiet"))
    assert caught.value.code is ErrorCode.OPERATION_DENIED
    assert read_only(driver).connect_list_all_nwfilters() == []
