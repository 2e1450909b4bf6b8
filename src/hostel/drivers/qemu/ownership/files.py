"""The files of one machine: given to its QEMU as its state names them, and given back when it does so no more.

The caller holds the machine's lock.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Final

from hostel.cause.user import User, closed_way, rights
from hostel.drivers.fault import system_fault
from hostel.drivers.qemu import process
from hostel.drivers.qemu.machines import Machines
from hostel.drivers.qemu.ownership import dac, lending
from hostel.drivers.qemu.ownership.claims import claims
from hostel.drivers.qemu.ownership.label import label_of, owner_of
from hostel.drivers.qemu.ownership.user import ROOT, USUAL, Identity, Owner, groups_of, identity, read_label
from hostel.drivers.qemu.settings import read
from hostel.drivers.qemu.status import Status
from hostel.errors import ErrorDomain
from hostel.model.domain.devices.character import CharacterType
from hostel.model.domain.domain import Domain

_SEARCHED: Final = 0o011
_OWN: Final = 0o7700


def identity_of(machines: Machines) -> Identity | None:
    """Who the machines of a session are; None where they are who started them.

    Raises:
        VirtError: ``qemu.conf`` cannot be read, or names nobody.
    """
    return identity(read(machines.directories), machines.directories)


def settled_identity(machines: Machines, domain: Domain) -> Identity | None:
    """Who a machine is that is about to run.

    A user that nobody has named is not worth a machine that does not run as it did: one whose files that user does not
    reach runs as root, and says so.

    Raises:
        VirtError: as :func:`identity_of`.
    """
    found, label = identity_of(machines), label_of(domain)
    is_said = label is not None and label.type not in (None, "dynamic", "default")
    if found is None or found.is_named or is_said or found.owner == ROOT:
        return found
    user = User(found.owner.uid, groups_of(found.owner))
    for path in _reached(domain, found, read(machines.directories).stdio):
        if _is_ours(machines, path):
            continue
        closed = closed_way(str(path), user)
        if (
            closed is None
            and not path.exists()
            and path.parent.is_dir()
            and not rights(str(path.parent), user) & os.W_OK
        ):
            closed = str(path.parent)
        if closed is not None:
            note = f"'{closed}' is closed to the user '{USUAL}', whom '{path}' is for: QEMU runs as root; "
            note += f"open it (setfacl -m u:{USUAL}:x), or name a user in qemu.conf"
            return found._replace(owner=ROOT, gives=False, note=note)
    return found


def _reached(domain: Domain, identity: Identity, stdio: str) -> Iterator[Path]:
    """The files that QEMU is to open or to make by name."""
    for path in claims(Status(domain, 0, 0, 0, "", 0, stdio=stdio), dac.terms(domain, identity)):
        yield Path(path)
    sockets = [source.path for end in domain.devices.characters() for source in end.sources if source.mode == "bind"]
    sockets += [listen.socket for screen in domain.devices.graphics for listen in screen.listens]
    folders = [item.source.dir for item in domain.devices.filesystems if item.source is not None]
    yield from (Path(path) for path in (*sockets, *folders) if path)


def label_of_running(machines: Machines, status: Status) -> str | None:
    """Who a running machine is, by its label, or else by its process; None where there are no owners.

    Raises:
        VirtError: as :func:`identity_of`.
    """
    label = label_of(status.domain)
    if label is not None:
        return label.label or ""
    if identity_of(machines) is None:
        return None
    try:
        found = os.stat(f"/proc/{status.pid}")
    except FileNotFoundError:
        return None
    return Owner(found.st_uid, found.st_gid).label


def give(machines: Machines, status: Status) -> None:
    """Give a machine what it needs and has not.

    Raises:
        VirtError: the host refused; or another machine has a file as another user, or in another context.
    """
    from hostel.drivers.qemu.confinement import module

    _give_to_owner(machines, status)
    for each, label in module.of_domain(machines, status.domain):
        each.give(machines, status, label)


def _give_to_owner(machines: Machines, status: Status) -> None:
    """Give a machine's user its files; nothing to one that was started before there were owners."""
    found = identity_of(machines)
    ledger = lending.Ledger(machines.ledger(status.domain.name))
    if found is None or (status.pid and label_of(status.domain) is None and not ledger.exists):
        return
    if not found.is_named and owner_of(status.domain, found) == ROOT:
        return  # it does without
    wanted = claims(status, dac.terms(status.domain, found))
    make(status.domain, wanted)
    for claim in wanted.values():
        open_way(machines, Path(claim.path), read_label(claim.value))
    lending.give(ledger, dac.MARK, wanted.values(), remembers=found.remembers)


def settle(machines: Machines, name: str) -> None:
    """Give back what a machine has and its state, as it is written down, does not name."""
    from hostel.drivers.qemu.confinement import module

    ledger, text = lending.Ledger(machines.ledger(name)), machines.statuses.read(name)
    if text is None:
        return
    status = Status.parse(text)
    if ledger.exists:
        # Whether files are given has no say here: what it has it has, whatever qemu.conf says by now.
        wanted = claims(status, dac.terms(status.domain, Identity(ROOT)))
        _tell(machines, name, lending.settle(ledger, dac.MARK, wanted))
    for each, label in module.of_domain(machines, status.domain):
        _tell(machines, name, each.settle(machines, status, label))


def take_all_back(machines: Machines, name: str, *, keeps_remote: bool = False) -> None:
    """Give back all that a machine had; what other hosts reach only where it has not gone to one of them."""
    from hostel.drivers.qemu.confinement import module

    ledger = lending.Ledger(machines.ledger(name))
    if ledger.exists:
        _tell(machines, name, lending.take_all_back(ledger, dac.MARK, keeps_remote=keeps_remote))
    _tell(machines, name, module.take_all_back(machines, name, keeps_remote=keeps_remote))


def _tell(machines: Machines, name: str, failed: list[str]) -> None:
    if failed:
        process.write_log(machines.log(name), failed)


def make(domain: Domain, wanted: Container[str]) -> None:
    """Make those of these files that QEMU writes what a guest says into: in their directories it may make none itself.

    Raises:
        VirtError: ``SYSTEM_ERROR``: the host refused.
    """
    for end in domain.devices.characters():
        names = [end.log.file] if end.log is not None else []
        if getattr(end, "type", None) == CharacterType.FILE and end.source is not None and end.source.path:
            names.append(end.source.path)
        for name in filter(wanted.__contains__, names):
            try:
                os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            except FileExistsError:
                continue
            except OSError as error:
                raise system_fault(error, f"Unable to open '{name}'", ErrorDomain.QEMU) from error


def open_way(machines: Machines, path: Path, owner: Owner) -> None:
    """Let a user through those of our directories that lead to a file: what is in them is closed by itself.

    Raises:
        VirtError: ``SYSTEM_ERROR``: the host refused.
    """
    if owner.uid == 0:
        return
    for folder in path.parents:
        if not _is_ours(machines, folder):
            return
        try:
            mode = stat.S_IMODE(folder.stat().st_mode)
            # Nobody needs to list what no user could reach until now; volumes are where users may look.
            kept = mode if folder.is_relative_to(machines.directories.data) else mode & _OWN
            if mode != kept | _SEARCHED:
                folder.chmod(kept | _SEARCHED)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise system_fault(error, f"cannot let QEMU through '{folder}'", ErrorDomain.QEMU) from error


def _is_ours(machines: Machines, path: Path) -> bool:
    """Whether something is in a directory of the session's, or is one."""
    roots = {root.parent if root.parent.name == "hostel" else root for root in machines.directories}
    return any(path.is_relative_to(root) for root in roots)
