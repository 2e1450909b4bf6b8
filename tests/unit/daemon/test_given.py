"""What is refused before a driver is asked, and whose errors are whose."""

from __future__ import annotations

from typing import Any

import pytest

from hostel.daemon.fault import located, speaker
from hostel.daemon.given import check_given
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.wire.rpc.programs import REMOTE
from support.refusal import refused


@pytest.mark.parametrize(
    ("procedure", "name", "arguments"),
    [
        ("domain_set_max_memory", "memory in virDomainSetMaxMemory", (0,)),
        ("domain_set_memory", "memory in virDomainSetMemory", (0,)),
        ("domain_set_memory_flags", "memory in virDomainSetMemoryFlags", (0, 1)),
        ("domain_set_vcpus", "nvcpus in virDomainSetVcpus", (0,)),
        ("domain_set_vcpus_flags", "nvcpus in virDomainSetVcpusFlags", (0, 1)),
        ("domain_send_process_signal", "pid_value in virDomainSendProcessSignal", (0, 9, 0)),
        ("domain_del_iothread", "iothread_id in virDomainDelIOThread", (0, 0)),
    ],
)
def test_nothing_is_set_to_zero(procedure: str, name: str, arguments: tuple[Any, ...]) -> None:
    row = REMOTE.by_name[procedure]
    with refused(ErrorCode.INVALID_ARG, f"{name} must not be zero"):
        check_given(row, (None, *arguments))
    check_given(row, (None, 1, *arguments[1:]))


@pytest.mark.parametrize(
    ("procedure", "arguments", "refusal"),
    [
        ("domain_rename", (None, None, 0), "new_name in virDomainRename must not be NULL"),
        ("domain_rename", (None, "", 0), "string new_name in virDomainRename must not be empty"),
        ("domain_get_block_info", (None, "", 0), "string disk in virDomainGetBlockInfo must not be empty"),
        ("domain_get_block_io_tune", (None, None, 20, 0), "disk in virDomainGetBlockIoTune must not be NULL"),
        ("domain_set_user_password", (None, "a", None, 0), "password in virDomainSetUserPassword must not be NULL"),
        ("domain_set_iothread_params", (None, 1, [], 0), "params in virDomainSetIOThreadParams must not be NULL"),
        (
            "domain_snapshot_create_xml",  # one of them is known, and the other bits are for the driver to see
            (None, "", 0xFFFF_FFF5),
            "Flags 'VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE' and 'VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA' "
            "are mutually exclusive",
        ),
        ("domain_lookup_by_id", (-1,), "id in virDomainLookupByID must be zero or greater"),
    ],
)
def test_what_must_be_said_is_asked_for(procedure: str, arguments: tuple[Any, ...], refusal: str) -> None:
    with refused(ErrorCode.INVALID_ARG, refusal):
        check_given(REMOTE.by_name[procedure], arguments)


@pytest.mark.parametrize("procedure", ["domain_set_max_memory", "domain_set_memory", "domain_set_memory_flags"])
def test_memory_has_a_bound(procedure: str) -> None:
    most = (1 << 63) // 1024 - 1
    with refused(ErrorCode.OVERFLOW, f"numerical overflow: input too large: {most}"):
        check_given(REMOTE.by_name[procedure], (None, most, 0))
    check_given(REMOTE.by_name[procedure], (None, most - 1, 0))


@pytest.mark.parametrize(
    ("function", "part"),
    [
        ("virDomainSnapshotDelete", ErrorDomain.DOMAIN_SNAPSHOT),
        ("virDomainCheckpointCreateXML", ErrorDomain.DOMAIN_CHECKPOINT),
        ("virDomainInterfaceStats", ErrorDomain.DOMAIN),
        ("virConnectListAllNWFilterBindings", ErrorDomain.NWFILTER),
        ("virConnectNumOfDefinedInterfaces", ErrorDomain.INTERFACE),
        ("virConnectFindStoragePoolSources", ErrorDomain.STORAGE),
        ("virConnectListAllNodeDevices", ErrorDomain.NODEDEV),
        ("virNodeListDevices", ErrorDomain.NODEDEV),
        ("virNodeGetInfo", ErrorDomain.DOMAIN),
        ("virConnectNumOfSecrets", ErrorDomain.SECRET),
        ("virNetworkUpdate", ErrorDomain.NETWORK),
        ("virStreamRecv", ErrorDomain.STREAMS),
    ],
)
def test_a_function_that_is_not_supported_is_of_its_own_part(function: str, part: ErrorDomain) -> None:
    error = located(VirtError(ErrorCode.NO_SUPPORT, function), function, ErrorDomain.QEMU)
    assert error.domain == part


def test_what_a_driver_refuses_is_the_drivers() -> None:
    assert speaker("domain_snapshot_delete", "qemu:///session") == ErrorDomain.QEMU
    assert speaker("storage_pool_build", "qemu:///session") == ErrorDomain.STORAGE
    assert speaker("storage_pool_build", "test:///default") == ErrorDomain.TEST
    error = VirtError(ErrorCode.INVALID_ARG, "unsupported flags")
    assert located(error, "virStoragePoolBuild", ErrorDomain.STORAGE).domain == ErrorDomain.STORAGE
    said = VirtError(ErrorCode.INVALID_ARG, "it is not there", domain=ErrorDomain.CPU)
    assert located(said, "virStoragePoolBuild", ErrorDomain.STORAGE).domain == ErrorDomain.CPU


def test_events_and_what_others_have_sent_keep_their_part() -> None:
    for code, function in (
        (ErrorCode.INVALID_ARG, "virConnectDomainEventRegisterAny"),
        (ErrorCode.INTERNAL_ERROR, "virDomainInterfaceAddresses"),
    ):
        assert located(VirtError(code, "no"), function).domain == ErrorDomain.NONE


def test_an_unreadable_document_is_of_the_part_that_reads_it() -> None:
    error = VirtError(ErrorCode.XML_DETAIL, "(pool_definition):1: no", domain=ErrorDomain.XML)
    assert located(error, "virStoragePoolDefineXML").domain == ErrorDomain.STORAGE


def test_who_asks_how_many_limits_there_are_names_no_disk() -> None:
    check_given(REMOTE.by_name["domain_get_block_io_tune"], (None, None, 0, 0))  # as virsh does first
