"""Networks of the session: definitions, and bridges that the host has or has not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hostel.drivers.base import NetworkRef
from hostel.drivers.network.driver import SessionNetworkDriver
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from support.refusal import refused

IP = "<ip address='192.168.7.1' netmask='255.255.255.0'/>"
UUID = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
def interfaces(tmp_path: Path) -> Path:
    """The host's network interfaces, as ``/sys/class/net`` shows them: one bridge."""
    (tmp_path / "net" / "br0").mkdir(parents=True)
    return tmp_path / "net"


@pytest.fixture
def directories(tmp_path: Path) -> Directories:
    return Directories.under(tmp_path / "home")


@pytest.fixture
def driver(directories: Directories, interfaces: Path) -> SessionNetworkDriver:
    return SessionNetworkDriver(directories, interfaces=interfaces)


def bridged(name: str = "lan", *, bridge: str = "br0", uuid: str = UUID) -> str:
    return f"<network><name>{name}</name><uuid>{uuid}</uuid><forward mode='bridge'/><bridge name='{bridge}'/></network>"


@pytest.fixture
def lan(driver: SessionNetworkDriver) -> NetworkRef:
    return driver.network_define_xml(bridged())


def names(driver: SessionNetworkDriver) -> list[str]:
    return [network.name for network in driver.connect_list_all_networks()]


def test_default_is_there_until_it_is_undefined_and_then_stays_away(
    driver: SessionNetworkDriver, directories: Directories
) -> None:
    default = driver.network_lookup_by_name("default")
    assert driver.network_is_persistent(default)
    assert not driver.network_is_active(default)
    driver.network_undefine(default)
    assert names(SessionNetworkDriver(directories)) == []


def test_default_is_active_where_the_system_made_its_bridge(driver: SessionNetworkDriver, interfaces: Path) -> None:
    (interfaces / "virbr0").mkdir()
    default = driver.network_lookup_by_name("default")
    assert driver.network_is_active(default)
    driver.network_destroy(default)
    assert not driver.network_is_active(default)
    driver.network_create(default)
    assert driver.network_is_active(default)


def test_life_of_a_network(driver: SessionNetworkDriver, lan: NetworkRef) -> None:
    assert driver.network_lookup_by_uuid(UUID.upper()) == lan
    assert not driver.network_is_active(lan)
    driver.network_create(lan)
    assert driver.network_is_active(lan)
    assert driver.network_get_bridge_name(lan) == "br0"
    with refused(ErrorCode.OPERATION_INVALID, "Requested operation is not valid: network is already active"):
        driver.network_create(lan)
    driver.network_destroy(lan)
    with refused(ErrorCode.OPERATION_INVALID, "Requested operation is not valid: network 'lan' is not active"):
        driver.network_destroy(lan)
    driver.network_undefine(lan)
    assert names(driver) == ["default"]


def test_another_process_sees_what_was_done(
    driver: SessionNetworkDriver, directories: Directories, interfaces: Path, lan: NetworkRef
) -> None:
    driver.network_create(lan)
    other = SessionNetworkDriver(directories, interfaces=interfaces)
    assert other.network_is_active(lan)
    other.network_destroy(lan)
    assert not driver.network_is_active(lan)


def test_network_whose_bridge_went_away_is_inactive(
    driver: SessionNetworkDriver, interfaces: Path, lan: NetworkRef
) -> None:
    driver.network_create(lan)
    (interfaces / "br0").rmdir()
    assert not driver.network_is_active(lan)


def test_undefining_an_active_network_makes_it_transient(driver: SessionNetworkDriver, lan: NetworkRef) -> None:
    driver.network_create(lan)
    driver.network_undefine(lan)
    assert driver.network_is_active(lan)
    assert not driver.network_is_persistent(lan)
    with refused(ErrorCode.OPERATION_INVALID, "Requested operation is not valid: can't undefine transient network"):
        driver.network_undefine(lan)
    with refused(
        ErrorCode.OPERATION_INVALID, "Requested operation is not valid: cannot set autostart for transient network"
    ):
        driver.network_set_autostart(lan, True)
    driver.network_destroy(lan)
    assert names(driver) == ["default"]


def test_transient_network_lives_as_long_as_it_is_active(driver: SessionNetworkDriver) -> None:
    network = driver.network_create_xml(bridged())
    assert driver.network_is_active(network)
    assert not driver.network_is_persistent(network)
    with refused(ErrorCode.OPERATION_INVALID, "Requested operation is not valid: network is already active as 'lan'"):
        driver.network_create_xml(bridged())
    driver.network_define_xml(bridged())
    driver.network_destroy(network)
    assert names(driver) == ["default", "lan"]


def test_redefinition_of_an_active_network_counts_from_the_next_start(
    driver: SessionNetworkDriver, interfaces: Path, lan: NetworkRef
) -> None:
    driver.network_create(lan)
    (interfaces / "br1").mkdir()
    driver.network_define_xml(bridged(bridge="br1"))
    assert driver.network_get_bridge_name(lan) == "br0"
    assert "br1" in driver.network_get_xml_desc(lan, inactive=True)
    assert "br0" in driver.network_get_xml_desc(lan)
    driver.network_destroy(lan)
    driver.network_create(lan)
    assert driver.network_get_bridge_name(lan) == "br1"


def test_autostart_activates_what_is_marked_and_has_its_bridge(driver: SessionNetworkDriver, lan: NetworkRef) -> None:
    gone = driver.network_define_xml(bridged("gone", bridge="br9", uuid=UUID.replace("1", "2")))
    for network in (gone, lan):
        driver.network_set_autostart(network, True)
    assert driver.connect_autostart() == [lan]
    assert driver.connect_autostart() == []
    driver.network_set_autostart(lan, False)
    assert not driver.network_get_autostart(lan)


