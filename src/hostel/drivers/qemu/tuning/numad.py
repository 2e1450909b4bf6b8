"""Which processors and nodes of the host a machine gets whose document says ``placement='auto'``: numad is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from hostel.drivers import tool
from hostel.drivers.base.machine import VcpuFlag
from hostel.drivers.counting import vcpus
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.domain import Domain
from hostel.model.numberset import format_numbers, parse_numbers

_NODES: Final = Path("/sys/devices/system/node")
_TIMEOUT: Final = 60.0  # seconds; numad watches the host for two


class Advice(NamedTuple):
    """What numad advised, when the machine was started; empty where it was not asked.

    Attributes:
        cpuset: the host's processors, as documents list them.
        nodeset: those of their nodes that have memory.
    """

    cpuset: str = ""
    nodeset: str = ""


def ask(domain: Domain, nodes: Path = _NODES) -> Advice:
    """Ask numad where a machine fits best, where its document leaves that to it.

    Raises:
        VirtError: ``OPERATION_FAILED``: numad is not there, does not answer, or not with nodes of this host.
    """
    if not (_cpus_are_left(domain) or _memory_is_left(domain)):
        return Advice()
    size = domain.memory.to_kib() if domain.memory is not None else 0
    wanted = f"{vcpus(domain, VcpuFlag.NONE)}:{-(-size // 1024)}"
    try:
        said = tool.run(["numad", "-w", wanted], ErrorDomain.QEMU, timeout=_TIMEOUT).out.strip()
    except VirtError as error:
        raise _failed(str(error)) from None
    try:
        chosen = parse_numbers(said)
        cpus = frozenset().union(*(_listed(nodes / f"node{node}" / "cpulist") for node in chosen))
        return Advice(format_numbers(cpus), format_numbers(chosen & _listed(nodes / "has_memory")))
    except (OSError, ValueError) as error:
        raise _failed(f"it said {said!r}: {error}") from None


def advised(domain: Domain, advice: Advice) -> Domain:
    """A machine's document as one that names what numad advised, where it is left to it; else the document itself."""
    if not advice.cpuset:
        return domain
    found = domain.copy()
    if _cpus_are_left(found):
        assert found.vcpu is not None
        found.vcpu.cpuset = advice.cpuset
    if _memory_is_left(found):
        assert found.numatune is not None and found.numatune.memory is not None
        found.numatune.memory.nodeset = advice.nodeset or None
    return found


def _cpus_are_left(domain: Domain) -> bool:
    return domain.vcpu is not None and domain.vcpu.placement == "auto"


def _memory_is_left(domain: Domain) -> bool:
    memory = domain.numatune.memory if domain.numatune is not None else None
    return memory is not None and memory.placement == "auto"


def _listed(path: Path) -> frozenset[int]:
    return parse_numbers(path.read_text(encoding="ascii").strip())


def _failed(why: str) -> VirtError:
    what = f"Failed to query numad for the advisory nodeset: {why}; or say placement='static'"
    return fault(ErrorCode.OPERATION_FAILED, what, ErrorDomain.NONE)
