"""The driver's calls about I/O threads."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Final

from hostel.drivers.base import DomainRef
from hostel.drivers.base.domain import Affect
from hostel.drivers.base.tuning import IoThreadInfo, IoThreads
from hostel.drivers.counting import check_one
from hostel.drivers.fault import fault
from hostel.drivers.qemu.calls import Calls
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.tuning.groups import of_status, place_thread
from hostel.drivers.qemu.tuning.threads import (
    IOTHREAD,
    iothread_threads,
    online_cpus,
    place,
    placement,
    settle_iothread,
)
from hostel.drivers.tuning import iothread as iothreads
from hostel.drivers.tuning.cpumap import cpumap as bits
from hostel.drivers.tuning.pinning import iothread_pin, pin_iothread, wanted
from hostel.errors import ErrorCode, ErrorDomain, QmpError
from hostel.model.numberset import format_numbers

_MISSING: Final = "iothread {} not found"
_MISSING_CONFIG: Final = "iothreadid {} not found"


class IoThreadCalls(Calls):
    """I/O threads; see :class:`hostel.drivers.base.tuning.IoThreadDriver`."""

    def domain_get_iothread_info(self, domain: DomainRef, affect: Affect) -> IoThreads:
        """Those that QEMU has, or that the definition has."""
        check_one(affect)
        with self._both(domain, affect) as both:
            if both.running is not None:
                found = _threads(both.running)  # in QEMU's order, as libvirt has them
                info = [IoThreadInfo(number, bits(placement(thread))) for number, thread in found.items()]
            else:
                document, host = both.current, online_cpus()
                numbers = [entry.id for entry in iothreads.entries(document)]
                info = [IoThreadInfo(number, bits(iothread_pin(document, number) or host)) for number in numbers]
        return IoThreads(info, len(info))

    def domain_pin_iothread(self, domain: DomainRef, iothread: int, cpumap: bytes, affect: Affect) -> None:
        """Pin one of QEMU's, and have the definition say so."""
        with self._both(domain, affect) as both:
            cpus = wanted(cpumap, ErrorDomain.QEMU, "iothread cpumap list")
            if both.running is not None:
                iothreads.find(both.running.domain, iothread, _MISSING)
            if both.definition is not None:
                iothreads.find(both.definition, iothread, _MISSING_CONFIG)
                pin_iothread(both.definition, iothread, cpus)
            if (machine := both.running) is not None:
                thread = _threads(machine).get(iothread)
                if thread is None:
                    raise fault(ErrorCode.INVALID_ARG, _MISSING.format(iothread), ErrorDomain.QEMU)
                place(thread, cpus)
                pin_iothread(machine.domain, iothread, cpus)
                machine.save()
                machine.publish("tunable", **{f"cputune.iothreadpin{iothread}": format_numbers(cpus)})
            if both.definition is not None:
                self._define(both.definition)

    def domain_add_iothread(self, domain: DomainRef, iothread: int, affect: Affect) -> None:
        """Have QEMU make one, and the definition say so."""
        iothreads.check_number(iothread, ErrorDomain.QEMU)
        with self._both(domain, affect) as both:
            if both.definition is not None:
                iothreads.add(both.definition, iothread)
            if both.running is not None:
                iothreads.check_new(both.running.domain, iothread)
                _create(both.running, iothread)
            if both.definition is not None:
                self._define(both.definition)

    def domain_del_iothread(self, domain: DomainRef, iothread: int, affect: Affect) -> None:
        """Have QEMU end one, and the definition forget it."""
        iothreads.check_number(iothread, ErrorDomain.QEMU)
        with self._both(domain, affect) as both:
            if both.definition is not None:
                iothreads.delete(both.definition, iothread)
            if (machine := both.running) is not None:
                iothreads.check_unused(machine.domain, iothread)
                # One that was to be ended before, by a process that died, is no more.
                if iothread in _threads(machine):
                    machine.ask("object-del", id=f"{IOTHREAD}{iothread}")
                iothreads.delete(machine.domain, iothread)
                machine.save()
            if both.definition is not None:
                self._define(both.definition)

    def domain_set_iothread_params(
        self, domain: DomainRef, iothread: int, parameters: Mapping[str, Any], affect: Affect
    ) -> None:
        """Change how one of QEMU's polls, and the sizes of its pool of threads; the definition has the sizes only."""
        iothreads.check_number(iothread, ErrorDomain.QEMU)
        iothreads.check_parameters(parameters)
        with self._both(domain, affect) as both:
            if both.definition is not None:
                entry = iothreads.find(both.definition, iothread)
                iothreads.check_pool(entry, parameters, live=False)
                if iothreads.is_polling(parameters):
                    what = "configuring persistent polling values is not supported"
                    raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
                iothreads.set_pool(entry, parameters)
            if (machine := both.running) is not None:
                entry = iothreads.find(machine.domain, iothread)
                iothreads.check_pool(entry, parameters, live=True)
                _configure(machine, iothread, parameters)
                iothreads.set_pool(entry, parameters)
                machine.save()
            if both.definition is not None:
                self._define(both.definition)


def _threads(machine: Running) -> dict[int, int]:
    try:
        return iothread_threads(machine.qmp)
    except QmpError as error:
        raise machine.translated(error, "query-iothreads") from error


def _create(machine: Running, number: int) -> None:
    """Make an I/O thread; one that was made before, by a process that died, is taken over."""
    name = f"{IOTHREAD}{number}"
    if number not in _threads(machine):
        machine.ask("object-add", **{"qom-type": "iothread", "id": name})
    try:
        iothreads.add(machine.domain, number)
        thread = _threads(machine)[number]
        settle_iothread(machine.advised, number, thread)
        if (group := of_status(machine.status)) is not None:
            place_thread(group, machine.advised, "iothread", number, thread)
        machine.save()
    except BaseException:
        with contextlib.suppress(QmpError):
            machine.qmp.execute("object-del", id=name)
        raise


def _configure(machine: Running, number: int, parameters: Mapping[str, int]) -> None:
    path = f"/objects/{IOTHREAD}{number}"
    names = list(parameters)
    least, most = parameters.get("thread_pool_min"), parameters.get("thread_pool_max")
    if least is not None and most is not None:
        # QEMU refuses a least number above the greatest at every step.
        grows = least > int(machine.ask("qom-get", path=path, property="thread-pool-max"))
        names.sort(key=lambda name: (name == "thread_pool_max") != grows)
    for name in names:
        machine.ask("qom-set", path=path, property=name.replace("_", "-"), value=parameters[name])