def test_default_starts_by_itself_until_told_otherwise(driver: SessionNetworkDriver, interfaces: Path) -> None:
    default = driver.network_lookup_by_name("default")
    assert driver.network_get_autostart(default)
    driver.network_set_autostart(default, False)
    assert not driver.network_get_autostart(default)
    assert driver.network_lookup_by_name("default") == default
    driver.network_set_autostart(default, True)
    (interfaces / "virbr0").mkdir()
    driver.network_destroy(default)
    assert driver.connect_autostart() == [default]


def test_after_a_reboot_nothing_was_started(driver: SessionNetworkDriver, lan: NetworkRef) -> None:
    driver.network_create(lan)
    driver.network_create_xml(bridged("transient", uuid=UUID.replace("1", "2")))
    driver.forget_running()
    assert names(driver) == ["default", "lan"]
    assert not driver.network_is_active(lan)


def test_managed_network_gets_a_free_bridge_and_an_address_of_its_own(
    driver: SessionNetworkDriver, interfaces: Path
) -> None:
    (interfaces / "virbr1").mkdir()
    first = driver.network_define_xml(f"<network><name>a</name><forward/>{IP}</network>")
    second = driver.network_define_xml("<network><name>b</name></network>")
    assert driver.network_get_bridge_name(first) == "virbr2"  # default has virbr0, the host virbr1
    assert driver.network_get_bridge_name(second) == "virbr3"
    shown = driver.network_get_xml_desc(first)
    assert "<forward mode='nat'/>" in shown
    assert "<bridge name='virbr2' stp='on' delay='0'/>" in shown
    assert re.search(r"<mac address='52:54:00(:[0-9a-f]{2}){3}'/>", shown)
    assert driver.network_define_xml(shown) == first
    assert driver.network_get_xml_desc(first) == shown


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("<network><name>n</name></network>", "the host has no bridge 'virbr1'"),
        (
            f"<network><name>n</name><forward mode='nat'/>{IP}</network>",
            "forwards by nat over a bridge of its own (virbr1)",
        ),
        ("<network><name>n</name><forward mode='bridge'/></network>", "names no bridge of the host"),
        (bridged("n", bridge="br9"), "the host has no bridge 'br9'"),
    ],
)
def test_network_that_needs_privileges_is_refused_at_start_with_what_to_do(
    driver: SessionNetworkDriver, document: str, message: str
) -> None:
    network = driver.network_define_xml(document)
    with pytest.raises(VirtError) as caught:
        driver.network_create(network)
    assert caught.value.code is ErrorCode.OPERATION_UNSUPPORTED
    assert "use '--network user'" in str(caught.value)
    assert message in str(caught.value)
    assert not driver.network_is_active(network)


@pytest.mark.parametrize(
    ("document", "code", "message"),
    [
        ("<pool/>", ErrorCode.XML_ERROR, "XML error: expecting root element of 'network', not 'pool'"),
        ("<network/>", ErrorCode.NO_NAME, "missing name information"),
        ("<network><name>a/b</name></network>", ErrorCode.XML_DETAIL, "invalid char in name: /"),
        (
            "<network><name>n</name><uuid>x</uuid></network>",
            ErrorCode.INTERNAL_ERROR,
            "internal error: malformed uuid element",
        ),
        (
            "<network><name>n</name><bridge name='../etc'/></network>",
            ErrorCode.XML_ERROR,
            "XML error: bridge name '../etc' is no name of a network interface: 1 to 15 characters, no '/' and no "
            "blanks",
        ),
        (
            "<network><name>default</name></network>",
            ErrorCode.OPERATION_FAILED,
            "operation failed: network 'default' already exists with uuid ",
        ),
    ],
)
def test_bad_document_is_refused(driver: SessionNetworkDriver, document: str, code: ErrorCode, message: str) -> None:
    with pytest.raises(VirtError) as caught:
        driver.network_define_xml(document)
    assert caught.value.code is code
    assert str(caught.value).startswith(message)
    assert names(driver) == ["default"]


def test_uuid_of_another_network_is_refused(driver: SessionNetworkDriver, lan: NetworkRef) -> None:
    with refused(
        ErrorCode.OPERATION_FAILED, f"operation failed: network '{lan.name}' is already defined with uuid {UUID}"
    ):
        driver.network_define_xml(bridged("other"))


def test_broken_file_hides_only_itself(driver: SessionNetworkDriver, directories: Directories, lan: NetworkRef) -> None:
    (directories.config / "network" / "broken.xml").write_text("<network")
    (directories.config / "network" / "liar.xml").write_text(bridged("truth"))
    assert names(driver) == ["default", "lan"]
    with pytest.raises(VirtError, match=r"network file '.*broken\.xml' is broken: "):
        driver.network_lookup_by_name("broken")
    with pytest.raises(VirtError, match=r"network file '.*liar\.xml' is broken: it is about network 'truth'"):
        driver.network_lookup_by_name("liar")


@pytest.mark.parametrize("name", ["", "../lan", ".", "a\0", "\udc80", "x" * 300])
def test_name_that_no_network_can_have_finds_nothing(driver: SessionNetworkDriver, name: str) -> None:
    with pytest.raises(VirtError) as caught:
        driver.network_lookup_by_name(name)
    assert caught.value.code is ErrorCode.NO_NETWORK


def test_handle_of_a_network_that_was_replaced_finds_nothing(driver: SessionNetworkDriver, lan: NetworkRef) -> None:
    driver.network_undefine(lan)
    driver.network_define_xml(bridged(uuid=UUID.replace("1", "2")))
    with pytest.raises(VirtError) as caught:
        driver.network_create(lan)
    assert caught.value.code is ErrorCode.NO_NETWORK
