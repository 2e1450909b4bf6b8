"""From features to the name of a model and what differs from it, and back; comparing, and what several have in common.

The choice of the model is libvirt's (``src/cpu/cpu_x86.c``): the fewest differences, a model that is missing something
counting more, and among those of the host's own family and model number where there are any.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from hostel.drivers.base.capabilities import CpuComparison
from hostel.drivers.fault import fault
from hostel.drivers.qemu.cpu import feature
from hostel.drivers.qemu.cpu.known import VENDORS, Known, Model
from hostel.errors import ErrorCode, ErrorDomain, VirtError

Models = Mapping[str, Model]
_PENALTY: Final = 2  # of the first feature that a model has and the processor has not; each further one costs one more


class Subject(NamedTuple):
    """A processor as it is: whose, its family and model number (zeroes where there are none), what it has."""

    vendor: str | None
    signature: tuple[int, int]
    features: frozenset[str]


class Named(NamedTuple):
    """A processor by its model: what it has besides, and what of the model it has not, in the order of documents."""

    model: str
    vendor: str | None
    more: list[str]
    less: list[str]


class Request(NamedTuple):
    """A processor that a document asks for, or tells of.

    Attributes:
        model: its model; None where it has none.
        vendor: whose it shall be.
        policies: of each feature that is named, ``force``, ``require``, ``optional``, ``disable`` or ``forbid``.
        is_host: whether it tells of a host, and not of a guest.
        is_strict: whether there may be nothing besides.
        arch: its architecture, where it says so.
    """

    model: str | None
    vendor: str | None
    policies: Mapping[str, str]
    is_host: bool = False
    is_strict: bool = False
    arch: str | None = None


def decode(
    subject: Subject,
    models: Models,
    *,
    for_host: bool = False,
    allowed: Collection[str] | None = None,
    preferred: Sequence[str] = (),
) -> Named | None:
    """Name a processor; None where no model fits.

    Args:
        subject: the processor.
        models: the models that there are.
        for_host: nothing may be missing of the model.
        allowed: the models that may be taken; None for all.
        preferred: models that are taken rather than others; one alone is taken in any case.
    """
    best: tuple[Model, Named] | None = None
    for model in sorted(models.values(), key=lambda model: -len(model.features)):
        if allowed is not None and model.name not in allowed:
            continue
        if subject.vendor is not None and model.vendor not in (None, subject.vendor):
            continue
        named = _as(subject, model, with_blockers=allowed is not None)
        if for_host and named.less:
            continue
        if [model.name] == list(preferred):
            return named
        if best is None or _is_better(subject, (model, named), best, is_preferred=model.name in preferred):
            best = model, named
    return None if best is None else best[1]


def host_model(knows: Known) -> Named | None:
    """The model that stands in for the host's processor; None where QEMU knows none."""
    whole = knows.whole
    if whole is None:
        return None
    return decode(Subject(whole.vendor, whole.signature, whole.migratable), knows.models, allowed=knows.models)


def _as(subject: Subject, model: Model, *, with_blockers: bool) -> Named:
    more = subject.features - model.features
    less = model.features - subject.features
    if with_blockers:
        less |= {name for name in model.blockers if name not in more}
    return Named(model.name, subject.vendor, feature.in_order(more), feature.in_order(less))


def _is_better(
    subject: Subject, candidate: tuple[Model, Named], current: tuple[Model, Named], *, is_preferred: bool
) -> bool:
    if any(subject.signature):
        fits, fitted = (subject.signature == model.signature for model in (candidate[0], current[0]))
        if fits != fitted:
            return fits
    (cost, missing), (current_cost, current_missing) = _cost(candidate[1]), _cost(current[1])
    return (cost, missing) < (current_cost, current_missing) or (is_preferred and missing < current_missing)


