"""The commands that change a document in the user's editor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hostel.cli.options import Args, Command, data, flag
from hostel.cli.virsh import checkpoint, interface, nwfilter, snapshot
from hostel.cli.virsh.editor import edit_document
from hostel.cli.virsh.saving import FILE, PAUSED, RUNNING, absolute, exclusive, flags, saves
from hostel.cli.virsh.session import DOMAIN, CommandError, Session, failing
from hostel.drivers.base import DomainRef, DomainXmlFlag
from hostel.drivers.base.backup import CheckpointCreateFlag, CheckpointDeleteFlag, CheckpointDriver, CheckpointXmlFlag
from hostel.drivers.base.offered import offered
from hostel.drivers.base.snapshot import (
    SnapshotCreateFlag,
    SnapshotDeleteFlag,
    SnapshotDriver,
    SnapshotRef,
)
from hostel.drivers.schema import check_schema
from hostel.errors import ErrorCode, VirtError


def _domain(session: Session, args: Args) -> None:
    domain, driver = session.domain(args), session.hypervisor

    def define(xml: str, validate: bool) -> DomainRef:
        if validate:
            check_schema(xml, "domain")
        return driver.domain_define_xml(xml)

    made = edit_document(
        session,
        lambda: driver.domain_get_xml_desc(domain, DomainXmlFlag.SECURE | DomainXmlFlag.INACTIVE),
        define,
        validates=not args.has("skip-validate"),
    )
    shown = domain if made is None else made
    what = "XML configuration not changed." if made is None else "XML configuration edited."
    session.output.note(f"Domain '{shown.name}' {what}")


def _managed(session: Session, args: Args) -> None:
    exclusive(args)
    domain, driver = session.domain(args), saves(session, "virDomainManagedSaveGetXMLDesc")

    def define(xml: str, _: bool) -> bool:
        driver.domain_managed_save_define_xml(domain, xml, flags(args))
        return True

    made = edit_document(
        session,
        lambda: driver.domain_managed_save_get_xml_desc(domain, DomainXmlFlag.SECURE),
        define,
    )
    if made is None:
        session.output.note(f"Managed save image of domain '{domain.name}' XML configuration not changed.")
    else:
        session.output.note(f"Managed save image of Domain '{domain.name}' XML configuration edited.")


def _saved(session: Session, args: Args) -> None:
    exclusive(args)
    file, driver = args["file"], saves(session, "virDomainSaveImageGetXMLDesc")

    def define(xml: str, _: bool) -> bool:
        driver.domain_save_image_define_xml(absolute(file), xml, flags(args))
        return True

    made = edit_document(
        session,
        lambda: driver.domain_save_image_get_xml_desc(absolute(file), DomainXmlFlag.SECURE),
        define,
    )
    if made is None:
        session.output.note(f"Saved image {file} XML configuration not changed.")
    else:
        session.output.note(f"State file {file} edited.")


def _snapshot(session: Session, args: Args) -> None:
    args.exclude("rename", "clone")
    domain = session.domain(args)
    name = args.get("snapshotname")
    if name is None and not args.has("current"):
        raise CommandError("--snapshotname or --current is required")
    driver = offered(session.hypervisor, SnapshotDriver, "virDomainSnapshotGetXMLDesc")
    found = driver.domain_snapshot_current(domain) if name is None else None
    ref = found or driver.domain_snapshot_lookup_by_name(domain, name or "")
    how = SnapshotCreateFlag.REDEFINE
    if name is not None and args.has("current"):
        how |= SnapshotCreateFlag.CURRENT

    def define(xml: str, _: bool) -> SnapshotRef:
        is_disk_only = "<state>disk-snapshot</state>" in xml
        return driver.domain_snapshot_create_xml(domain, xml, how | SnapshotCreateFlag.DISK_ONLY * is_disk_only)

    with failing(f"Failed to update {ref.name}"):
        made = edit_document(
            session,
            lambda: driver.domain_snapshot_get_xml_desc(ref, DomainXmlFlag.SECURE),
            define,
            always=bool(how & SnapshotCreateFlag.CURRENT),
        )
        if made is None:
            session.output.note(f"Snapshot {ref.name} XML configuration not changed.")
        elif made.name == ref.name:
            session.output.note(f"Snapshot {ref.name} edited.")
        elif args.has("clone"):
            session.output.note(f"Snapshot {ref.name} cloned to {made.name}.")
        else:
            old = ref if args.has("rename") else made
            with failing(f"Failed to clean up {old.name}"):
                driver.domain_snapshot_delete(old, SnapshotDeleteFlag.METADATA_ONLY)
            if not args.has("rename"):
                raise CommandError(f"Must use --rename or --clone to change {ref.name} to {made.name}")


def _checkpoint(session: Session, args: Args) -> None:
    domain = session.domain(args)
    name = args.get("checkpointname")
    if name is None:
        raise CommandError("--checkpointname is required")
    driver = offered(session.hypervisor, CheckpointDriver, "virDomainCheckpointGetXMLDesc")
    ref = driver.domain_checkpoint_lookup_by_name(domain, name)
    with failing(f"Failed to update {ref.name}"):
        made = edit_document(
            session,
            lambda: driver.domain_checkpoint_get_xml_desc(ref, CheckpointXmlFlag.SECURE),
            lambda xml, _: driver.domain_checkpoint_create_xml(domain, xml, CheckpointCreateFlag.REDEFINE),
        )
        if made is None:
            session.output.note(f"Checkpoint {ref.name} XML configuration not changed.")
        elif made.name == ref.name:
            session.output.note(f"Checkpoint {ref.name} edited.")
        else:
            with failing(f"Failed to clean up {made.name}"):
                driver.domain_checkpoint_delete(made, CheckpointDeleteFlag.METADATA_ONLY)
            raise CommandError(f"Cannot rename checkpoint {ref.name} to {made.name}")


def _object(
    what: str, find: Callable[[Session, Args], Any], get: Callable[[Session, Any], str], define: Callable[..., Any]
) -> Callable[[Session, Args], None]:
    """A command for objects that all have a name and a definition."""

    def run(session: Session, args: Args) -> None:
        found = find(session, args)
        made = edit_document(session, lambda: get(session, found), lambda xml, _: define(session, xml))
        name = found.name if made is None else made.name
        session.output.note(f"{what} {name} XML configuration {'not changed' if made is None else 'edited'}.")

    return run


def _inactive(get: Callable[..., str]) -> str:
    """The definition, or what runs where there is none, or the driver knows only that."""
    try:
        return get(inactive=True)
    except VirtError as error:
        if error.code is not ErrorCode.INVALID_ARG:
            raise
        return get()


COMMANDS = (
    Command(
        "edit", "edit a domain's definition", (DOMAIN, flag("skip-validate", "take what no schema knows")), _domain
    ),
    Command("managedsave-edit", "edit the document of kept memory", (DOMAIN, RUNNING, PAUSED), _managed),
    Command("save-image-edit", "edit the document of saved memory", (FILE, RUNNING, PAUSED), _saved),
    Command(
        "snapshot-edit",
        "edit a snapshot's document",
        (
            DOMAIN,
            snapshot.NAME,
            flag("current", "the current one; with a name, make it that"),
            flag("rename", "it may get another name"),
            flag("clone", "another name makes another snapshot"),
        ),
        _snapshot,
    ),
    Command("checkpoint-edit", "edit a checkpoint's document", (DOMAIN, checkpoint.NAME), _checkpoint),
    Command(
        "pool-edit",
        "edit a pool's definition",
        (data("pool", "pool name or uuid"),),
        _object(
            "Pool",
            lambda session, args: session.pool(args["pool"]),
            lambda session, pool: _inactive(lambda **how: session.storage.storage_pool_get_xml_desc(pool, **how)),
            lambda session, xml: session.storage.storage_pool_define_xml(xml),
        ),
    ),
    Command(
        "net-edit",
        "edit a network's definition",
        (data("network", "network name or uuid"),),
        _object(
            "Network",
            lambda session, args: session.find_network(args["network"]),
            lambda session, network: _inactive(lambda **how: session.network.network_get_xml_desc(network, **how)),
            lambda session, xml: session.network.network_define_xml(xml),
        ),
    ),
    Command(
        "iface-edit",
        "edit the configuration of an interface of the host",
        (data("interface", "interface name or MAC address"),),
        _object(
            "Interface",
            interface.find,
            lambda session, found: session.interface.interface_get_xml_desc(found, inactive=True),
            lambda session, xml: session.interface.interface_define_xml(xml),
        ),
    ),
    Command(
        "nwfilter-edit",
        "edit a filter of networks",
        (data("nwfilter", "filter name or uuid"),),
        _object(
            "Network filter",
            nwfilter.find,
            lambda session, found: session.nwfilter.nwfilter_get_xml_desc(found),
            lambda session, xml: session.nwfilter.nwfilter_define_xml(xml),
        ),
    ),
)
