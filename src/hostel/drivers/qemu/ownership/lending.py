"""Files given to a machine's QEMU, and given back.

What a machine has is in a ledger of its own, a line for each step, written before the file is touched. Whoever finds
the machine gone, or the one that gave it files killed, gives back what stands there: of a step that nobody finished,
the file's own count tells whether it was done.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hostel.cause.mount import mount_of
from hostel.drivers.fault import fault, printable, system_fault
from hostel.drivers.qemu.ownership.claims import Claim, Return
from hostel.drivers.qemu.ownership.remembered import Kept, Mark, OpenFile
from hostel.drivers.qemu.ownership.user import Owner
from hostel.errors import ErrorCode, ErrorDomain


class Loan(NamedTuple):
    """A file that a machine has.

    Attributes:
        path: where it is.
        value: what is written on it meanwhile.
        before: what was; None where nothing was.
        back: what becomes of it afterwards.
        users: how many machines had it before, by what is kept with it; None where nothing is.
        is_done: whether it was given for sure.
    """

    path: str
    value: str
    before: str | None
    back: Return
    users: int | None
    is_done: bool = False


class Ledger:
    """What one machine has; the caller holds the machine's lock."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def exists(self) -> bool:
        """Whether the machine has had anything in this run."""
        return self._path.exists()

    def loans(self) -> dict[str, Loan]:
        """Every file that it has or may have, by the path, in the order in which they were given."""
        found: dict[str, Loan] = {}
        for line in self._lines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # of a line cut off nothing was begun
                row = json.loads(line)
                match row.pop("step"):
                    case "give":
                        found[row["path"]] = Loan(**_current(row))
                    case "done":
                        found[row["path"]] = found[row["path"]]._replace(is_done=True)
                    case "back":
                        del found[row["path"]]
        return found

    def give(self, loan: Loan) -> None:
        """Write down that a file is about to be given."""
        self._write(step="give", **loan._asdict())

    def done(self, path: str) -> None:
        """Write down that it was given."""
        self._write(step="done", path=path)

    def back(self, path: str) -> None:
        """Write down that it is had no more."""
        self._write(step="back", path=path)

    def close(self) -> None:
        """Forget it: the machine has nothing."""
        self._path.unlink(missing_ok=True)

    def _lines(self) -> Iterator[str]:
        try:
            yield from self._path.read_text(encoding="ascii").split("\n")
        except FileNotFoundError:
            return

    def _write(self, **row: object) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        try:
            # A line that a kill cut off must not swallow the next one.
            os.write(descriptor, f"\n{json.dumps(row)}\n".encode("ascii"))
        finally:
            os.close(descriptor)


def _current(row: dict[str, Any]) -> dict[str, Any]:
    """A row as it is written by now: at first there were numbers of users and groups in it."""
    if "owner" in row:
        row |= {"value": Owner(*row.pop("owner")).label, "before": Owner(*row["before"]).label}
    return {**row, "back": Return.USUAL if row["back"] == "root" else Return(row["back"])}


def give(ledger: Ledger, mark: Mark, claims: Iterable[Claim], *, remembers: bool) -> None:
    """Give a machine those files that it does not have; one that is not there is left for QEMU to miss.

    Raises:
        VirtError: ``OPERATION_INVALID``: another machine has one marked otherwise; ``SYSTEM_ERROR``: the host
            refused. What was given before stays with the machine.
    """
    loans = ledger.loans()
    for claim in claims:
        known = loans.get(claim.path)
        if known is not None and not _is_news(claim, known):
            continue
        try:
            with OpenFile(claim.path, mark) as file, _held(file, claim.back):
                _give(ledger, mark, file, claim, known, remembers=remembers)
        except FileNotFoundError:
            continue
        except OSError as error:
            what = mark.refusal(claim.path, claim.value)
            raise system_fault(error, what, ErrorDomain.QEMU, path=claim.path) from error


def _is_news(claim: Claim, known: Loan) -> bool:
    """Whether a file that a machine has is to be given to it once more: as its alone, or to be written."""
    return known.back is Return.NEVER and (claim.back is not Return.NEVER or claim.value != known.value)


