"""Processors in documents: those of hosts, and those of guests."""

from __future__ import annotations

from typing import Any

from hostel.codec.xmltext import parse
from hostel.drivers.document import reading
from hostel.drivers.fault import fault
from hostel.drivers.qemu.cpu.decode import Baseline, Models, Request
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.capabilities import HostCpu
from hostel.model.domain.cpu import Cpu, CpuFeature, CpuModel


def read(xml: str, *, for_host: bool | None = None) -> Request:
    """Read a processor.

    Args:
        xml: the document.
        for_host: whether it is a host's; None where an architecture in it says so.

    Raises:
        VirtError: in libvirt's words.
    """
    with reading(ErrorDomain.CPU):
        root = parse(xml, "CPU_definition")
        if root.tag != Cpu.TAG:
            raise _wrong("XML does not contain expected 'cpu' element")
        guest = Cpu.from_node(root)
    has_arch = any(item.name == "arch" for item in guest.unknown)
    if has_arch and guest.match is not None and for_host is None:
        raise _wrong("'arch' element cannot be used inside 'cpu' element with 'match' attribute'")
    is_host = has_arch if for_host is None else for_host
    if is_host and guest.mode is not None:
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, "Attribute mode is only allowed for guest CPU", ErrorDomain.CPU)
    if guest.migratable is not None and (is_host or guest.mode not in ("host-passthrough", "maximum")):
        what = "Attribute migratable is only allowed for 'host-passthrough' / 'maximum' CPU mode"
        raise fault(ErrorCode.CONFIG_UNSUPPORTED, what, ErrorDomain.CPU)
    if is_host:
        return _host(root, has_arch=has_arch)
    model = guest.model.name if guest.model is not None else None
    if guest.vendor is not None and model is None:
        raise _wrong("CPU vendor specified without CPU model")
    if guest.features and model is None and guest.mode in (None, "custom"):
        raise _wrong("Non-empty feature list specified without CPU model")
    policies = _once([(item.name, item.policy or "require") for item in guest.features])
    return Request(model, guest.vendor, policies, is_strict=guest.match == "strict")


def _host(root: Any, *, has_arch: bool) -> Request:
    if not has_arch:
        raise _wrong("Missing CPU architecture")
    with reading(ErrorDomain.CPU):
        host = HostCpu.from_node(root)
    if host.model is None:
        raise _wrong("Missing CPU model name")
    return request_of(host)


def request_of(host: HostCpu) -> Request:
    """A host's processor as what all of it is asked for.

    Raises:
        VirtError: a feature is there twice.
    """
    policies = _once([(item.name, "require") for item in host.features])
    return Request(host.model, host.vendor, policies, is_host=True, arch=host.arch)


def _once(named: list[tuple[str, str]]) -> dict[str, str]:
    policies: dict[str, str] = {}
    for name, policy in named:
        if name in policies:
            raise _wrong(f"CPU feature '{name}' specified more than once")
        policies[name] = policy
    return policies


def _wrong(what: str) -> VirtError:
    return fault(ErrorCode.XML_ERROR, what, ErrorDomain.CPU)


def write(found: Baseline, models: Models, *, expand: bool, fallback: str | None = None) -> str:
    """What processors have in common, for a guest.

    Args:
        found: it.
        models: the models that there are.
        expand: name what is in the model, too, by the alphabet.
        fallback: what is said of other models; None for what ``found`` says.
    """
    cpu = found.cpu
    policies = dict.fromkeys(cpu.more, "require") | dict.fromkeys(cpu.less, "disable")
    if expand:
        every = dict.fromkeys(models[cpu.model].features, "require") | policies
        policies = dict(sorted(every.items()))
    return Cpu(
        mode="custom",
        match="exact",
        model=CpuModel(name=cpu.model, fallback=fallback or found.fallback or "allow"),
        vendor=cpu.vendor if found.says_vendor else None,
        features=[CpuFeature(policy=policy, name=name) for name, policy in policies.items()],
    ).format()
