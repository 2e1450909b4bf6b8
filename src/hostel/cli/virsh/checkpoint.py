"""Checkpoints of domains."""

from __future__ import annotations

import datetime
from typing import Final

from hostel.cli.options import Args, Command, flag, rest, split_list, value
from hostel.cli.virsh import document
from hostel.cli.virsh.session import DOMAIN, CommandError, Session, failing, read_document
from hostel.cli.virsh.snapshot_tree import draw
from hostel.drivers.base import DomainRef
from hostel.drivers.base.backup import (
    CheckpointCreateFlag,
    CheckpointDeleteFlag,
    CheckpointDriver,
    CheckpointListFlag,
    CheckpointRef,
    CheckpointXmlFlag,
)
from hostel.drivers.base.offered import offered
from hostel.errors import ErrorCode, UsageError, VirtError

NAME = value("checkpointname", "the checkpoint's name")
QUIESCE = flag("quiesce", "have the guest agent freeze file systems first")
_CREATED: Final = {
    "redefine": CheckpointCreateFlag.REDEFINE,
    "redefine-validate": CheckpointCreateFlag.REDEFINE_VALIDATE,
    "quiesce": CheckpointCreateFlag.QUIESCE,
}
_LISTED: Final = {
    "topological": CheckpointListFlag.TOPOLOGICAL,
    "leaves": CheckpointListFlag.LEAVES,
    "no-leaves": CheckpointListFlag.NO_LEAVES,
    "roots": CheckpointListFlag.ROOTS,
}
_SHOWN: Final = {
    "security-info": CheckpointXmlFlag.SECURE,
    "no-domain": CheckpointXmlFlag.NO_DOMAIN,
    "size": CheckpointXmlFlag.SIZE,
}
_DELETED: Final = {
    "children": CheckpointDeleteFlag.CHILDREN,
    "children-only": CheckpointDeleteFlag.CHILDREN_ONLY,
    "metadata": CheckpointDeleteFlag.METADATA_ONLY,
}


def _checkpoints(session: Session, api: str) -> CheckpointDriver:
    return offered(session.hypervisor, CheckpointDriver, api)


def _create(session: Session, args: Args) -> None:
    if args.has("redefine-validate") and not args.has("redefine"):
        raise UsageError("Option --redefine is required by option --redefine-validate")
    domain = session.domain(args)
    file = args.get("xmlfile")
    xml = read_document(file) if file is not None else "<domaincheckpoint/>"
    _make(session, domain, xml, args, file)


def _make(session: Session, domain: DomainRef, xml: str, args: Args, file: str | None) -> None:
    flags = args.flags(CheckpointCreateFlag.NONE, _CREATED)
    driver = _checkpoints(session, "virDomainCheckpointCreateXML")
    made = driver.domain_checkpoint_create_xml(domain, xml, flags)
    where = f" from '{file}'" if file is not None else ""
    if not session.output.quiet:
        session.output.text(f"Domain checkpoint {made.name} created{where}")


def _create_as(session: Session, args: Args) -> None:
    domain = session.domain(args)
    inner = [
        document.element(tag, text)
        for tag, text in (("name", args.get("name")), ("description", args.get("description")))
        if text is not None
    ]
    if args.rest:
        inner.append(document.nested("disks", *(_disk(spec) for spec in args.rest)))
    xml = document.nested("domaincheckpoint", *inner) if inner else "<domaincheckpoint>\n</domaincheckpoint>"
    if args.has("print-xml"):
        session.output.line(xml + "\n")
        return
    _make(session, domain, xml, args, None)


def _disk(spec: str) -> str:
    """``vda,checkpoint=bitmap,bitmap=name``."""
    name, *parts = split_list(spec) or [""]
    given: dict[str, str | None] = {"checkpoint": None, "bitmap": None}
    for part in parts:
        key, equals, text = part.partition("=")
        if not equals or key not in given or given[key] is not None:
            raise CommandError(f"unable to parse diskspec: {spec}")
        given[key] = text
    return document.empty("disk", name=name, **given)


def _look_up(session: Session, args: Args, option: str = "checkpointname") -> CheckpointRef:
    domain, name = session.domain(args), args.get(option)
    if name is None:
        raise CommandError(f"--{option} is required")
    return _checkpoints(session, "virDomainCheckpointLookupByName").domain_checkpoint_lookup_by_name(domain, name)


def _delete(session: Session, args: Args) -> None:
    checkpoint = _look_up(session, args)
    flags = args.flags(CheckpointDeleteFlag.NONE, _DELETED)
    with failing(f"Failed to delete checkpoint {checkpoint.name}"):
        _checkpoints(session, "virDomainCheckpointDelete").domain_checkpoint_delete(checkpoint, flags)
    what = " children" if args.has("children-only") else ""
    session.output.note(f"Domain checkpoint {checkpoint.name}{what} deleted")


def _dumpxml(session: Session, args: Args) -> None:
    checkpoint = _look_up(session, args)
    flags = args.flags(CheckpointXmlFlag.NONE, _SHOWN)
    driver = _checkpoints(session, "virDomainCheckpointGetXMLDesc")
    document.show(session, driver.domain_checkpoint_get_xml_desc(checkpoint, flags), args)


