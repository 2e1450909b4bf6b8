"""The models that an emulator knows, as QEMU itself tells them: what each is made of, and whether it can be here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from hostel.drivers.qemu import probe
from hostel.drivers.qemu.cpu import feature

_VENDORS: Final = {"AuthenticAMD": "AMD", "GenuineIntel": "Intel", "HygonGenuine": "Hygon"}
VENDORS: Final = frozenset(_VENDORS.values())
# QEMU writes some vendor for these, and they are anybody's.
_GENERIC: Final = frozenset({"486", "kvm32", "kvm64", "pentium", "pentium2", "pentium3", "qemu32", "qemu64"})
_NOBODY: Final = (0, 0)
# Where the best that there is counts as a model, as with libvirt.
_WITH_BEST: Final = ("arm", "aarch64")
_NO_MODELS: Final = frozenset({"base", "host", "max"})
# Every guest sees this one, whatever its model is.
_ALWAYS: Final = "hypervisor"


class Model(NamedTuple):
    """A model of processors.

    Attributes:
        name: how documents and QEMU call it.
        vendor: whose it is; None where it is anybody's.
        signature: family and model number; zeroes where it is anybody's.
        features: what it has.
        usable: whether this emulator can be it on this host; None where it does not say.
        blockers: what it has and the emulator cannot do here.
        deprecated: whether QEMU gives it up.
    """

    name: str
    vendor: str | None
    signature: tuple[int, int]
    features: frozenset[str]
    usable: bool | None
    blockers: frozenset[str]
    deprecated: bool


class Whole(NamedTuple):
    """All that an emulator can give a guest here.

    Attributes:
        vendor: whose processor it looks like.
        signature: family and model number.
        features: what it has.
        migratable: what of it a guest may have that is moved.
        hyperv: the enlightenments of Hyper-V that there are, by QEMU's names.
        names: what a guest can be said to have or not to have, by QEMU's names and by those of documents.
    """

    vendor: str | None
    signature: tuple[int, int]
    features: frozenset[str]
    migratable: frozenset[str]
    hyperv: frozenset[str]
    names: frozenset[str]


class Known(NamedTuple):
    """The models by name, in QEMU's order, and all that there is together; None where QEMU does not say."""

    models: Mapping[str, Model]
    whole: Whole | None


def known(emulator: str, cache: Path, *, kvm: bool) -> Known:
    """What an emulator knows, run by KVM or by itself; asked once per QEMU, then remembered."""
    accelerator = "kvm" if kvm else "tcg"
    definitions = json.loads(probe.cpu_definitions(emulator, cache, accelerator) or "[]")
    definitions = [item for item in definitions if "alias-of" in item or not _is_version(item["name"])]
    others = _NO_MODELS - {"max"} if probe.target(emulator, cache) in _WITH_BEST else _NO_MODELS
    names = [str(item["name"]) for item in definitions if item["name"] not in others]
    best = "host" if kvm else "max"
    asked: dict[str, dict[str, Any]] = {name: {"name": name} for name in names}
    asked |= {best: {"name": best}, "movable": {"name": best, "props": {"migratable": True}}}
    asked |= {"unmovable": {"name": best, "props": {"migratable": False}}}
    answers: dict[str, dict[str, Any]] = json.loads(probe.cpu_models(emulator, cache, accelerator, asked) or "{}")
    models = {item["name"]: _model(item, answers[item["name"]]) for item in definitions if item["name"] in answers}
    return Known({name: models[name] for name in names if name in models}, _whole(answers, best))


def _is_version(name: str) -> bool:
    return name.rpartition("-v")[1] != "" and name.rpartition("-v")[2].isdigit()


def _model(definition: Mapping[str, Any], properties: Mapping[str, Any]) -> Model:
    name = str(definition["name"])
    missing = definition.get("unavailable-features")
    return Model(
        name=name,
        vendor=None if name in _GENERIC else _vendor(properties),
        signature=_NOBODY if name in _GENERIC else _signature(properties),
        features=_features(properties) - {_ALWAYS},
        usable=None if missing is None else not missing,
        blockers=frozenset(map(feature.from_qemu, missing or ())),
        deprecated=bool(definition.get("deprecated")),
    )


def _whole(answers: Mapping[str, Mapping[str, Any]], best: str) -> Whole | None:
    found = answers.get(best)
    if found is None:
        return None
    movable, unmovable = (_features(answers.get(name, found)) for name in ("movable", "unmovable"))
    hyperv = frozenset(name[3:] for name, value in found.items() if name.startswith("hv-") and _is_there(value))
    flags = {name for name, value in found.items() if isinstance(value, bool)}
    names = frozenset(flags.union(map(feature.from_qemu, flags)))
    return Whole(_vendor(found), _signature(found), movable | unmovable, movable, hyperv, names)


def _is_there(value: object) -> bool:
    return value if isinstance(value, bool) else isinstance(value, str) or (isinstance(value, int) and value > 0)


def _vendor(properties: Mapping[str, Any]) -> str | None:
    return _VENDORS.get(str(properties.get("vendor")))


def vendor_of(identity: str) -> str | None:
    """The short name for what CPUID says of the vendor."""
    return _VENDORS.get(identity)


def _signature(properties: Mapping[str, Any]) -> tuple[int, int]:
    return int(properties.get("family", 0)), int(properties.get("model", 0))


def _features(properties: Mapping[str, Any]) -> frozenset[str]:
    found = (feature.from_qemu(name) for name, value in properties.items() if value is True)
    return frozenset(name for name in found if feature.is_known(name))
