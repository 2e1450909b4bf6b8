"""The steps of a migration in their order (``virDomainMigrateVersion3Full``), whoever leads them.

A client leads those of two daemons that it is connected to; with ``PEER2PEER`` the source's driver does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from hostel.drivers.base import DomainRef, DomainState, HypervisorDriver
from hostel.drivers.base.migration import (
    DEST_NAME,
    DEST_XML,
    SOURCE_ONLY,
    URI,
    MigrateFlag,
    MigrationDriver,
    Parameters,
)
from hostel.drivers.base.offered import offered
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain, VirtError

Prepare = Callable[[Parameters, bytes, MigrateFlag], tuple[bytes, str | None]]
Perform = Callable[[Parameters, bytes, MigrateFlag], bytes]


class Steps(NamedTuple):
    """How the two steps are made that differ between kinds of migration.

    Attributes:
        prepare: takes parameters, cookie and flags; gives a cookie, and where the destination waits.
        perform: takes the same, and gives a cookie.
        notified: whether Confirm is wanted even where Perform has failed.
        needs_uri: whether Prepare must say where the destination waits, unless the parameters do.
    """

    prepare: Prepare
    perform: Perform
    notified: bool = False
    needs_uri: bool = True


def migrate(
    source: HypervisorDriver,
    destination: HypervisorDriver,
    domain: DomainRef,
    params: Parameters,
    flags: MigrateFlag,
    steps: Steps | None = None,
) -> DomainRef:
    """Move a domain; its reference at the destination.

    Raises:
        VirtError: it is where it was; or, where the message of a later step says so, nobody knows.
    """
    leaves = offered(source, MigrationDriver, "virDomainMigrate3")
    enters = offered(destination, MigrationDriver, "virDomainMigrate3")
    if steps is None:
        steps = Steps(
            enters.domain_migrate_prepare3_params,
            lambda params, cookie, flags: leaves.domain_migrate_perform3_params(domain, None, params, cookie, flags),
        )
    protected = flags | MigrateFlag.CHANGE_PROTECTION
    cookie, xml = leaves.domain_migrate_begin3_params(domain, params, protected)
    given = {**params, DEST_XML: xml}
    try:
        if source.domain_get_state(domain).state is DomainState.PAUSED:
            flags |= MigrateFlag.PAUSED
        cookie, uri = steps.prepare(given, cookie, flags & ~SOURCE_ONLY)
    except BaseException:
        _confirm(leaves, domain, given, b"", flags, cancelled=True)
        raise
    failure: VirtError | None = None
    notified = True
    try:
        if uri is not None:
            given[URI] = uri
        elif steps.needs_uri and URI not in given:
            raise fault(ErrorCode.INTERNAL_ERROR, "domainMigratePrepare3 did not set uri")
        if not flags & MigrateFlag.OFFLINE:
            notified = steps.notified
            cookie = steps.perform(given, cookie, flags | MigrateFlag.CHANGE_PROTECTION)
            notified = True
        else:
            cookie = b""
    except VirtError as error:
        failure, cookie = error, b""
    given.setdefault(DEST_NAME, domain.name)
    found: DomainRef | None = None
    try:
        is_cancelled = failure is not None
        found, cookie = enters.domain_migrate_finish3_params(given, cookie, flags & ~SOURCE_ONLY, is_cancelled)
    except VirtError as error:
        cookie = b""
        if failure is None or _says_more(failure, error):
            failure = error
    if notified:
        _confirm(leaves, domain, given, cookie, flags, cancelled=found is None)
    if found is None:
        assert failure is not None
        raise failure
    return found


def _says_more(failure: VirtError, error: VirtError) -> bool:
    """Whether Finish knows better than Perform why it failed: the destination's QEMU ended."""
    is_vague = failure.domain is ErrorDomain.QEMU and failure.code is ErrorCode.OPERATION_FAILED
    return is_vague and error.domain is ErrorDomain.QEMU and error.code is not ErrorCode.MIGRATE_FINISH_OK


def _confirm(
    source: MigrationDriver,
    domain: DomainRef,
    params: Parameters,
    cookie: bytes,
    flags: MigrateFlag,
    *,
    cancelled: bool,
) -> None:
    """Tell the source, as far as it can be told: nothing can be done about what it says."""
    flags |= MigrateFlag.CHANGE_PROTECTION
    try:
        source.domain_migrate_confirm3_params(domain, params, cookie, flags, cancelled)
    except VirtError:
        return
