"""Who may do what, by the procedures' permissions."""

from __future__ import annotations

import pytest

from hostel.daemon.access import Access, Identity, api_name, check_looking, is_needed
from hostel.daemon.config import Rule
from hostel.errors import VirtError
from hostel.wire.rpc.programs import REMOTE

# A sample of what libvirt lets clients of its read-only socket do, and not do.
LOOKING = [
    "connect_get_type", "connect_list_all_domains", "domain_get_state", "domain_lookup_by_name", "storage_vol_get_info",
    "node_get_info", "connect_domain_event_callback_register_any", "secret_get_xml_desc", "domain_get_vcpus",
]  # fmt: skip
CHANGING = [
    "domain_create", "domain_destroy", "domain_define_xml", "domain_open_console", "domain_screenshot",
    "storage_vol_upload", "storage_vol_download", "secret_get_value", "domain_set_scheduler_parameters",
    "connect_domain_xml_from_native", "connect_find_storage_pool_sources", "domain_core_dump", "domain_send_key",
    "network_update", "node_device_dettach", "domain_block_peek", "domain_memory_peek",
    "domain_migrate_perform3_params",
]  # fmt: skip
WEB = "<domain><name>web</name></domain>"


def arguments(name: str, flags: int = 0) -> list[int]:
    """Arguments of which only the flags are looked at."""
    return [flags if field.name == "flags" else 0 for field in REMOTE.by_name[name].arguments.fields]


@pytest.mark.parametrize("name", LOOKING)
def test_looking_is_free(name: str) -> None:
    check_looking(REMOTE.by_name[name], arguments(name))


@pytest.mark.parametrize("name", CHANGING)
def test_changing_is_not(name: str) -> None:
    with pytest.raises(VirtError, match="read only access prevents vir"):
        check_looking(REMOTE.by_name[name], arguments(name))


@pytest.mark.parametrize(("flags", "refused"), [(0, False), (2, False), (1, True), (8, True), (3, True)])
def test_passwords_in_documents_are_for_those_who_may_change(flags: int, refused: bool) -> None:
    procedure = REMOTE.by_name["domain_get_xml_desc"]
    if refused:
        with pytest.raises(VirtError):
            check_looking(procedure, arguments("domain_get_xml_desc", flags))
    else:
        check_looking(procedure, arguments("domain_get_xml_desc", flags))


@pytest.mark.parametrize(
    ("flags", "needed"),
    [(0, {"write", "save"}), (1, {"write"}), (2, {"write", "save"}), (3, {"write", "save"})],
)
def test_definition_is_saved_unless_only_the_machine_is_meant(flags: int, needed: set[str]) -> None:
    procedure = REMOTE.by_name["domain_attach_device_flags"]
    given = arguments("domain_attach_device_flags", flags)
    assert {one.name for one in procedure.permissions if is_needed(one, procedure, given)} == needed


@pytest.mark.parametrize(
    ("procedure", "name"),
    [
        ("domain_create", "virDomainCreate"),
        ("storage_vol_create_xml", "virStorageVolCreateXML"),
        ("domain_lookup_by_uuid", "virDomainLookupByUUID"),
        ("connect_get_uri", "virConnectGetURI"),
        ("domain_get_os_type", "virDomainGetOSType"),
        ("domain_attach_device", "virDomainAttachDevice"),
    ],
)
def test_name_is_that_of_c(procedure: str, name: str) -> None:
    assert api_name(procedure) == name


@pytest.mark.parametrize(
    ("procedure", "given", "name"),
    [
        ("domain_migrate_prepare3_params", ([("destination_name", (7, "web"))], b"", 0), "web"),
        ("domain_migrate_prepare3_params", ([("destination_xml", (7, WEB))], b"", 0), "web"),
        ("domain_migrate_finish3_params", ([("destination_name", (7, "web"))], b"", 0, 1), "web"),
        ("domain_migrate_finish3_params", ([], b"", 0, 1), ""),
        ("domain_migrate_prepare3", (b"", None, 0, None, 0, WEB), "web"),
        ("domain_migrate_finish3", ("web", b"", None, None, 0, 0), "web"),
    ],
)  # fmt: skip
def test_migration_needs_permission_on_what_the_domain_is_called_there(
    procedure: str, given: tuple[object, ...], name: str
) -> None:
    """Where the domain is not there yet, a rule is about the name that it is going to have."""
    called = REMOTE.by_name[procedure]
    allowing = Access([Rule(user="*", name=name or "*", allow=("domain.*",))])
    allowing.check(Identity("somebody"), called, given, lambda kind, reference: "")
    with pytest.raises(VirtError, match="access denied"):
        Access([Rule(user="*", name="db*", allow=("domain.*",))]).check(
            Identity("somebody"), called, given, lambda kind, reference: ""
        )
