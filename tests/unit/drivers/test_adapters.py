"""The table between procedures and drivers: every row names what there is, and says the same both ways."""

from __future__ import annotations

import enum
import importlib
import inspect
import pkgutil
from typing import Any

import pytest

import hostel.drivers.base
from hostel.codec.xdr import Field
from hostel.drivers.adapters import ADAPTERS, PROCEDURE_OF, from_wire, to_wire, uuid_bytes, uuid_text
from hostel.drivers.answering import Answering
from hostel.drivers.base import (
    DestroyFlag,
    DomainInfo,
    DomainRef,
    DomainState,
    NetworkRef,
    PoolRef,
    StartFlag,
    VolumeRef,
    WipeAlgorithm,
)
from hostel.drivers.base.domain import Affect, ShutdownFlag
from hostel.errors import ErrorCode, VirtError
from hostel.wire.rpc.programs import REMOTE

UUID = "12345678-9abc-def0-1234-56789abcdef0"
DOMAIN = ("web", bytes.fromhex(UUID.replace("-", "")), 3)
REF = DomainRef("web", UUID, 3)


def declared() -> set[str]:
    """Every method that the drivers' protocols have."""
    names: set[str] = set()
    for module in pkgutil.iter_modules(hostel.drivers.base.__path__):
        for _, cls in inspect.getmembers(
            importlib.import_module(f"hostel.drivers.base.{module.name}"), inspect.isclass
        ):
            if getattr(cls, "_is_protocol", False):
                names |= {name for name in vars(cls) if not name.startswith("_")}
    return names


