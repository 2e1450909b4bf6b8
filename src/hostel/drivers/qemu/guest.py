"""The driver's calls about a running machine: memory, processors, keys, pictures, and QEMU's own monitor."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any, Final

from hostel.drivers.base import DomainRef
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.machine import MemoryFlag, Screenshot, VcpuFlag
from hostel.drivers.counting import not_zero
from hostel.drivers.fault import fault, system_fault
from hostel.drivers.qemu.agent import open_agent
from hostel.drivers.qemu.balloon import has_balloon
from hostel.drivers.qemu.calls import Calls
from hostel.drivers.qemu.guestinfo import chosen
from hostel.drivers.qemu.inside import online, set_online
from hostel.drivers.qemu.keyboard import numbers
from hostel.drivers.qemu.machines import invalid, not_running
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.taint import Taint
from hostel.drivers.qemu.vcpu import set_count
from hostel.errors import ErrorCode, ErrorDomain, QmpError
from hostel.model.domain import vcpus as vcpu_states
from hostel.model.domain.cpu import Vcpu
from hostel.model.domain.devices.video import Video
from hostel.model.domain.domain import Domain
from hostel.model.domain.memory import CurrentMemory, Memory

_MOST_KEYS: Final = 16
_COMMANDS: Final = itertools.count(1)  # the numbers of commands that programs give QEMU


class GuestCalls(Calls):
    """Running machines; see :class:`hostel.drivers.base.machine.MachineDriver`."""

    def domain_set_memory_flags(
        self, domain: DomainRef, memory: int, affect: Affect, flags: MemoryFlag = MemoryFlag.NONE
    ) -> None:
        """Change the guest's memory, or the most that it may have."""
        not_zero(memory)
        with self._both(domain, affect) as both:
            if flags & MemoryFlag.MAXIMUM:
                if both.running is not None:
                    what = "cannot resize the maximum memory on an active domain; use --config"
                    raise invalid(what)
                if both.definition is not None:
                    _check_most(both.definition, memory)
                    _set_most(both.definition, memory)
                    self._define(both.definition)
                return
            for document in (both.running.domain if both.running is not None else None, both.definition):
                most = _most(document) if document is not None else memory
                if memory > most:
                    what = f"cannot set memory higher than max memory ({most} KiB); raise it with setmaxmem --config"
                    raise fault(ErrorCode.INVALID_ARG, what, ErrorDomain.QEMU)
            if both.running is not None:
                _balloon(both.running, memory)
            if both.definition is not None:
                both.definition.current_memory = CurrentMemory(unit="KiB", value=memory)
                self._define(both.definition)

    def domain_set_vcpus_flags(
        self, domain: DomainRef, count: int, affect: Affect, flags: VcpuFlag = VcpuFlag.NONE
    ) -> None:
        """Change how many processors the guest has, or may have, or uses."""
        if flags & VcpuFlag.GUEST and not affect & Affect.CONFIG:
            with self._machines.talking(domain.name), self._running(domain, asks_agent=True) as machine:
                _use_vcpus(machine, count)
            return
        in_guest = bool(flags & VcpuFlag.GUEST)
        with self._machines.talking(domain.name, talks=in_guest), self._both(domain, affect) as both:
            if in_guest:
                _use_vcpus(both.running, count)
                return
            if flags & VcpuFlag.MAXIMUM:
                if both.running is not None:
                    what = "maximum vcpu count of a live domain can't be modified; use --config"
                    raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
                assert both.definition is not None
                vcpu = both.definition.vcpu or Vcpu(value=1)
                now = min(vcpu.current or vcpu.value, count)
                vcpu.value, vcpu.current = count, now if now != count else None
                both.definition.vcpu = vcpu
                if both.definition.vcpus is not None:
                    vcpu_states.write(both.definition, vcpu_states.states(both.definition))
                self._define(both.definition)
                return
            for document in (both.running.domain if both.running is not None else None, both.definition):
                most = document.vcpu.value if document is not None and document.vcpu is not None else count
                if count > most:
                    kind = "live" if both.running is not None else "persistent"
                    what = (
                        f"requested vcpus is greater than max allowable vcpus for the {kind} domain: {count} > {most}"
                    )
                    raise fault(ErrorCode.INVALID_ARG, what, ErrorDomain.QEMU)
            if both.running is not None:
                set_count(both.running, count)
            if both.definition is not None:
                vcpu_states.set_count(both.definition, count, hotpluggable=bool(flags & VcpuFlag.HOTPLUGGABLE))
                self._define(both.definition)

    def domain_screenshot(self, domain: DomainRef, screen: int = 0) -> Screenshot:
        """A picture of the guest's screen."""
        with self._running(domain, moving=True) as machine:
            heads = [video for video in machine.domain.devices.videos if _has_screen(video)]
            if not heads:
                raise invalid("no screens to take screenshot from")
            if screen >= len(heads):
                raise invalid("no such screen ID")
            device = {"device": heads[screen].alias} if screen else {}
            try:
                with machine.written_by_qemu("screen.ppm") as path:
                    wanted = {"filename": str(path), **device}
                    if machine.attempt("screendump", format="png", **wanted) is not None:  # from QEMU 7.1 on
                        return Screenshot("image/png", path.read_bytes())
                    machine.ask("screendump", **wanted)
                    return Screenshot("image/x-portable-pixmap", path.read_bytes())
            except OSError as error:
                raise system_fault(error, "unable to open picture", ErrorDomain.QEMU) from error

    def domain_send_key(self, domain: DomainRef, codeset: int, holdtime: int, keycodes: Sequence[int]) -> None:
        """Press keys together."""
        if len(keycodes) > _MOST_KEYS:
            raise fault(ErrorCode.INVALID_ARG, f"at most {_MOST_KEYS} keys are pressed together", ErrorDomain.QEMU)
        keys = [{"type": "number", "data": number} for number in numbers(codeset, keycodes)]
        with self._running(domain) as machine:
            machine.ask("send-key", keys=keys, **({"hold-time": holdtime} if holdtime else {}))

    def domain_inject_nmi(self, domain: DomainRef) -> None:
        """Send a non-maskable interrupt."""
        with self._running(domain) as machine:
            machine.ask("inject-nmi")

    def domain_qemu_monitor_command(
        self, domain: DomainRef, command: str, *, human: bool = False, files: Sequence[int] = ()
    ) -> str:
        """Give QEMU a command as it is; what it changes is not in the document."""
        with self._running(domain) as machine:
            machine.taint(Taint.CUSTOM_MONITOR)
            if human:
                return str(machine.ask("human-monitor-command", files, **{"command-line": command}))
            try:
                request = json.loads(command)
                name, arguments = str(request["execute"]), dict(request.get("arguments", {}))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                what = f'\'{command}\' is no QMP command; write {{"execute": NAME, "arguments": {{...}}}}'
                raise fault(ErrorCode.INVALID_ARG, what, ErrorDomain.QEMU) from error
            try:
                answer: dict[str, Any] = {"return": machine.qmp.execute(name, files, **arguments)}
            except QmpError as error:
                if error.error_class in ("Disconnected", "Timeout"):
                    raise machine.translated(error, name) from error
                answer = {"error": {"class": error.error_class, "desc": error.desc}}
            given = {"id": request.get("id", f"libvirt-{next(_COMMANDS)}")}  # libvirt numbers them, and takes no own
            told = {**given, **answer} if "error" in answer else {**answer, **given}  # in QEMU's order
            return json.dumps(told, separators=(",", ":"))


