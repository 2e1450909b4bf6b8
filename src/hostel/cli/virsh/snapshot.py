"""Snapshots of domains."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Final

from hostel.cli.options import Args, Command, data, flag, rest, split_list, value
from hostel.cli.virsh import document
from hostel.cli.virsh.session import DOMAIN, VALIDATE, CommandError, Session, failing, read_document, validated
from hostel.cli.virsh.snapshot_tree import draw
from hostel.drivers.base import DomainRef, DomainXmlFlag
from hostel.drivers.base.offered import offered
from hostel.drivers.base.snapshot import (
    SnapshotCreateFlag,
    SnapshotDeleteFlag,
    SnapshotDriver,
    SnapshotListFlag,
    SnapshotRef,
    SnapshotRevertFlag,
)
from hostel.errors import ErrorCode, VirtError

NAME = value("snapshotname", "the snapshot's name")
CURRENT = flag("current", "the one that the domain goes on from")
_MAKING: Final[Mapping[str, SnapshotCreateFlag]] = {
    "redefine": SnapshotCreateFlag.REDEFINE,
    "current": SnapshotCreateFlag.CURRENT,
    "no-metadata": SnapshotCreateFlag.NO_METADATA,
    "halt": SnapshotCreateFlag.HALT,
    "disk-only": SnapshotCreateFlag.DISK_ONLY,
    "reuse-external": SnapshotCreateFlag.REUSE_EXT,
    "quiesce": SnapshotCreateFlag.QUIESCE,
    "atomic": SnapshotCreateFlag.ATOMIC,
    "live": SnapshotCreateFlag.LIVE,
}
_DELETED: Final = {
    "children": SnapshotDeleteFlag.CHILDREN,
    "children-only": SnapshotDeleteFlag.CHILDREN_ONLY,
    "metadata": SnapshotDeleteFlag.METADATA_ONLY,
}
# What a tree cannot leave out.
_CHOSEN: Final = {
    "leaves": SnapshotListFlag.LEAVES,
    "no-leaves": SnapshotListFlag.NO_LEAVES,
    "inactive": SnapshotListFlag.INACTIVE,
    "active": SnapshotListFlag.ACTIVE,
    "disk-only": SnapshotListFlag.DISK_ONLY,
    "internal": SnapshotListFlag.INTERNAL,
    "external": SnapshotListFlag.EXTERNAL,
}
_LISTED: Final = {
    "topological": SnapshotListFlag.TOPOLOGICAL,
    "roots": SnapshotListFlag.ROOTS,
    "metadata": SnapshotListFlag.METADATA,
    "no-metadata": SnapshotListFlag.NO_METADATA,
}


def _snapshots(session: Session, api: str) -> SnapshotDriver:
    return offered(session.hypervisor, SnapshotDriver, api)


def _flags(args: Args) -> SnapshotCreateFlag:
    return args.flags(SnapshotCreateFlag.NONE, _MAKING)


def _create(session: Session, args: Args) -> None:
    domain = session.domain(args)
    file = args.get("xmlfile")
    xml = read_document(file) if file is not None else "<domainsnapshot/>"
    _make(session, domain, validated(args, xml, "snapshot"), _flags(args), file)


def _make(session: Session, domain: DomainRef, xml: str, flags: SnapshotCreateFlag, file: str | None) -> None:
    made = _snapshots(session, "virDomainSnapshotCreateXML").domain_snapshot_create_xml(domain, xml, flags)
    where = f" from '{file}'" if file is not None else ""
    if not session.output.quiet:
        session.output.text(f"Domain snapshot {made.name} created{where}")


def _create_as(session: Session, args: Args) -> None:
    domain = session.domain(args)
    inner = [
        document.element(tag, text)
        for tag, text in (("name", args.get("name")), ("description", args.get("description")))
        if text is not None
    ]
    if (spec := args.get("memspec")) is not None:
        inner.append(_memory(spec))
    if args.rest:
        inner.append(document.nested("disks", *(_disk(spec) for spec in args.rest)))
    xml = document.nested("domainsnapshot", *inner) if inner else "<domainsnapshot>\n</domainsnapshot>"
    if args.has("print-xml"):
        session.output.line(xml + "\n")
        return
    _make(session, domain, validated(args, xml, "snapshot"), _flags(args), None)


def _memory(spec: str) -> str:
    """``snapshot=external,file=/x``, or ``/x``."""
    given: dict[str, str | None] = {"snapshot": None, "file": None}
    for part in split_list(spec):
        name, equals, text = part.partition("=")
        if equals and name in given and given[name] is None:
            given[name] = text
        elif part.startswith("/") and given["file"] is None:
            given["file"] = part
        else:
            raise CommandError(f"unable to parse memspec: {spec}")
    return document.empty("memory", **given)


def _disk(spec: str) -> str:
    """``vda,snapshot=external,driver=qcow2,stype=file,file=/x``."""
    name, *parts = split_list(spec) or [""]
    given: dict[str, str | None] = {"snapshot": None, "driver": None, "stype": None, "file": None}
    for part in parts:
        key, equals, text = part.partition("=")
        if not equals or key not in given or given[key] is not None:
            raise CommandError(f"unable to parse diskspec: {spec}")
        given[key] = text
    if given["stype"] not in (None, "file", "block"):
        raise CommandError(f"Unknown storage type: '{given['stype']}'\nunable to parse diskspec: {spec}")
    inner = []
    if given["driver"] is not None:
        inner.append(document.empty("driver", type=given["driver"]))
    if given["file"] is not None:
        inner.append(document.empty("source", **{"dev" if given["stype"] == "block" else "file": given["file"]}))
    attributes = {"name": name, "snapshot": given["snapshot"], "type": given["stype"]}
    return document.nested("disk", *inner, **attributes) if inner else document.empty("disk", **attributes)


def _look_up(session: Session, args: Args, option: str = "snapshotname") -> SnapshotRef:
    domain, name = session.domain(args), args.get(option)
    if args.has("current") and name is not None:
        raise CommandError(f"--{option} and --current are mutually exclusive")
    if name is None and not args.has("current"):
        raise CommandError(f"--{option} or --current is required")
    driver = _snapshots(session, "virDomainSnapshotLookupByName")
    if name is not None:
        return driver.domain_snapshot_lookup_by_name(domain, name)
    return driver.domain_snapshot_current(domain)


def _current(session: Session, args: Args) -> None:
    args.exclude("name", "snapshotname")
    domain, name = session.domain(args), args.get("snapshotname")
    driver = _snapshots(session, "virDomainSnapshotCurrent")
    if name is not None:
        found = driver.domain_snapshot_lookup_by_name(domain, name)
        xml = driver.domain_snapshot_get_xml_desc(found, DomainXmlFlag.SECURE)
        flags = SnapshotCreateFlag.REDEFINE | SnapshotCreateFlag.CURRENT
        if "<state>disk-snapshot</state>" in xml:
            flags |= SnapshotCreateFlag.DISK_ONLY
        driver.domain_snapshot_create_xml(domain, xml, flags)
        if not session.output.quiet:
            session.output.text(f"Snapshot {name} set as current")
        return
    if not driver.domain_has_current_snapshot(domain):
        raise CommandError(f"domain '{domain.name}' has no current snapshot")
    found = driver.domain_snapshot_current(domain)
    if args.has("name"):
        session.output.text(found.name)
        return
    flags_of_xml = DomainXmlFlag.SECURE if args.has("security-info") else DomainXmlFlag.NONE
    session.output.text(driver.domain_snapshot_get_xml_desc(found, flags_of_xml))


def _delete(session: Session, args: Args) -> None:
    snapshot = _look_up(session, args)
    flags = args.flags(SnapshotDeleteFlag.NONE, _DELETED)
    with failing(f"Failed to delete snapshot {snapshot.name}"):
        _snapshots(session, "virDomainSnapshotDelete").domain_snapshot_delete(snapshot, flags)
    what = " children" if args.has("children-only") else ""
    session.output.note(f"Domain snapshot {snapshot.name}{what} deleted")


def _dumpxml(session: Session, args: Args) -> None:
    domain = session.domain(args)
    driver = _snapshots(session, "virDomainSnapshotGetXMLDesc")
    found = driver.domain_snapshot_lookup_by_name(domain, args["snapshotname"])
    flags = DomainXmlFlag.SECURE if args.has("security-info") else DomainXmlFlag.NONE
    document.show(session, driver.domain_snapshot_get_xml_desc(found, flags), args)


def _info(session: Session, args: Args) -> None:
    snapshot = _look_up(session, args)
    driver = _snapshots(session, "virDomainSnapshotGetXMLDesc")
    root = document.tree(driver.domain_snapshot_get_xml_desc(snapshot))
    current = driver.domain_has_current_snapshot(snapshot.domain) and driver.domain_snapshot_current(snapshot.domain)
    is_external = root.find("memory[@snapshot='external']") is not None
    is_external = is_external or root.find("disks/disk[@snapshot='external']") is not None
    descend = SnapshotListFlag.DESCENDANTS
    rows = (
        ("Name:", snapshot.name),
        ("Domain:", snapshot.domain.name),
        ("Current:", "yes" if current and current.name == snapshot.name else "no"),
        ("State:", root.findtext("state", "")),
        ("Location:", "external" if is_external else "internal"),
        ("Parent:", root.findtext("parent/name", "-")),
        ("Children:", str(len(driver.domain_snapshot_list_all_children(snapshot)))),
        ("Descendants:", str(len(driver.domain_snapshot_list_all_children(snapshot, descend)))),
        ("Metadata:", "yes"),
    )
    for name, text in rows:
        session.output.line(f"{name:<15} {text}")


def _list(session: Session, args: Args) -> None:
    for one, other in (
        ("tree", "name"), ("parent", "roots"), ("parent", "tree"), ("roots", "tree"), ("roots", "from"),
        ("roots", "current"),
    ):  # fmt: skip
        args.exclude(one, other)
    for option in _CHOSEN:
        if args.has(option) and args.has("tree"):
            raise CommandError(f"--{option} and --tree are mutually exclusive")
    flags = args.flags(SnapshotListFlag.NONE, _CHOSEN | _LISTED)
    has_start = args.get("from") is not None or args.has("current")
    if args.has("descendants") and not has_start:
        raise CommandError("--descendants requires either --from or --current")
    domain = session.domain(args)
    driver = _snapshots(session, "virDomainListAllSnapshots")
    if has_start:
        start = _look_up(session, args, "from")
        flags |= SnapshotListFlag.DESCENDANTS if args.has("descendants") or args.has("tree") else flags
        found = driver.domain_snapshot_list_all_children(start, flags)
        if args.has("tree"):
            found = [start, *found]
    else:
        found = driver.domain_list_all_snapshots(domain, flags)
    _show(session, driver, found, args)


def _show(session: Session, driver: SnapshotDriver, found: list[SnapshotRef], args: Args) -> None:
    if args.has("tree"):
        parents = {snapshot.name: _parent(driver, snapshot) for snapshot in found}
        session.output.text(draw(parents))
        return
    if args.has("name"):
        for snapshot in found:
            session.output.line(snapshot.name)
        return
    rows = []
    for snapshot in found:
        root = document.tree(driver.domain_snapshot_get_xml_desc(snapshot))
        made = datetime.datetime.fromtimestamp(int(root.findtext("creationTime", "0"))).astimezone()
        row = [snapshot.name, f"{made:%Y-%m-%d %H:%M:%S %z}", root.findtext("state", "")]
        rows.append([*row, root.findtext("parent/name", "")] if args.has("parent") else row)
    header = ["Name", "Creation Time", "State"]
    session.output.table([*header, "Parent"] if args.has("parent") else header, rows)


def _parent(driver: SnapshotDriver, snapshot: SnapshotRef) -> str | None:
    try:
        return driver.domain_snapshot_get_parent(snapshot).name
    except VirtError as error:
        if error.code is not ErrorCode.NO_DOMAIN_SNAPSHOT:
            raise
        return None


def _parent_of(session: Session, args: Args) -> None:
    snapshot = _look_up(session, args)
    parent = _parent(_snapshots(session, "virDomainSnapshotGetParent"), snapshot)
    if parent is None:
        raise CommandError(f"snapshot '{snapshot.name}' has no parent")
    session.output.text(parent)


def _revert(session: Session, args: Args) -> None:
    snapshot = _look_up(session, args)
    flags = args.flags(
        SnapshotRevertFlag.NONE,
        {
            "running": SnapshotRevertFlag.RUNNING,
            "paused": SnapshotRevertFlag.PAUSED,
            "reset-nvram": SnapshotRevertFlag.RESET_NVRAM,
        },
    )
    driver = _snapshots(session, "virDomainRevertToSnapshot")
    with failing(f"Failed to revert snapshot {snapshot.name}"):
        try:
            driver.domain_revert_to_snapshot(snapshot, flags)
        except VirtError as error:
            if error.code is not ErrorCode.SNAPSHOT_REVERT_RISKY or not args.has("force"):
                raise
            driver.domain_revert_to_snapshot(snapshot, flags | SnapshotRevertFlag.FORCE)
    session.output.note(f"Domain snapshot {snapshot.name} reverted")


_FLAGS: Final = (
    flag("no-metadata", "keep no document of it"),
    flag("halt", "end the domain afterwards"),
    flag("disk-only", "of the disks alone"),
    flag("reuse-external", "take overlays that are there"),
    flag("quiesce", "have the guest agent freeze file systems first"),
    flag("atomic", "all disks or none, which is always so here"),
    flag("live", "do not stop the guest while its memory is written"),
    VALIDATE,
)

COMMANDS = (
    Command(
        "snapshot-create",
        "take a snapshot that a file describes",
        (
            DOMAIN,
            value("xmlfile", "the document; what is usual unless told"),
            flag("redefine", "take the document as what is known of a snapshot"),
            flag("current", "with --redefine: the domain goes on from it"),
            *_FLAGS,
        ),
        _create,
    ),
    Command(
        "snapshot-create-as",
        "take a snapshot that options describe",
        (
            DOMAIN,
            value("name", "its name"),
            value("description", "what it is"),
            flag("print-xml", "print the document, and take nothing"),
            *_FLAGS,
            value("memspec", "[file=]NAME[,snapshot=TYPE]", positional=False),
            rest("diskspec", "DISK[,snapshot=TYPE][,driver=FORMAT][,stype=TYPE][,file=NAME]"),
        ),
        _create_as,
    ),
    Command(
        "snapshot-current",
        "show or say which snapshot the domain goes on from",
        (
            DOMAIN,
            flag("name", "print its name only"),
            flag("security-info", "with passwords"),
            value("snapshotname", "make this one the current one"),
        ),
        _current,
    ),
    Command(
        "snapshot-delete",
        "drop a snapshot",
        (
            DOMAIN,
            NAME,
            CURRENT,
            flag("children", "and all that come after it"),
            flag("children-only", "only those that come after it"),
            flag("metadata", "only what is known of it"),
        ),
        _delete,
    ),
    Command(
        "snapshot-dumpxml",
        "the document of a snapshot",
        (
            DOMAIN,
            data("snapshotname", "the snapshot's name"),
            flag("security-info", "with passwords"),
            *document.PARTS,
        ),
        _dumpxml,
    ),
    Command("snapshot-info", "facts about a snapshot", (DOMAIN, NAME, CURRENT), _info),
    Command(
        "snapshot-list",
        "list the snapshots of a domain",
        (
            DOMAIN,
            flag("parent", "show parents"),
            flag("roots", "only those without a parent"),
            flag("leaves", "only those without children"),
            flag("no-leaves", "only those with children"),
            flag("metadata", "only those that have a document"),
            flag("no-metadata", "only those that have none"),
            flag("inactive", "only those of a domain that was shut off"),
            flag("active", "only those with the guest's memory"),
            flag("disk-only", "only those of disks alone"),
            flag("internal", "only those inside images"),
            flag("external", "only those in files of their own"),
            flag("tree", "as a tree"),
            value("from", "only what comes after this one"),
            flag("current", "only what comes after the current one"),
            flag("descendants", "with --from: and after that"),
            flag("name", "names only"),
            flag("topological", "parents before children"),
        ),
        _list,
    ),
    Command("snapshot-parent", "the snapshot before another", (DOMAIN, NAME, CURRENT), _parent_of),
    Command(
        "snapshot-revert",
        "go back to a snapshot",
        (
            DOMAIN,
            NAME,
            CURRENT,
            flag("running", "and let it run"),
            flag("paused", "and leave it paused"),
            flag("force", "even where the document does not say what the domain was"),
            flag("reset-nvram", "and make UEFI's variables anew"),
        ),
        _revert,
    ),
)
