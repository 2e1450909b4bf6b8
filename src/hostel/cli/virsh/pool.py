"""Storage pools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hostel.cli.options import Args, Command, data, flag, split_list, value
from hostel.cli.output import pretty_size
from hostel.cli.virsh import document
from hostel.cli.virsh.document import element, empty, nested
from hostel.cli.virsh.session import VALIDATE, Session, failing, read_document, validated, yes_no
from hostel.drivers.base import PoolRef, PoolState
from hostel.drivers.storage.document import POOL_TYPES
from hostel.errors import ErrorCode, ErrorDomain, UsageError, VirtError

STATES: Final = {
    PoolState.INACTIVE: "inactive",
    PoolState.BUILDING: "building",
    PoolState.RUNNING: "running",
    PoolState.DEGRADED: "degraded",
    PoolState.INACCESSIBLE: "inaccessible",
}
POOL: Final = data("pool", "pool name or uuid")
FILE: Final = data("file", "file with the XML document")
BUILD: Final = flag("build", "build it first")
OVERWRITE: Final = (
    flag("no-overwrite", "format the device unless something is on it"),
    flag("overwrite", "format the device whatever is on it"),
)
# What a pool's document is written from.
DESCRIPTION: Final = (
    data("name", "name of the pool"),
    data("type", "type of the pool, such as dir"),
    flag("print-xml", "show the document and do nothing"),
    value("source-host", "host that has the storage"),
    value("source-path", "directory on that host"),
    value("source-dev", "device that has the storage"),
    value("source-name", "name of the storage there"),
    value("target", "directory in which the volumes are found"),
    value("source-format", "format of the storage"),
    value("auth-type", "kind of authentication"),
    value("auth-username", "user to authenticate as"),
    value("secret-usage", "usage of the secret to authenticate with"),
    value("secret-uuid", "UUID of the secret to authenticate with"),
    value("adapter-name", "name of the SCSI adapter"),
    value("adapter-wwnn", "node name of the Fibre Channel adapter"),
    value("adapter-wwpn", "port name of the Fibre Channel adapter"),
    value("adapter-parent", "name of the adapter above it"),
    value("adapter-parent-wwnn", "node name of the adapter above it"),
    value("adapter-parent-wwpn", "port name of the adapter above it"),
    value("adapter-parent-fabric-wwn", "fabric name of the adapter above it"),
    value("source-protocol-ver", "version of NFS"),
    value("source-initiator", "name of the iSCSI initiator"),
)
_SOURCES: Final = (
    "source-host",
    "source-path",
    "source-dev",
    "source-initiator",
    "source-format",
    "source-name",
    "adapter-name",
)


def _define(session: Session, args: Args) -> None:
    xml = read_document(args["file"])
    with failing(f"Failed to define pool from {args['file']}"):
        pool = session.storage.storage_pool_define_xml(validated(args, xml, "pool"))
    session.output.note(f"Pool {pool.name} defined from {args['file']}")


def _define_as(session: Session, args: Args) -> None:
    xml = _document(args)
    if args.has("print-xml"):
        session.output.line(xml)
        return
    with failing(f"Failed to define pool {args['name']}"):
        session.storage.storage_pool_define_xml(xml)
    session.output.note(f"Pool {args['name']} defined")


def _create(session: Session, args: Args) -> None:
    args.exclude("overwrite", "no-overwrite")
    xml = read_document(args["file"])
    with failing(f"Failed to create pool from {args['file']}"):
        pool = session.storage.storage_pool_create_xml(xml, build=args.has("build"), overwrite=_overwrite(args))
    session.output.note(f"Pool {pool.name} created from {args['file']}")


def _create_as(session: Session, args: Args) -> None:
    args.exclude("overwrite", "no-overwrite")
    xml = _document(args)
    if args.has("print-xml"):
        session.output.line(xml)
        return
    with failing(f"Failed to create pool {args['name']}"):
        session.storage.storage_pool_create_xml(xml, build=args.has("build"), overwrite=_overwrite(args))
    session.output.note(f"Pool {args['name']} created")


def _overwrite(args: Args) -> bool | None:
    """What may be overwritten; None where nothing is said of it."""
    return True if args.has("overwrite") else False if args.has("no-overwrite") else None


def _document(args: Args) -> str:
    """A pool's document from options, as virsh writes it."""
    args.exclude("secret-usage", "secret-uuid")
    parts = [element("name", args["name"])]
    if any(args.has(name) for name in _SOURCES) or (args.has("adapter-wwnn") and args.has("adapter-wwpn")):
        parts.append(nested("source", *_source(args)))
    if (target := args.get("target")) is not None:
        parts.append(nested("target", element("path", target)))
    return nested("pool", *parts, type=args["type"])