def _cost(named: Named) -> tuple[int, int]:
    """What a name costs, and what of that is for what is missing; libvirt's count, of which half has a penalty."""
    penalised = -(-len(named.less) // 2)
    missing = penalised * _PENALTY + penalised * (penalised - 1) // 2
    return len(named.more) + len(named.less) - penalised + missing, missing


def features_of(request: Request, models: Models) -> frozenset[str]:
    """What a processor has that a document describes; what is optional is not there.

    Raises:
        VirtError: ``INTERNAL_ERROR``: it names a model or a feature that nobody knows.
    """
    has = set(_model(request.model, models).features) if request.model is not None else set()
    for name, policy in request.policies.items():
        _check(name)
        if policy in ("force", "require"):
            has.add(name)
        elif policy in ("disable", "forbid"):
            has.discard(name)
    return frozenset(has)


def _model(name: str, models: Models) -> Model:
    if name not in models:
        raise _unknown(f"Unknown CPU model {name}")
    return models[name]


def _check(name: str) -> None:
    if not feature.is_known(name):
        raise _unknown(f"Unknown CPU feature {name}")


def _unknown(what: str) -> VirtError:
    return fault(ErrorCode.INTERNAL_ERROR, what, ErrorDomain.CPU)


def compare(host: Request, wanted: Request, models: Models) -> tuple[CpuComparison, str]:
    """How a host's processor is to one that is wanted; with the reason where it does not do (``x86Compute``).

    Raises:
        VirtError: ``INTERNAL_ERROR``: a model or a feature that nobody knows.
    """
    if wanted.arch not in (None, "i686", "x86_64"):
        return CpuComparison.INCOMPATIBLE, f"CPU arch {wanted.arch} does not match host arch"
    if wanted.vendor is not None and wanted.vendor != host.vendor:
        return CpuComparison.INCOMPATIBLE, f"host CPU vendor does not match required CPU vendor {wanted.vendor}"
    has = features_of(host, models)
    by_policy: dict[str, set[str]] = {}
    for name, policy in wanted.policies.items():
        _check(name)
        by_policy.setdefault(policy, set()).add(name)
    forbidden = has & by_policy.get("forbid", set())
    if forbidden:
        return CpuComparison.INCOMPATIBLE, _reason("Host CPU provides forbidden features", forbidden)
    of_model = _model(wanted.model, models).features if wanted.model is not None else frozenset()
    excused = set().union(*(by_policy.get(policy, set()) for policy in ("force", "optional", "disable")))
    required = (of_model | by_policy.get("require", set())) - excused
    if required - has:
        return CpuComparison.INCOMPATIBLE, _reason("Host CPU does not provide required features", required - has)
    extra = has - required - excused
    if not extra:
        return CpuComparison.IDENTICAL, ""
    if wanted.is_strict and not wanted.is_host:
        return CpuComparison.INCOMPATIBLE, _reason("Host CPU does not strictly match guest CPU: Extra features", extra)
    return CpuComparison.SUPERSET, ""


def _reason(what: str, names: Iterable[str]) -> str:
    return f"{what}: {', '.join(feature.in_order(names))}"


class Baseline(NamedTuple):
    """What several processors have in common.

    Attributes:
        cpu: it, by its model.
        fallback: ``forbid`` where the model is the only one that was named.
        says_vendor: whether all of them say whose they are.
    """

    cpu: Named
    fallback: str | None
    says_vendor: bool


def baseline(
    cpus: Sequence[Request], models: Models, allowed: Collection[str] | None = None, limit: frozenset[str] | None = None
) -> Baseline:
    """What several processors have in common (``virCPUx86Baseline``).

    Args:
        cpus: the processors; at least one.
        models: the models that there are.
        allowed: the models that may be taken; None for all.
        limit: what there may be besides nothing; None for anything.

    Raises:
        VirtError: they have nothing in common, or are of different vendors; a model or a feature that nobody knows.
    """
    common = features_of(cpus[0], models)
    vendor = cpus[0].vendor
    names = list(dict.fromkeys(cpu.model for cpu in cpus if cpu.model is not None))
    if vendor is not None and vendor not in VENDORS:
        raise _failed(f"Unknown CPU vendor {vendor}")
    for cpu in cpus[1:]:
        common &= features_of(cpu, models)
        of_model = models[cpu.model].vendor if cpu.model is not None else None
        if cpu.vendor is not None and of_model not in (None, cpu.vendor):
            raise _failed(f"CPU vendor {of_model} of model {cpu.model} differs from vendor {cpu.vendor}")
        other = cpu.vendor or of_model
        if other is not None and vendor is not None and other != vendor:
            raise _failed("CPU vendors do not match")
        if other is not None and other not in VENDORS:
            raise _failed(f"Unknown CPU vendor {other}")
        vendor = vendor or other
    if limit is not None:
        common &= limit
    if not common:
        raise _failed("CPUs are incompatible")
    found = decode(Subject(vendor, (0, 0), common), models, allowed=allowed, preferred=names)
    if found is None:
        raise fault(ErrorCode.INTERNAL_ERROR, "Cannot find suitable CPU model for given data", ErrorDomain.CPU)
    fallback = "forbid" if names == [found.model] else None
    return Baseline(found, fallback, all(cpu.vendor is not None for cpu in cpus))


def _failed(what: str) -> VirtError:
    return fault(ErrorCode.OPERATION_FAILED, what, ErrorDomain.CPU)
