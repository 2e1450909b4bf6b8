"""I/O threads of a document: their numbers, and what changes them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Final

from hostel.drivers.fault import fault
from hostel.drivers.tuning.parameter import IOTHREAD, check
from hostel.drivers.tuning.pinning import unpin_iothread
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.domain import Domain
from hostel.model.domain.tune import IoThread, IoThreadIds

_MOST: Final = 2**31 - 1
_POLLING: Final = ("poll_max_ns", "poll_grow", "poll_shrink")


def entries(domain: Domain) -> list[IoThread]:
    """Every I/O thread; those that the document only counts have the first numbers that are free."""
    listed = domain.iothread_ids.iothreads if domain.iothread_ids is not None else []
    used = {entry.id for entry in listed}
    count = domain.iothreads or 0
    free = (number for number in range(1, count + len(listed) + 1) if number not in used)
    return [*listed, *(IoThread(id=number) for number in islice(free, max(count - len(listed), 0)))]


def check_number(number: int, speaker: ErrorDomain) -> None:
    """Refuse the number that no I/O thread has.

    Raises:
        VirtError: ``INVALID_ARG``.
    """
    if not number:
        raise fault(ErrorCode.INVALID_ARG, "invalid value of 0 for iothread_id", speaker)


def check_new(domain: Domain, number: int) -> None:
    """Refuse a number that is taken.

    Raises:
        VirtError: ``INVALID_ARG``.
    """
    if any(entry.id == number for entry in entries(domain)):
        raise _refused(f"an IOThread is already using iothread_id '{number}'")


def check_unused(domain: Domain, number: int) -> None:
    """Refuse to take an I/O thread away that is not there, or has work.

    Raises:
        VirtError: ``INVALID_ARG``.
    """
    if all(entry.id != number for entry in entries(domain)):
        raise _refused(f"cannot find IOThread '{number}' in iothreadids list")
    for disk in domain.devices.disks:
        if disk.driver is not None and disk.driver.iothread == number:
            what = f"cannot remove IOThread {number} since it is being used by disk '{disk.target.dev}'"
            raise _refused(what)
    for controller in domain.devices.controllers:
        if controller.driver is not None and controller.driver.iothread == number:
            raise _refused(f"cannot remove IOThread '{number}' since it is being used by controller")


def add(domain: Domain, number: int) -> None:
    """Add one to the document.

    Raises:
        VirtError: ``INVALID_ARG``: the number is taken.
    """
    check_new(domain, number)
    _store(domain, [*entries(domain), IoThread(id=number)])


def delete(domain: Domain, number: int) -> None:
    """Take one out of the document, with where it is pinned.

    Raises:
        VirtError: ``INVALID_ARG``: there is none, or it is used.
    """
    check_unused(domain, number)
    _store(domain, [entry for entry in entries(domain) if entry.id != number])
    unpin_iothread(domain, number)


def find(domain: Domain, number: int, what: str = "cannot find IOThread '{}' in iothreadids") -> IoThread:
    """One of the document's I/O threads, which the document then lists by its number.

    Raises:
        VirtError: ``INVALID_ARG``: there is none; in the words of ``what``.
    """
    found = entries(domain)
    for entry in found:
        if entry.id == number:
            _store(domain, found)
            return entry
    raise fault(ErrorCode.INVALID_ARG, what.format(number))  # each driver says it for itself


def check_parameters(given: Mapping[str, int]) -> None:
    """Hold parameters against what an I/O thread has.

    Raises:
        VirtError: one is unknown, or out of range.
    """
    check(given, IOTHREAD)
    for name in _POLLING:
        if given.get(name, 0) > _MOST:
            spelled = name.replace("_", "-")
            raise _unsupported(f"{spelled} ({given[name]}) must be less than or equal to {_MOST}")
    if (least := given.get("thread_pool_min")) is not None and least < -1:
        raise _unsupported(f"thread_pool_min ({least}) must be equal to or greater than -1")
    if (most := given.get("thread_pool_max")) is not None and (most < -1 or most == 0):
        raise _unsupported(f"thread_pool_max ({most}) must be a positive number or -1")


def check_pool(entry: IoThread, given: Mapping[str, int], *, live: bool) -> None:
    """Hold the sizes of a thread's pool against each other, as they will be.

    Raises:
        VirtError: ``OPERATION_INVALID``.
    """
    for name in ("thread_pool_min", "thread_pool_max"):
        if live and given.get(name, 0) < 0:
            what = f"{name} ({given[name]}) must be equal to or greater than 0 for live change"
            raise fault(ErrorCode.OPERATION_INVALID, what, ErrorDomain.QEMU)
    least = given.get("thread_pool_min", -1 if entry.thread_pool_min is None else entry.thread_pool_min)
    most = given.get("thread_pool_max", -1 if entry.thread_pool_max is None else entry.thread_pool_max)
    if least > most:
        what = f"thread_pool_min ({least}) can't be greater than thread_pool_max ({most})"
        raise fault(ErrorCode.OPERATION_INVALID, what, ErrorDomain.QEMU)


def set_pool(entry: IoThread, given: Mapping[str, int]) -> None:
    """Write the sizes of a thread's pool down; -1 is QEMU's own choice."""
    if (least := given.get("thread_pool_min")) is not None:
        entry.thread_pool_min = least if least >= 0 else None
    if (most := given.get("thread_pool_max")) is not None:
        entry.thread_pool_max = most if most >= 0 else None


def is_polling(given: Mapping[str, int]) -> bool:
    """Whether parameters say anything that a document cannot."""
    return any(name in given for name in _POLLING)


def _store(domain: Domain, found: list[IoThread]) -> None:
    domain.iothreads = len(found) or None
    domain.iothread_ids = IoThreadIds(iothreads=found) if found else None


def _refused(what: str) -> VirtError:
    return fault(ErrorCode.INVALID_ARG, what, ErrorDomain.DOMAIN)


def _unsupported(what: str) -> VirtError:
    return fault(ErrorCode.CONFIG_UNSUPPORTED, what, ErrorDomain.QEMU)