def _source(args: Args) -> list[str]:
    # One line a part, in virsh's order.
    found: list[str] = []
    for name, tag, attribute in (
        ("source-host", "host", "name"),
        ("source-path", "dir", "path"),
        ("source-dev", "device", "path"),
    ):
        if (text := args.get(name)) is not None:
            found.append(empty(tag, **{attribute: text}))
    if (initiator := args.get("source-initiator")) is not None:
        found.append(nested("initiator", empty("iqn", name=initiator)))
    if (adapter := _adapter(args)) is not None:
        found.append(adapter)
    if args.has("auth-type") and args.has("auth-username") and (args.has("secret-usage") or args.has("secret-uuid")):
        secret = empty("secret", usage=args.get("secret-usage"), uuid=args.get("secret-uuid"))
        found.append(nested("auth", secret, type=args["auth-type"], username=args["auth-username"]))
    if (kind := args.get("source-format")) is not None:
        found.append(empty("format", type=kind))
    if (source_name := args.get("source-name")) is not None:
        found.append(element("name", source_name))
    if (version := args.get("source-protocol-ver")) is not None:
        found.append(empty("protocol", ver=version))
    return found


def _adapter(args: Args) -> str | None:
    if args.has("adapter-wwnn") and args.has("adapter-wwpn"):
        parents = {"parent": args.get("adapter-parent")}
        if not args.has("adapter-parent"):
            if args.has("adapter-parent-wwnn") and args.has("adapter-parent-wwpn"):
                parents = {
                    "parent_wwnn": args.get("adapter-parent-wwnn"),
                    "parent_wwpn": args.get("adapter-parent-wwpn"),
                }
            else:
                parents = {"parent_fabric_wwn": args.get("adapter-parent-fabric-wwn")}
        return empty("adapter", type="fc_host", **parents, wwnn=args.get("adapter-wwnn"), wwpn=args.get("adapter-wwpn"))
    if args.has("adapter-name"):
        return empty("adapter", type="scsi_host", name=args.get("adapter-name"))
    return None


def _acting(
    action: Callable[[Session, PoolRef, Args], None], done: str, failed: str
) -> Callable[[Session, Args], None]:
    """Build a command that does one thing to one pool and says so, by the name it was given."""

    def run(session: Session, args: Args) -> None:
        pool = session.pool(args["pool"])
        with failing(f"Failed to {failed} pool {args['pool']}"):
            action(session, pool, args)
        session.output.note(f"Pool {args['pool']} {done}")

    return run


def _build(session: Session, pool: PoolRef, args: Args) -> None:
    _check_one(args)
    session.storage.storage_pool_build(pool, overwrite=_overwrite(args))


def _start(session: Session, args: Args) -> None:
    args.exclude("overwrite", "no-overwrite")
    pool = session.pool(args["pool"])
    with failing(f"Failed to start pool {args['pool']}"):
        session.storage.storage_pool_create(pool, build=args.has("build"), overwrite=_overwrite(args))
    session.output.note(f"Pool {args['pool']} started")


def _check_one(args: Args) -> None:
    if args.has("overwrite") and args.has("no-overwrite"):
        # pool-build asks the driver, which names its own flags.
        raise VirtError(
            ErrorCode.INVALID_ARG,
            "Flags 'VIR_STORAGE_POOL_BUILD_OVERWRITE' and 'VIR_STORAGE_POOL_BUILD_NO_OVERWRITE' are mutually exclusive",
            domain=ErrorDomain.STORAGE,
        )


