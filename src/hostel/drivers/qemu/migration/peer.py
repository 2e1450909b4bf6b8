"""Migration that the source leads: it connects to the destination's daemon, and makes all steps (peer to peer)."""

from __future__ import annotations

import contextlib
from urllib.parse import parse_qsl, urlsplit

from hostel.drivers.base import DomainRef
from hostel.drivers.base.migration import DEST_NAME, Feature, MigrateFlag, MigrationDriver, Parameters, Tunnel
from hostel.drivers.fault import fault
from hostel.drivers.migrating import Steps, migrate
from hostel.drivers.qemu import lease
from hostel.drivers.qemu.launch import Launcher
from hostel.drivers.qemu.machines import Machines
from hostel.drivers.qemu.migration.rules import check_flags
from hostel.drivers.qemu.migration.source import Outgoing
from hostel.drivers.registry import Drivers, open_drivers
from hostel.errors import ErrorCode, ErrorDomain, VirtError


def lead(
    source: MigrationDriver,
    machines: Machines,
    launcher: Launcher,
    domain: DomainRef,
    uri: str | None,
    params: Parameters,
    flags: MigrateFlag,
) -> DomainRef:
    """Make all steps of a migration.

    Raises:
        VirtError: the destination is not there, or cannot do it; a step failed.
    """
    check_flags(flags)
    if uri is None:
        raise fault(ErrorCode.INVALID_ARG, "peer to peer migration needs the destination's URI", ErrorDomain.QEMU)
    drivers = _connect(machines, uri)
    try:
        if drivers.keepalive is not None:
            drivers.keepalive(*launcher.settings().migration.keepalive)
        return _lead(source, drivers, machines, launcher, domain, uri, params, flags)
    finally:
        drivers.close()


def _connect(machines: Machines, uri: str) -> Drivers:
    _check(uri)
    try:
        drivers = open_drivers(uri, machines.directories)
    except VirtError as error:
        what = f"Failed to connect to remote libvirt URI {uri}: {error.message}"
        raise VirtError(ErrorCode.OPERATION_FAILED, f"operation failed: {what}", domain=ErrorDomain.QEMU) from error
    supports = getattr(drivers.hypervisor, "supports", None)
    can = isinstance(drivers.hypervisor, MigrationDriver)
    if not can or (supports is not None and not supports(Feature.PARAMS)):
        drivers.close()
        what = "Destination libvirt does not support peer-to-peer migration protocol"
        raise fault(ErrorCode.OPERATION_FAILED, what, ErrorDomain.QEMU)
    return drivers


def _check(uri: str) -> None:
    """Refuse what would have this host run a program that whoever may move a domain chooses.

    Raises:
        VirtError: ``INVALID_ARG``.
    """
    try:
        told = {name for name, _ in parse_qsl(urlsplit(uri).query, keep_blank_values=True)}
    except ValueError as error:
        raise fault(ErrorCode.INVALID_ARG, f"URI '{uri}' is malformed: {error}", ErrorDomain.QEMU) from None
    if "command" in told:
        what = "'command' is not taken from the URI of a destination that the source connects to"
        raise fault(ErrorCode.INVALID_ARG, what, ErrorDomain.QEMU)


def _lead(
    source: MigrationDriver,
    drivers: Drivers,
    machines: Machines,
    launcher: Launcher,
    domain: DomainRef,
    uri: str,
    params: Parameters,
    flags: MigrateFlag,
) -> DomainRef:
    tunnels: list[Tunnel] = []
    enters = drivers.hypervisor
    assert isinstance(enters, MigrationDriver)

    def prepare(given: Parameters, cookie: bytes, wanted: MigrateFlag) -> tuple[bytes, str | None]:
        if not flags & MigrateFlag.TUNNELLED:
            return enters.domain_migrate_prepare3_params(given, cookie, wanted)
        answer, tunnel = enters.domain_migrate_prepare_tunnel3_params(given, cookie, wanted)
        tunnels.append(tunnel)
        return answer, None

    def perform(given: Parameters, cookie: bytes, wanted: MigrateFlag) -> bytes:
        tunnel = tunnels[0] if tunnels else None
        return Outgoing(machines, launcher, domain, given, cookie, wanted, tunnel, uri).run()

    steps = Steps(prepare, perform, needs_uri=not flags & MigrateFlag.TUNNELLED)
    try:
        return migrate(source, enters, domain, {DEST_NAME: domain.name, **params}, flags, steps)  # type: ignore[arg-type]
    finally:
        for tunnel in tunnels:
            with contextlib.suppress(VirtError):
                tunnel.abort()
        lease.let_go(machines.lease(domain.name))