def _has_screen(video: Video) -> bool:
    return video.model is not None and video.model.type != "none"


def _most(document: Domain) -> int:
    """How much memory a balloon can leave, in KiB: memory on demand comes and goes in other ways."""
    total = document.memory.to_kib() if document.memory is not None else 0
    return total - sum(it.target.size.to_kib() for it in document.devices.memories if it.model == "virtio-mem")


def _check_most(definition: Domain, memory: int) -> None:
    """Cells have sizes of their own, and with modules there is a bound to all memory."""
    if definition.cpu is not None and definition.cpu.numa is not None and definition.cpu.numa.cells:
        raise invalid("initial memory size of a domain with NUMA nodes cannot be modified with this API")
    if definition.max_memory is not None and memory > definition.max_memory.to_kib():
        raise invalid("cannot set initial memory size greater than the maximum memory size")


def _set_most(definition: Domain, memory: int) -> None:
    definition.memory = definition.memory or Memory(value=memory)
    definition.memory.value, definition.memory.unit = memory, "KiB"
    current = definition.current_memory
    if current is None or current.to_kib() > memory:
        definition.current_memory = CurrentMemory(unit="KiB", value=memory)


def _balloon(machine: Running, memory: int) -> None:
    if not has_balloon(machine.domain):
        what = "Unable to change memory of active domain without the balloon device and guest OS balloon driver"
        raise invalid(what)
    machine.ask("balloon", value=memory << 10)  # how much it has is seen when it has given it


def _use_vcpus(machine: Running | None, count: int) -> None:
    """Have the guest itself use so many of its processors."""
    if machine is None:
        raise not_running()
    vcpu = machine.domain.vcpu or Vcpu(value=1)
    now = vcpu.current or vcpu.value
    if count > now:
        what = f"requested vcpu count is greater than the count of enabled vcpus in the domain: {count} > {now}"
        raise fault(ErrorCode.INVALID_ARG, what, ErrorDomain.QEMU)
    with open_agent(machine) as agent:
        set_online(agent, chosen(online(agent), count))