def _autostart(session: Session, args: Args) -> None:
    pool = session.pool(args["pool"])
    enable = not args.has("disable")
    with failing(f"failed to {'' if enable else 'un'}mark pool {args['pool']} as autostarted"):
        session.storage.storage_pool_set_autostart(pool, enable)
    session.output.note(f"Pool {args['pool']} {'' if enable else 'un'}marked as autostarted")


def _types(args: Args) -> list[str] | None:
    given = args.get("type")
    types = None if given is None else split_list(given)
    for name in types or ():
        if name not in POOL_TYPES:
            raise UsageError(f"Invalid pool type '{name}'")
    return types


def _selected(session: Session, args: Args, types: list[str] | None) -> list[tuple[PoolRef, bool]]:
    """The pools that the filters let through, by name, and whether each is active."""
    storage = session.storage
    pools = [(pool, storage.storage_pool_is_active(pool)) for pool in storage.connect_list_all_storage_pools()]
    if not args.has("all"):
        pools = [(pool, active) for pool, active in pools if active != args.has("inactive")]
    for one, other, test in (
        ("autostart", "no-autostart", storage.storage_pool_get_autostart),
        ("persistent", "transient", storage.storage_pool_is_persistent),
    ):
        if args.has(one) != args.has(other):
            pools = [(pool, active) for pool, active in pools if test(pool) == args.has(one)]
    if types is not None:
        pools = [
            (pool, active)
            for pool, active in pools
            if document.tree(storage.storage_pool_get_xml_desc(pool, inactive=True)).get("type") in types
        ]
    return sorted(pools, key=lambda item: item[0].name)


def _list(session: Session, args: Args) -> None:
    args.exclude("all", "inactive")
    args.exclude("details", "uuid")
    args.exclude("details", "name")
    types = _types(args)
    with failing("Failed to list pools"):
        pools = _selected(session, args, types)
    storage = session.storage
    if args.has("uuid") or args.has("name"):
        for pool, _ in pools:
            fields = [pool.uuid] * args.has("uuid") + [f"{pool.name:<20}"] * args.has("name")
            session.output.line(" ".join(fields))
        return
    rows = []
    for pool, active in pools:
        autostart = yes_no(storage.storage_pool_get_autostart(pool))
        if not args.has("details"):
            rows.append([pool.name, "active" if active else "inactive", autostart])
            continue
        info = storage.storage_pool_get_info(pool)
        sizes = (
            [pretty_size(size) for size in (info.capacity, info.allocation, info.available)] if active else ["-"] * 3
        )
        persistent = yes_no(storage.storage_pool_is_persistent(pool))
        rows.append([pool.name, STATES[info.state], autostart, persistent, *sizes])
    if args.has("details"):
        header = ["Name", "State", "Autostart", "Persistent", "Capacity", "Allocation", "Available"]
    else:
        header = ["Name", "State", "Autostart"]
    session.output.table(header, rows)


def _info(session: Session, args: Args) -> None:
    pool = session.pool(args["pool"])
    info = session.storage.storage_pool_get_info(pool)
    rows = [
        ("Name:", pool.name),
        ("UUID:", pool.uuid),
        ("State:", STATES[info.state]),
        ("Persistent:", yes_no(session.storage.storage_pool_is_persistent(pool))),
        ("Autostart:", yes_no(session.storage.storage_pool_get_autostart(pool))),
    ]
    if info.state in (PoolState.RUNNING, PoolState.DEGRADED):
        shown: Callable[[int], str] = str if args.has("bytes") else pretty_size
        rows += [
            ("Capacity:", shown(info.capacity)),
            ("Allocation:", shown(info.allocation)),
            ("Available:", shown(info.available)),
        ]
    for name, text in rows:
        session.output.line(f"{name:<15} {text}")


def _find_sources_as(session: Session, args: Args) -> None:
    source = None
    if (host := args.get("host")) is not None:
        initiator = args.get("initiator")
        parts = [empty("host", name=host, port=args.get("port"))]
        parts += [] if initiator is None else [nested("initiator", empty("iqn", name=initiator))]
        source = nested("source", *parts)
    _show_sources(session, args["type"], source)


