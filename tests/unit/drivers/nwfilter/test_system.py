"""Filters on disk, the standard ones, and what is said of interfaces that cannot be filtered."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.drivers import tool
from hostel.drivers.base.nwfilter import NwfilterBindingRef, NwfilterBindings
from hostel.drivers.nwfilter import guest
from hostel.drivers.nwfilter.bindings import Bindings
from hostel.drivers.nwfilter.filters import StoredFilters
from hostel.drivers.nwfilter.instance import instances, missing
from hostel.drivers.nwfilter.session import SessionNwfilterDriver
from hostel.drivers.nwfilter.standard import standard_filters
from hostel.drivers.nwfilter.system import SystemNwfilterDriver
from hostel.drivers.qemu.wiring import Wiring
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.devices.interface import Interface
from hostel.model.nwfilter.filter import read_filter

UUID = "5c6d49af-b071-6127-b4ec-6f8ed4b55335"
OWN = f"<filter name='own' chain='root'><uuid>{UUID}</uuid><rule action='drop' direction='in'><ip/></rule></filter>"


@pytest.fixture
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Directories:
    """Of a host that has none of the programs: no rule of the real one is looked at."""
    monkeypatch.setattr(tool, "find", lambda name: None)
    return Directories.under(tmp_path)


def code(call: object, *arguments: object) -> ErrorCode:
    assert callable(call)
    with pytest.raises(VirtError) as error:
        call(*arguments)
    return error.value.code


def test_standard_filters_are_whole() -> None:
    filters = standard_filters()
    assert len(filters) == 24
    assert len({filter.uuid for filter in filters.values()}) == 24
    for name, filter in filters.items():
        assert read_filter(filter.format()).format() == filter.format(), name
    needed = missing(instances(filters["clean-traffic"], {}, filters.__getitem__))
    assert needed == ["IP", "MAC"]


def test_standard_filters_are_there_until_they_are_changed_or_undefined(directories: Directories) -> None:
    driver = SystemNwfilterDriver(directories)
    assert [ref.name for ref in driver.connect_list_all_nwfilters()] == sorted(standard_filters())
    ref = driver.nwfilter_lookup_by_name("allow-arp")
    changed = driver.nwfilter_get_xml_desc(ref).replace("accept", "drop")
    assert driver.nwfilter_define_xml(changed) == ref
    again = SystemNwfilterDriver(directories)
    assert "action='drop'" in again.nwfilter_get_xml_desc(ref)
    again.nwfilter_undefine(ref)
    assert code(again.nwfilter_lookup_by_name, "allow-arp") is ErrorCode.NO_NWFILTER
    again.nwfilter_define_xml(changed)
    assert SystemNwfilterDriver(directories).nwfilter_lookup_by_uuid(ref.uuid) == ref


@pytest.mark.parametrize("damage", [b"<filter", b"\xff\xfe", b""])
def test_a_filter_whose_file_is_damaged_hides_no_other(directories: Directories, damage: bytes) -> None:
    driver = SystemNwfilterDriver(directories)
    ref = driver.nwfilter_define_xml(OWN)
    path = directories.config / "nwfilter/own.xml"
    path.write_bytes(damage)
    assert [known.name for known in driver.connect_list_all_nwfilters()] == sorted(standard_filters())
    with pytest.raises(VirtError, match=f"'{path}' is broken"):
        driver.nwfilter_lookup_by_name("own")
    driver.nwfilter_define_xml(OWN.replace("own", "other").replace(UUID, UUID[::-1]))
    assert driver.nwfilter_define_xml(OWN) == ref
    assert driver.nwfilter_lookup_by_name("own") == ref


def test_filters_are_kept(directories: Directories) -> None:
    driver = SystemNwfilterDriver(directories)
    driver.nwfilter_define_xml(OWN)
    assert code(driver.nwfilter_define_xml, OWN.replace("'own'", "'other'")) is ErrorCode.OPERATION_FAILED
    loop = OWN.replace("<rule", "<filterref filter='own'/><rule")
    assert code(driver.nwfilter_define_xml, loop) is ErrorCode.OPERATION_FAILED
    assert code(driver.nwfilter_define_xml, OWN.replace("'own'", "'../own'").replace(UUID, "")) is ErrorCode.XML_ERROR
    assert UUID in SystemNwfilterDriver(directories).nwfilter_get_xml_desc(driver.nwfilter_lookup_by_name("own"))


def test_a_file_that_is_no_filter_is_told(directories: Directories) -> None:
    driver = SystemNwfilterDriver(directories)
    driver.nwfilter_define_xml(OWN)
    place = directories.config / "nwfilter/own.xml"
    for content in (b"\xff\xfe", b"<filter>", b""):
        place.write_bytes(content)
        with pytest.raises(VirtError):
            StoredFilters(directories)["own"]


def test_an_interface_that_is_away_can_have_a_filter(directories: Directories) -> None:
    driver = SystemNwfilterDriver(directories)
    document = (
        f"<filterbinding><owner><name>vm</name><uuid>{UUID}</uuid></owner><portdev name='nobodys0'/>"
        "<mac address='52:54:00:11:22:33'/><filterref filter='allow-arp'/></filterbinding>"
    )
    ref = driver.nwfilter_binding_create_xml(document)
    assert ref == NwfilterBindingRef("nobodys0", "allow-arp")
    assert "<parameter name='MAC' value='52:54:00:11:22:33'/>" in driver.nwfilter_binding_get_xml_desc(ref)
    assert code(driver.nwfilter_binding_create_xml, document) is ErrorCode.OPERATION_FAILED
    assert code(driver.nwfilter_undefine, driver.nwfilter_lookup_by_name("allow-arp")) is ErrorCode.OPERATION_INVALID
    driver.nwfilter_binding_delete(ref)
    assert code(driver.nwfilter_binding_lookup_by_port_dev, "nobodys0") is ErrorCode.NO_NWFILTER_BINDING
    for name in ("../x", "x y", "x;reboot", "a" * 16, "-j", "x+"):
        with pytest.raises(VirtError):
            driver.nwfilter_binding_create_xml(document.replace("nobodys0", name))
    assert driver.connect_list_all_nwfilter_bindings() == []


def test_addresses_that_make_no_sense_are_none(directories: Directories) -> None:
    bindings = Bindings(directories)
    bindings.save_addresses("vnet0", {"10.0.0.2": float("inf"), "10.0.0.3": 1.0})
    assert list(bindings.addresses("vnet0")) == ["10.0.0.2"]
    for content in ("", "[", "[1]", '{"10.0.0.2": "x"}'):
        (directories.state / "nwfilter/vnet0.addresses").write_text(content)
        assert bindings.addresses("vnet0") == {}


def test_a_session_has_neither_filters_nor_bindings() -> None:
    driver = SessionNwfilterDriver()
    assert isinstance(driver, NwfilterBindings)
    assert driver.connect_list_all_nwfilter_bindings() == []
    assert code(driver.nwfilter_binding_create_xml, "<filterbinding/>") is ErrorCode.OPERATION_INVALID
    ref = NwfilterBindingRef("vnet0", "f")
    for call in (driver.nwfilter_binding_get_xml_desc, driver.nwfilter_binding_delete):
        assert code(call, ref) is ErrorCode.NO_NWFILTER_BINDING
    assert code(driver.nwfilter_binding_lookup_by_port_dev, "vnet0") is ErrorCode.NO_NWFILTER_BINDING


def interface(kind: str, inside: str = "<filterref filter='clean-traffic'/>") -> Interface:
    source = {"bridge": "<source bridge='br0'/>", "network": "<source network='lan'/>"}.get(kind, "")
    mac = "<mac address='52:54:00:11:22:33'/>"
    return Interface.parse(f"<interface type='{kind}'>{mac}{source}{inside}</interface>", "interface")


def test_filters_of_interfaces_that_cannot_be_enforced_are_refused(directories: Directories) -> None:
    enforcing = Wiring(None, SystemNwfilterDriver(directories), is_allowed=lambda: True)
    assert enforcing.makes(interface("bridge"))
    port = "<virtualport type='openvswitch'/><filterref filter='clean-traffic'/>"
    for refused, words in (
        (interface("user"), "filterref is not supported for network interfaces of type user"),
        (interface("ethernet"), "filterref is not supported for network interfaces of type ethernet"),
        (interface("bridge", port), "with virtualport type openvswitch"),
        (interface("network"), "qemu:///system"),  # of a user's: nothing is plugged into it
    ):
        with pytest.raises(VirtError, match=words):
            enforcing.makes(refused)
    for wiring in (
        Wiring(None, SystemNwfilterDriver(directories), is_allowed=lambda: False),
        Wiring(None, SessionNwfilterDriver(), is_allowed=lambda: True),
        Wiring(None),
    ):
        with pytest.raises(VirtError, match="only the system's administrator can set rules") as error:
            wiring.makes(interface("bridge"))
        assert error.value.code is ErrorCode.OPERATION_UNSUPPORTED


def test_a_guests_filter_is_a_binding_until_the_guest_is_gone(directories: Directories) -> None:
    driver = SystemNwfilterDriver(directories)
    value = "<parameter name='IP' value='10.0.0.2'/>"
    named = interface("bridge", f"<filterref filter='clean-traffic'>{value}</filterref>")
    assert named.filterref is not None
    for tap in ("nobodys0", "nobodys1"):
        driver.apply(guest.binding_of(named, named.filterref, tap, name="vm", uuid=UUID))
    assert value in driver.nwfilter_binding_get_xml_desc(NwfilterBindingRef("nobodys0", "clean-traffic"))
    driver.remove_of(UUID, "52:54:00:99:99:99")
    assert len(driver.connect_list_all_nwfilter_bindings()) == 2
    driver.remove_of(UUID, "52:54:00:11:22:33")
    assert driver.connect_list_all_nwfilter_bindings() == []
