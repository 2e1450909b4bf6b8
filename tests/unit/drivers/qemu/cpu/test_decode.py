"""Processors by their models, with models of our own making."""

from __future__ import annotations

import pytest

from hostel.drivers.base.capabilities import CpuComparison
from hostel.drivers.qemu.cpu import document
from hostel.drivers.qemu.cpu.decode import Baseline, Named, Request, Subject, baseline, compare, decode
from hostel.drivers.qemu.cpu.known import Model
from hostel.errors import VirtError

COMMON = frozenset({"fpu", "sse", "sse2"})


def model(
    name: str, vendor: str | None, signature: tuple[int, int], *more: str, blockers: tuple[str, ...] = ()
) -> Model:
    return Model(name, vendor, signature, COMMON | {*more}, not blockers, frozenset(blockers), deprecated=False)


MODELS = {
    item.name: item
    for item in (
        model("plain", None, (0, 0)),
        model("old", "Intel", (6, 15), "ssse3"),
        model("new", "Intel", (6, 60), "ssse3", "sse4.1", "sse4.2", "avx", "avx2", blockers=("rtm",)),
        model("other", "AMD", (23, 1), "ssse3", "sse4.1", "sse4a"),
    )
}


def subject(vendor: str | None, signature: tuple[int, int], *more: str) -> Subject:
    return Subject(vendor, signature, COMMON | {*more})


def test_the_model_with_the_fewest_differences_is_taken() -> None:
    found = decode(subject("Intel", (6, 1), "ssse3", "sse4.1", "sse4.2", "avx"), MODELS)
    assert found == Named("new", "Intel", [], ["avx2"])
    assert decode(subject("Intel", (6, 1), "ssse3", "popcnt"), MODELS) == Named("old", "Intel", ["popcnt"], [])
    assert decode(subject("Hygon", (24, 0), "sse4a"), MODELS) == Named("plain", "Hygon", ["sse4a"], [])


def test_family_and_number_count_more_than_features() -> None:
    assert decode(subject("Intel", (6, 60), "ssse3"), MODELS) == Named(
        "new", "Intel", [], ["sse4.1", "sse4.2", "avx", "avx2"]
    )


def test_nothing_may_be_missing_of_a_hosts_model() -> None:
    found = decode(subject("Intel", (6, 60), "ssse3", "sse4.1"), MODELS, for_host=True)
    assert found == Named("old", "Intel", ["sse4.1"], [])
    assert decode(Subject("Intel", (6, 60), frozenset({"fpu"})), MODELS, for_host=True) is None


def test_what_the_emulator_lacks_is_switched_off_and_what_it_has_not_is_not_taken() -> None:
    has = subject("Intel", (6, 60), "ssse3", "sse4.1", "sse4.2", "avx", "avx2")
    assert decode(has, MODELS, allowed=MODELS) == Named("new", "Intel", [], ["rtm"])
    taken = decode(has, MODELS, allowed=["plain"])
    assert taken is not None
    assert taken.model == "plain"


def request(model: str | None, *, vendor: str | None = None, strict: bool = False, **policies: str) -> Request:
    return Request(
        model, vendor, {name.replace("_", "."): policy for name, policy in policies.items()}, is_strict=strict
    )


HOST = Request("old", "Intel", {"sse4.1": "require"}, is_host=True)


@pytest.mark.parametrize(
    ("wanted", "result"),
    [
        (request("old", sse4_1="require"), CpuComparison.IDENTICAL),
        (request("old", sse4_1="optional"), CpuComparison.IDENTICAL),
        (request("plain"), CpuComparison.SUPERSET),
        (request("new", sse4_2="optional", avx="force", avx2="disable"), CpuComparison.IDENTICAL),
        (request(None, sse4_1="require"), CpuComparison.SUPERSET),
    ],
)
def test_host_that_does(wanted: Request, result: CpuComparison) -> None:
    assert compare(HOST, wanted, MODELS) == (result, "")


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (request("new"), "Host CPU does not provide required features: sse4.2, avx, avx2"),
        (request("plain", ssse3="forbid"), "Host CPU provides forbidden features: ssse3"),
        (request("old", strict=True), "Host CPU does not strictly match guest CPU: Extra features: sse4.1"),
        (request("plain", vendor="AMD"), "host CPU vendor does not match required CPU vendor AMD"),
        (request("plain")._replace(arch="aarch64"), "CPU arch aarch64 does not match host arch"),
    ],
)
def test_host_that_does_not_says_why(wanted: Request, reason: str) -> None:
    assert compare(HOST, wanted, MODELS) == (CpuComparison.INCOMPATIBLE, reason)