def _parent(driver: CheckpointDriver, checkpoint: CheckpointRef) -> str | None:
    try:
        return driver.domain_checkpoint_get_parent(checkpoint).name
    except VirtError as error:
        if error.code is not ErrorCode.NO_DOMAIN_CHECKPOINT:
            raise
        return None


def _info(session: Session, args: Args) -> None:
    checkpoint = _look_up(session, args)
    driver = _checkpoints(session, "virDomainCheckpointGetParent")
    descend = CheckpointListFlag.DESCENDANTS
    rows = (
        ("Name:", checkpoint.name),
        ("Domain:", checkpoint.domain.name),
        ("Parent:", _parent(driver, checkpoint) or "-"),
        ("Children:", str(len(driver.domain_checkpoint_list_all_children(checkpoint)))),
        ("Descendants:", str(len(driver.domain_checkpoint_list_all_children(checkpoint, descend)))),
    )
    for name, text in rows:
        session.output.line(f"{name:<15} {text}")


def _parent_of(session: Session, args: Args) -> None:
    checkpoint = _look_up(session, args)
    parent = _parent(_checkpoints(session, "virDomainCheckpointGetParent"), checkpoint)
    if parent is None:
        raise CommandError(f"checkpoint '{checkpoint.name}' has no parent")
    session.output.text(parent)


def _list(session: Session, args: Args) -> None:
    for one, other in (
        ("tree", "name"), ("parent", "roots"), ("parent", "tree"), ("roots", "tree"), ("roots", "from"),
    ):  # fmt: skip
        args.exclude(one, other)
    for option in ("leaves", "no-leaves"):
        if args.has(option) and args.has("tree"):
            raise CommandError(f"--{option} and --tree are mutually exclusive")
    flags = args.flags(CheckpointListFlag.NONE, _LISTED)
    has_start = args.get("from") is not None
    if args.has("descendants"):
        if not has_start:
            raise CommandError("--descendants requires --from")
        flags |= CheckpointListFlag.DESCENDANTS
    domain = session.domain(args)
    driver = _checkpoints(session, "virDomainListAllCheckpoints")
    if has_start:
        start = _look_up(session, args, "from")
        found = driver.domain_checkpoint_list_all_children(start, flags)
        found = [start, *found] if args.has("tree") else found
    else:
        found = driver.domain_list_all_checkpoints(domain, flags)
    if not args.has("topological"):
        found = sorted(found, key=lambda item: item.name.lower())
    _show(session, driver, found, args)


def _show(session: Session, driver: CheckpointDriver, found: list[CheckpointRef], args: Args) -> None:
    if args.has("tree"):
        session.output.text(draw({item.name: _parent(driver, item) for item in found}))
        return
    if args.has("name"):
        for item in found:
            session.output.line(item.name)
        return
    rows = []
    for item in found:
        root = document.tree(driver.domain_checkpoint_get_xml_desc(item))
        made = datetime.datetime.fromtimestamp(int(root.findtext("creationTime", "0"))).astimezone()
        row = [item.name, f"{made:%Y-%m-%d %H:%M:%S %z}"]
        rows.append([*row, root.findtext("parent/name", "")] if args.has("parent") else row)
    header = ["Name", "Creation Time"]
    session.output.table([*header, "Parent"] if args.has("parent") else header, rows)


COMMANDS = (
    Command(
        "checkpoint-create",
        "write down changes from now on, as a file says",
        (
            DOMAIN,
            value("xmlfile", "the document; all disks unless told"),
            flag("redefine", "take the document as what is known of a checkpoint"),
            flag("redefine-validate", "and look whether it is so"),
            QUIESCE,
        ),
        _create,
    ),
    Command(
        "checkpoint-create-as",
        "write down changes from now on, as options say",
        (
            DOMAIN,
            value("name", "its name"),
            value("description", "what it is"),
            flag("print-xml", "print the document, and create nothing"),
            QUIESCE,
            rest("diskspec", "DISK[,checkpoint=TYPE][,bitmap=NAME]"),
        ),
        _create_as,
    ),
    Command(
        "checkpoint-delete",
        "drop a checkpoint",
        (
            DOMAIN,
            NAME,
            flag("children", "and all that come after it"),
            flag("children-only", "only those that come after it"),
            flag("metadata", "only what is known of it"),
        ),
        _delete,
    ),
    Command(
        "checkpoint-dumpxml",
        "the document of a checkpoint",
        (
            DOMAIN,
            NAME,
            flag("security-info", "with passwords"),
            flag("no-domain", "without the domain"),
            flag("size", "and how much has changed since"),
            *document.PARTS,
        ),
        _dumpxml,
    ),
    Command("checkpoint-info", "facts about a checkpoint", (DOMAIN, NAME), _info),
    Command(
        "checkpoint-list",
        "list the checkpoints of a domain",
        (
            DOMAIN,
            flag("parent", "show parents"),
            flag("roots", "only those without a parent"),
            flag("leaves", "only those without children"),
            flag("no-leaves", "only those with children"),
            flag("tree", "as a tree"),
            value("from", "only what comes after this one"),
            flag("descendants", "with --from: and after that"),
            flag("name", "names only"),
            flag("topological", "parents before children"),
        ),
        _list,
    ),
    Command("checkpoint-parent", "the checkpoint before another", (DOMAIN, NAME), _parent_of),
)