def _held(file: OpenFile, back: Return) -> contextlib.AbstractContextManager[object]:
    """Hold a file with which something is kept against others who change that."""
    return file.locked() if back is Return.REMEMBERED else contextlib.nullcontext()


def _give(ledger: Ledger, mark: Mark, file: OpenFile, claim: Claim, known: Loan | None, *, remembers: bool) -> None:
    now = file.value
    before = known.before if known is not None else now
    counts = claim.back is Return.REMEMBERED and remembers and before is not None
    kept = file.kept() if counts else None
    if kept is not None and not kept.users and now == claim.value:
        before = kept.value  # it was never given back, as when the host was switched off
    users = kept.users if kept is not None else 0
    if kept is not None and users:
        if now != claim.value:
            raise fault(ErrorCode.OPERATION_INVALID, mark.clash(claim.path), ErrorDomain.QEMU)
        before = kept.value
    loan = Loan(claim.path, claim.value, before, claim.back, users if counts else None)
    ledger.give(loan)
    if loan.users is not None and before is not None and not file.keep(Kept(before, users + 1)):
        ledger.give(loan._replace(users=None))
        loan = loan._replace(users=None)
    try:
        file.give(claim.value)
    except OSError as error:
        if not mark.passes(error):
            if loan.users is not None:
                file.keep(kept if users else None)
            ledger.back(claim.path)
            raise
    ledger.done(claim.path)


def take_back(ledger: Ledger, mark: Mark, paths: Iterable[str], *, keeps_remote: bool = False) -> list[str]:
    """Have files be again what they were; returns what went wrong, a line each.

    Args:
        ledger: the machine's.
        mark: what was written on them.
        paths: the files; what it does not have is passed over.
        keeps_remote: what other hosts reach stays as it is: the machine has gone to one of them.
    """
    loans, failed = ledger.loans(), []
    for path in paths:
        loan = loans.get(path)
        if loan is None:
            continue
        try:
            if loan.back is not Return.NEVER and not (keeps_remote and _is_remote(path)):
                with OpenFile(path, mark) as file, _held(file, loan.back):
                    _take_back(file, mark, loan)
        except (FileNotFoundError, NotADirectoryError):
            pass  # nobody has it any more
        except OSError as error:
            error = OSError(error.errno, error.strerror, path)
            failed.append(system_fault(error, f"cannot give '{printable(path)}' back", ErrorDomain.QEMU).message)
        ledger.back(path)
    return failed


def _take_back(file: OpenFile, mark: Mark, loan: Loan) -> None:
    if loan.users is None:
        # Nothing is kept with it. What it was is known where it is not sure that it was given at all.
        _return(file, mark, file.usual if loan.is_done else loan.before)
        return
    kept = file.kept(of_any_boot=True)
    if kept is None:
        if loan.is_done:
            _return(file, mark, loan.before)
        return
    if not loan.is_done and kept.users <= loan.users:
        return  # it was about to be given
    if kept.users > 1:
        file.keep(kept._replace(users=kept.users - 1))
        return
    _return(file, mark, kept.value)
    file.keep(None)


def _return(file: OpenFile, mark: Mark, value: str | None) -> None:
    if value is None:
        return
    try:
        file.give(value)
    except OSError as error:
        if not mark.passes(error):
            raise


def _is_remote(path: str) -> bool:
    mount = mount_of(path)
    return mount is not None and mount.is_remote


def settle(ledger: Ledger, mark: Mark, wanted: Iterable[str]) -> list[str]:
    """Give back what a machine has and does not need; returns as :func:`take_back`."""
    needed = set(wanted)
    return take_back(ledger, mark, [path for path in ledger.loans() if path not in needed])


def take_all_back(ledger: Ledger, mark: Mark, *, keeps_remote: bool = False) -> list[str]:
    """Give back all that a machine had that is no more; arguments and result as of :func:`take_back`."""
    failed = take_back(ledger, mark, [*ledger.loans()], keeps_remote=keeps_remote)
    ledger.close()
    return failed
