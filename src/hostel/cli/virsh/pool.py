"""Storage pools."""

from __future__ import annotations

from collections.abc import Callable

from hostel.cli.options import Args, Command, data, flag
from hostel.cli.output import pretty_size
from hostel.cli.virsh.session import Session, failing, read_document, yes_no
from hostel.drivers.base import PoolRef, PoolState

STATES = {
    PoolState.INACTIVE: "inactive",
    PoolState.BUILDING: "building",
    PoolState.RUNNING: "running",
    PoolState.DEGRADED: "degraded",
    PoolState.INACCESSIBLE: "inaccessible",
}
POOL = data("pool", "pool name or uuid")
FILE = data("file", "file with the XML document")


def _define(session: Session, args: Args) -> None:
    xml = read_document(args["file"])
    with failing(f"Failed to define pool from {args['file']}"):
        pool = session.storage.storage_pool_define_xml(xml)
    session.output.note(f"Pool {pool.name} defined from {args['file']}")


def _create(session: Session, args: Args) -> None:
    xml = read_document(args["file"])
    with failing(f"Failed to create pool from {args['file']}"):
        pool = session.storage.storage_pool_create_xml(xml, build=args.has("build"))
    session.output.note(f"Pool {pool.name} created from {args['file']}")


def _acting(
    action: Callable[[Session, PoolRef, Args], None], done: str, failed: str
) -> Callable[[Session, Args], None]:
    """Build a command that does one thing to one pool and says so."""

    def run(session: Session, args: Args) -> None:
        pool = session.pool(args["pool"])
        with failing(f"Failed to {failed} pool {pool.name}"):
            action(session, pool, args)
        session.output.note(f"Pool {pool.name} {done}")

    return run


def _autostart(session: Session, args: Args) -> None:
    pool = session.pool(args["pool"])
    enable = not args.has("disable")
    with failing(f"failed to {'' if enable else 'un'}mark pool {pool.name} as autostarted"):
        session.storage.storage_pool_set_autostart(pool, enable)
    session.output.note(f"Pool {pool.name} {'' if enable else 'un'}marked as autostarted")


def _list(session: Session, args: Args) -> None:
    storage = session.storage
    with failing("Failed to list pools"):
        pools = [(pool, storage.storage_pool_is_active(pool)) for pool in storage.connect_list_all_storage_pools()]
    if not args.has("all"):
        pools = [(pool, active) for pool, active in pools if active != args.has("inactive")]
    pools.sort(key=lambda item: item[0].name)
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


def _dumpxml(session: Session, args: Args) -> None:
    pool = session.pool(args["pool"])
    session.output.text(session.storage.storage_pool_get_xml_desc(pool, inactive=args.has("inactive")))


COMMANDS = (
    Command("pool-define", "define a pool, without starting it", (FILE,), _define),
    Command("pool-create", "start a transient pool", (FILE, flag("build", "build it first")), _create),
    Command(
        "pool-build",
        "make what a pool stands on",
        (POOL,),
        _acting(lambda s, p, _: s.storage.storage_pool_build(p), "built", "build"),
    ),
    Command(
        "pool-start",
        "start a defined pool",
        (POOL, flag("build", "build it first")),
        _acting(lambda s, p, a: s.storage.storage_pool_create(p, build=a.has("build")), "started", "start"),
    ),
    Command(
        "pool-destroy",
        "stop a pool; its volumes stay",
        (POOL,),
        _acting(lambda s, p, _: s.storage.storage_pool_destroy(p), "destroyed", "destroy"),
    ),
    Command(
        "pool-delete",
        "remove what pool-build made",
        (POOL,),
        _acting(lambda s, p, _: s.storage.storage_pool_delete(p), "deleted", "delete"),
    ),
    Command(
        "pool-undefine",
        "drop the definition of a pool",
        (POOL,),
        _acting(lambda s, p, _: s.storage.storage_pool_undefine(p), "has been undefined", "undefine"),
    ),
    Command(
        "pool-refresh",
        "look again at what is in a pool",
        (POOL,),
        _acting(lambda s, p, _: s.storage.storage_pool_refresh(p), "refreshed", "refresh"),
    ),
    Command("pool-autostart", "start a pool with the driver", (POOL, flag("disable", "do not")), _autostart),
    Command(
        "pool-list",
        "list pools",
        (
            flag("inactive", "only pools that are not started"),
            flag("all", "started pools and the others"),
            flag("details", "also show sizes"),
            flag("uuid", "print UUIDs only"),
            flag("name", "print names only"),
        ),
        _list,
    ),
    Command("pool-info", "facts about a pool", (POOL, flag("bytes", "sizes in bytes")), _info),
    Command("pool-dumpxml", "the document of a pool", (POOL, flag("inactive", "of the definition")), _dumpxml),
    Command(
        "pool-name",
        "the name of a pool",
        (data("pool", "pool uuid"),),
        lambda s, a: s.output.line(s.pool(a["pool"]).name),
    ),
    Command(
        "pool-uuid",
        "the UUID of a pool",
        (data("pool", "pool name"),),
        lambda s, a: s.output.line(s.pool(a["pool"]).uuid),
    ),
)