class Driver:
    """Remembers how it was called, and answers what it was told to."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.called: tuple[str, tuple[Any, ...], dict[str, Any]] | None = None

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            self.called = name, arguments, options
            return self.answer

        return call


def answer(procedure: str, driver: Driver, *arguments: Any) -> tuple[Any, ...]:
    return tuple(Answering(REMOTE.by_name[procedure], ADAPTERS[procedure])(driver, arguments))


@pytest.mark.parametrize("name", ADAPTERS)
def test_row_names_a_procedure_and_a_method(name: str) -> None:
    assert name in REMOTE.by_name
    assert not REMOTE.by_name[name].event
    assert ADAPTERS[name].method in declared(), f"no protocol of drivers.base has {ADAPTERS[name].method}"
    assert ADAPTERS[name].method in PROCEDURE_OF


def test_references_are_made_and_unmade() -> None:
    for kind, wire, ref in (
        ("domain", DOMAIN, REF),
        ("network", DOMAIN[:2], NetworkRef("web", UUID)),
        ("pool", DOMAIN[:2], PoolRef("web", UUID)),
        ("volume", ("p", "v", "/v"), VolumeRef("p", "v", "/v")),
        ("uuid", DOMAIN[1], UUID),
    ):
        make, unmake = from_wire(Field("x", kind)), to_wire(Field("x", kind))
        assert make is not None
        assert make(wire) == ref
        assert (unmake(ref) if unmake else tuple(ref)) == wire


@pytest.mark.parametrize("text", ["", "x", UUID[:-1], UUID + "0", "\udcff" * 32])
def test_uuid_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(VirtError) as caught:
        uuid_bytes(text)
    assert caught.value.code is ErrorCode.INVALID_ARG


def test_uuid_is_written_as_ever() -> None:
    assert uuid_text(DOMAIN[1]) == UUID
    assert uuid_bytes(UUID) == DOMAIN[1]


@pytest.mark.parametrize(
    ("procedure", "arguments", "called"),
    [
        ("domain_create", (DOMAIN,), ("domain_create", (REF,), {})),
        ("domain_create_with_flags", (DOMAIN, 1), ("domain_create", (REF, StartFlag.PAUSED), {})),
        ("domain_destroy_flags", (DOMAIN, 1), ("domain_destroy", (REF, DestroyFlag.GRACEFUL), {})),
        ("domain_shutdown_flags", (DOMAIN, 1), ("domain_shutdown", (REF, ShutdownFlag.ACPI), {})),
        ("domain_set_autostart", (DOMAIN, 1), ("domain_set_autostart", (REF, True), {})),
        (
            "network_get_xml_desc", (DOMAIN[:2], 1),
            ("network_get_xml_desc", (NetworkRef("web", UUID),), {"inactive": True}),
        ),
        ("storage_pool_create", (DOMAIN[:2], 0), ("storage_pool_create", (PoolRef("web", UUID),), {})),
        (
            "storage_pool_create", (DOMAIN[:2], 2),
            ("storage_pool_create", (PoolRef("web", UUID),), {"build": True, "overwrite": True}),
        ),
        (
            "storage_vol_wipe_pattern", (("p", "v", "k"), 1, 0),
            ("storage_vol_wipe_pattern", (VolumeRef("p", "v", "k"), WipeAlgorithm.NNSA), {}),
        ),
        (
            "domain_attach_device_flags", (DOMAIN, "<disk/>", 3),
            ("domain_attach_device_flags", (REF, "<disk/>", Affect.LIVE | Affect.CONFIG), {}),
        ),
    ],
)  # fmt: skip
def test_call_becomes_the_method(procedure: str, arguments: tuple[Any, ...], called: Any) -> None:
    driver = Driver(REF)
    answer(procedure, driver, *arguments)
    assert driver.called == called


@pytest.mark.parametrize(
    ("procedure", "arguments"),
    [
        ("domain_create_with_flags", (DOMAIN, 1 << 20)),
        ("domain_reset", (DOMAIN, 1)),
        ("storage_pool_create", (DOMAIN[:2], 8)),
    ],
)
def test_flag_that_is_not_known_is_refused(procedure: str, arguments: tuple[Any, ...]) -> None:
    driver = Driver()
    with pytest.raises(VirtError, match=f"unsupported flags .* in function {procedure}"):
        answer(procedure, driver, *arguments)
    assert driver.called is None


@pytest.mark.parametrize(
    ("procedure", "arguments", "given", "members"),
    [
        ("domain_lookup_by_name", ("web",), REF, (DOMAIN,)),
        ("domain_get_info", (DOMAIN,), DomainInfo(DomainState.RUNNING, 4, 3, 2, 1), (1, 4, 3, 2, 1)),
        ("domain_is_persistent", (DOMAIN,), True, (1,)),
        ("domain_get_os_type", (DOMAIN,), "hvm", ("hvm",)),
        ("domain_suspend", (DOMAIN,), None, ()),
        ("domain_block_stats_flags", (DOMAIN, "vda", 0, 0), {"a": 1, "b": -2}, ([], 2)),
        ("domain_get_block_io_tune", (DOMAIN, None, 0, 4), {"a": 1}, ([], 32)),
        ("domain_get_scheduler_parameters_flags", (DOMAIN, 9, 4), {"cpu_shares": 1}, ([("cpu_shares", (4, 1))],)),
        ("domain_get_blkio_parameters", (DOMAIN, 9, 4), {"weight": 1}, ([("weight", (2, 1))], 1)),
        ("domain_block_stats_flags", (DOMAIN, "vda", 9, 4), {"a": 1, "b": -2}, ([("a", (4, 1)), ("b", (3, -2))], 2)),
    ],
)
def test_result_becomes_the_answer(procedure: str, arguments: Any, given: Any, members: Any) -> None:
    assert answer(procedure, Driver(given), *arguments) == members


def test_flags_are_those_of_an_enumeration_or_none() -> None:
    for name, adapter in ADAPTERS.items():
        flags = adapter.flags
        classes = flags if isinstance(flags, tuple) else (flags,) if isinstance(flags, type) else ()
        assert all(issubclass(one, enum.IntFlag) for one in classes), name