def _find_sources(session: Session, args: Args) -> None:
    path = args.get("srcSpec")
    _show_sources(session, args["type"], None if path is None else read_document(path))


def _show_sources(session: Session, type: str, source: str | None) -> None:
    with failing(f"Failed to find any {type} pool sources"):
        found = session.storage.connect_find_storage_pool_sources(type, source)
    session.output.text(found)


def _capabilities(session: Session, _args: Args) -> None:
    with failing("failed to get storage pool capabilities"):
        found = session.storage.connect_get_storage_pool_capabilities()
    session.output.line(found)


def _dumpxml(session: Session, args: Args) -> None:
    pool = session.pool(args["pool"])
    document.show(session, session.storage.storage_pool_get_xml_desc(pool, inactive=args.has("inactive")), args)


COMMANDS = (
    Command(
        "find-storage-pool-sources-as",
        "storage of a server that pools can be made of",
        (
            data("type", "type of the pools"),
            value("host", "the server"),
            value("port", "its port"),
            value("initiator", "IQN to ask as"),
        ),
        _find_sources_as,
    ),
    Command(
        "find-storage-pool-sources",
        "storage of a server that pools can be made of",
        (data("type", "type of the pools"), value("srcSpec", "file with the document that names the server")),
        _find_sources,
    ),
    Command("pool-autostart", "start a pool with the driver", (POOL, flag("disable", "do not")), _autostart),
    Command("pool-capabilities", "the types of pools", (), _capabilities),
    Command("pool-build", "make what a pool stands on", (POOL, *OVERWRITE), _acting(_build, "built", "build")),
    Command("pool-create-as", "start a transient pool from options", (*DESCRIPTION, BUILD, *OVERWRITE), _create_as),
    Command("pool-create", "start a transient pool", (FILE, BUILD, *OVERWRITE), _create),
    Command("pool-define-as", "define a pool from options", DESCRIPTION, _define_as),
    Command("pool-define", "define a pool, without starting it", (FILE, VALIDATE), _define),
    Command(
        "pool-delete",
        "remove what pool-build made",
        (POOL,),
        _acting(lambda s, p, _: s.storage.storage_pool_delete(p), "deleted", "delete"),
    ),
    Command(
        "pool-destroy",
        "stop a pool; its volumes stay",
        (POOL,),
        _acting(lambda s, p, _: s.storage.storage_pool_destroy(p), "destroyed", "destroy"),
    ),
    Command(
        "pool-dumpxml",
        "the document of a pool",
        (POOL, flag("inactive", "of the definition"), *document.PARTS),
        _dumpxml,
    ),
    Command("pool-info", "facts about a pool", (POOL, flag("bytes", "sizes in bytes")), _info),
    Command(
        "pool-list",
        "list pools",
        (
            flag("inactive", "only pools that are not started"),
            flag("all", "started pools and the others"),
            flag("transient", "only pools without a definition"),
            flag("persistent", "only pools with a definition"),
            flag("autostart", "only pools that start with the driver"),
            flag("no-autostart", "only pools that do not"),
            value("type", "only pools of these types, with commas"),
            flag("details", "also show sizes"),
            flag("uuid", "print UUIDs only"),
            flag("name", "print names only"),
        ),
        _list,
    ),
    Command(
        "pool-name",
        "the name of a pool",
        (data("pool", "pool uuid"),),
        lambda s, a: s.output.line(s.pool(a["pool"], by_name=False).name),
    ),
    Command(
        "pool-refresh",
        "look again at what is in a pool",
        (POOL,),
        _acting(lambda s, p, _: s.storage.storage_pool_refresh(p), "refreshed", "refresh"),
    ),
    Command("pool-start", "start a defined pool", (POOL, BUILD, *OVERWRITE), _start),
    Command(
        "pool-undefine",
        "drop the definition of a pool",
        (POOL,),
        _acting(lambda s, p, _: s.storage.storage_pool_undefine(p), "has been undefined", "undefine"),
    ),
    Command(
        "pool-uuid",
        "the UUID of a pool",
        (data("pool", "pool name"),),
        lambda s, a: s.output.line(s.pool(a["pool"], by_uuid=False).uuid),
    ),
)