def test_what_nobody_knows_is_named() -> None:
    with pytest.raises(VirtError, match="Unknown CPU model none"):
        compare(HOST, request("none"), MODELS)
    with pytest.raises(VirtError, match="Unknown CPU feature zz"):
        compare(HOST, request("plain", zz="require"), MODELS)


def test_baseline_is_what_all_have() -> None:
    one = Request("new", "Intel", {}, is_host=True)
    other = Request("old", "Intel", {"avx": "require"}, is_host=True)
    assert baseline([one, other], MODELS) == Baseline(Named("old", "Intel", ["avx"], []), None, says_vendor=True)
    assert baseline([one], MODELS) == Baseline(Named("new", "Intel", [], []), "forbid", says_vendor=True)
    limit = COMMON | {"ssse3"}
    assert baseline([one], MODELS, limit=limit).cpu == Named("new", "Intel", [], ["sse4.1", "sse4.2", "avx", "avx2"])


def test_baseline_of_strangers_is_refused() -> None:
    one = Request("new", "Intel", {}, is_host=True)
    with pytest.raises(VirtError, match="CPU vendors do not match"):
        baseline([one, Request("other", "AMD", {})], MODELS)
    with pytest.raises(VirtError, match="CPU vendor AMD of model other differs from vendor Intel"):
        baseline([one, Request("other", "Intel", {})], MODELS)
    with pytest.raises(VirtError, match="Unknown CPU vendor Nobody"):
        baseline([Request("new", "Nobody", {})], MODELS)
    with pytest.raises(VirtError, match="CPUs are incompatible"):
        baseline([one, Request("plain", None, dict.fromkeys(COMMON, "disable"))], MODELS)


def test_documents_are_of_hosts_and_of_guests() -> None:
    host = document.read("<cpu><arch>x86_64</arch><model>old</model><vendor>Intel</vendor><feature name='avx'/></cpu>")
    assert host == Request("old", "Intel", {"avx": "require"}, is_host=True, arch="x86_64")
    guest = document.read("<cpu match='strict'><model>old</model><feature name='avx' policy='forbid'/></cpu>")
    assert guest == Request("old", None, {"avx": "forbid"}, is_strict=True)


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        ("<foo/>", "XML does not contain expected 'cpu' element"),
        ("<cpu><arch>x86_64</arch></cpu>", "Missing CPU model name"),
        ("<cpu match='exact'><arch>x86_64</arch><model>a</model></cpu>", "'arch' element cannot be used inside"),
        ("<cpu><vendor>AMD</vendor></cpu>", "CPU vendor specified without CPU model"),
        ("<cpu><feature name='avx'/></cpu>", "Non-empty feature list specified without CPU model"),
        ("<cpu><model>a</model><feature name='avx'/><feature name='avx'/></cpu>", "'avx' specified more than once"),
    ],
)
def test_documents_that_are_none(xml: str, reason: str) -> None:
    with pytest.raises(VirtError, match=reason):
        document.read(xml)


def test_baseline_is_written_for_a_guest() -> None:
    found = Baseline(Named("old", "Intel", ["avx"], ["sse"]), None, says_vendor=False)
    lines = document.write(found, MODELS, expand=False).splitlines()
    assert lines == [
        "<cpu mode='custom' match='exact'>",
        "  <model fallback='allow'>old</model>",
        "  <feature policy='require' name='avx'/>",
        "  <feature policy='disable' name='sse'/>",
        "</cpu>",
    ]
    expanded = document.write(found, MODELS, expand=True)
    assert [line.split("'")[3] for line in expanded.splitlines() if "feature" in line] == [
        "avx", "fpu", "sse", "sse2", "ssse3",
    ]  # fmt: skip
