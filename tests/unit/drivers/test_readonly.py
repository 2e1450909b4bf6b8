"""Read-only connections: which calls they let through, for every call there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.drivers.base import DomainXmlFlag, HypervisorDriver, NetworkDriver, StorageDriver
from hostel.drivers.base.agent import InsideDriver
from hostel.drivers.base.backup import BackupDriver, CheckpointDriver
from hostel.drivers.base.capabilities import DomainCapabilitiesDriver, ModelNamesDriver, ProcessorDriver
from hostel.drivers.base.snapshot import SnapshotDriver
from hostel.drivers.readonly import read_only
from hostel.drivers.registry import open_drivers
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, VirtError
from support.refusal import refused

CHANGING = {
    "hypervisor": (
        "connect_autostart connect_domain_xml_from_native connect_domain_xml_to_native "
        "domain_create domain_create_xml domain_define_xml domain_destroy domain_open_console "
        "domain_reboot domain_reset domain_resume domain_set_autostart domain_shutdown domain_suspend domain_undefine"
    ),
    "network": (
        "network_create network_create_xml network_define_xml network_destroy network_set_autostart network_undefine "
        "network_update"
    ),
    "storage": (
        "connect_find_storage_pool_sources storage_pool_build storage_pool_create storage_pool_create_xml "
        "storage_pool_define_xml storage_pool_delete "
        "storage_pool_destroy storage_pool_refresh storage_pool_set_autostart storage_pool_undefine "
        "storage_vol_create_xml storage_vol_create_xml_from storage_vol_delete storage_vol_download "
        "storage_vol_resize storage_vol_upload storage_vol_wipe_pattern"
    ),
}
# Of what not every driver has.
LOOKING = {
    DomainCapabilitiesDriver: "",
    InsideDriver: "",
    ModelNamesDriver: "connect_get_cpu_model_names",
    ProcessorDriver: "connect_compare_cpu connect_baseline_cpu",
    BackupDriver: "domain_backup_get_xml_desc",
    CheckpointDriver: (
        "domain_list_all_checkpoints domain_checkpoint_list_all_children domain_checkpoint_lookup_by_name "
        "domain_checkpoint_get_parent domain_checkpoint_get_xml_desc"
    ),
    SnapshotDriver: (
        "domain_snapshot_get_xml_desc domain_list_all_snapshots domain_snapshot_list_all_children "
        "domain_snapshot_lookup_by_name domain_has_current_snapshot domain_snapshot_current domain_snapshot_get_parent "
        "domain_snapshot_is_current domain_snapshot_has_metadata domain_snapshot_num"
    ),
}
PROTOCOLS = {"hypervisor": HypervisorDriver, "network": NetworkDriver, "storage": StorageDriver}


def calls(kind: str) -> list[str]:
    return [name for name in vars(PROTOCOLS[kind]) if not name.startswith("_") and name != "close"]


@pytest.mark.parametrize("kind", PROTOCOLS)
def test_every_call_either_changes_and_is_refused_or_looks_and_is_let_through(kind: str, tmp_path: Path) -> None:
    drivers = open_drivers("test:///default", Directories.under(tmp_path))
    try:
        driver = getattr(drivers.read_only(), kind)
        changing = CHANGING[kind].split()
        for name in calls(kind):
            call = getattr(driver, name)
            if name in changing:
                with pytest.raises(VirtError, match="read only access prevents vir") as caught:
                    call("whatever", "arguments")
                assert caught.value.code is ErrorCode.OPERATION_DENIED
            else:
                assert getattr(call, "__name__", "") != "refuse", name
        assert set(changing) <= set(calls(kind))
    finally:
        drivers.close()


@pytest.mark.parametrize("protocol", LOOKING)
def test_what_machines_have_is_looked_at_and_no_more(protocol: type[object]) -> None:
    class Everything:
        def __getattr__(self, name: str) -> object:
            return lambda *arguments: None

    driver = read_only(Everything())
    methods = [name for name in vars(protocol) if name.startswith(("domain_", "connect_"))]
    let_through = {name for name in methods if getattr(getattr(driver, name), "__name__", "") != "refuse"}
    assert let_through == set(LOOKING[protocol].split())


@pytest.mark.parametrize(
    ("call", "api"),
    [
        ("domain_define_xml", "virDomainDefineXML"),
        ("storage_vol_create_xml_from", "virStorageVolCreateXMLFrom"),
        ("network_set_autostart", "virNetworkSetAutostart"),
    ],
)
def test_refusal_names_libvirts_call(call: str, api: str) -> None:
    class Everything:
        def __getattr__(self, name: str) -> object:
            return lambda *arguments: None

    with refused(ErrorCode.OPERATION_DENIED, f"operation forbidden: read only access prevents {api}"):
        getattr(read_only(Everything()), call)()


@pytest.mark.parametrize(
    ("call", "api"),
    [
        ("domain_managed_save_get_xml_desc", "virDomainManagedSaveGetXMLDesc"),
        ("domain_snapshot_get_xml_desc", "virDomainSnapshotGetXMLDesc"),
        ("domain_checkpoint_get_xml_desc", "virDomainCheckpointGetXMLDesc"),
    ],
)
def test_passwords_of_what_is_kept_are_not_shown(call: str, api: str) -> None:
    class Everything:
        def __getattr__(self, name: str) -> object:
            return lambda *arguments: "document"

    document = getattr(read_only(Everything()), call)
    assert document("ref") == document("ref", 0) == "document"
    with refused(ErrorCode.OPERATION_DENIED, f"operation forbidden: {api} with secure flag"):
        document("ref", DomainXmlFlag.SECURE)


def test_passwords_are_not_shown(tmp_path: Path) -> None:
    drivers = open_drivers("test:///default", Directories.under(tmp_path))
    try:
        hypervisor = drivers.read_only().hypervisor
        domain = hypervisor.domain_lookup_by_name("test")
        assert "<domain" in hypervisor.domain_get_xml_desc(domain)
        with refused(ErrorCode.OPERATION_DENIED, "operation forbidden: virDomainGetXMLDesc with secure flag"):
            hypervisor.domain_get_xml_desc(domain, DomainXmlFlag.SECURE)
    finally:
        drivers.close()
