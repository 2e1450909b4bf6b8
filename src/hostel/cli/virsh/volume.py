"""Storage volumes."""

from __future__ import annotations

from hostel.cli.options import Args, Command, data, flag, value
from hostel.cli.output import pretty_size
from hostel.cli.virsh.session import CommandError, Session, failing, read_document
from hostel.drivers.base import VolumeFlag, VolumeType
from hostel.units import parse_libvirt_size

TYPES = {kind: kind.name.lower() for kind in VolumeType}
POOL = data("pool", "pool name or uuid")
VOL = data("vol", "volume name, key or path")
IN_POOL = value("pool", "pool name or uuid")


def _size(text: str) -> int:
    """Parse a size in virsh's words, bytes when it has no unit."""
    try:
        return parse_libvirt_size(text)
    except (ValueError, OverflowError) as error:
        raise CommandError(f"Malformed size {text}", error) from error


def _create(session: Session, args: Args) -> None:
    pool = session.pool(args["pool"])
    xml = read_document(args["file"])
    with failing(f"Failed to create vol from {args['file']}"):
        volume = session.storage.storage_vol_create_xml(pool, xml, _prealloc(args))
    session.output.note(f"Vol {volume.name} created from {args['file']}")


def _prealloc(args: Args) -> VolumeFlag:
    return VolumeFlag.CREATE_PREALLOC_METADATA if args.has("prealloc-metadata") else VolumeFlag.NONE


def _list(session: Session, args: Args) -> None:
    storage = session.storage
    pool = session.pool(args["pool"])
    with failing("Failed to list volumes"):
        volumes = sorted(storage.storage_pool_list_all_volumes(pool), key=lambda volume: volume.name)
    rows = []
    for volume in volumes:
        row = [volume.name, storage.storage_vol_get_path(volume)]
        if args.has("details"):
            info = storage.storage_vol_get_info(volume)
            row += [TYPES[info.type], pretty_size(info.capacity), pretty_size(info.allocation)]
        rows.append(row)
    header = ["Name", "Path", *(["Type", "Capacity", "Allocation"] if args.has("details") else [])]
    session.output.table(header, rows)


def _info(session: Session, args: Args) -> None:
    volume = session.volume(args)
    info = session.storage.storage_vol_get_info(volume)
    capacity, allocation = info.capacity, info.allocation
    session.output.line(f"{'Name:':<15} {volume.name}")
    session.output.line(f"{'Type:':<15} {TYPES[info.type]}")
    if args.has("bytes"):
        session.output.line(f"{'Capacity:':<15} {capacity} bytes")
        session.output.line(f"{'Allocation:':<15} {allocation} bytes")
    else:
        session.output.line(f"{'Capacity:':<15} {pretty_size(capacity)}")
        session.output.line(f"{'Allocation:':<15} {pretty_size(allocation)}")


def _delete(session: Session, args: Args) -> None:
    volume = session.volume(args)
    with failing(f"Failed to delete vol {volume.name}"):
        session.storage.storage_vol_delete(volume)
    session.output.note(f"Vol {volume.name} deleted")


def _resize(session: Session, args: Args) -> None:
    volume = session.volume(args)
    text = args["capacity"]
    negative = text.startswith("-")
    if negative and not (args.has("delta") and args.has("shrink")):
        raise CommandError("negative size requires --delta and --shrink")
    capacity = _size(text.removeprefix("-"))
    flags = VolumeFlag.NONE
    for name, bit in (
        ("allocate", VolumeFlag.RESIZE_ALLOCATE),
        ("delta", VolumeFlag.RESIZE_DELTA),
        ("shrink", VolumeFlag.RESIZE_SHRINK),
    ):
        if args.has(name):
            flags |= bit
    word = "by" if args.has("delta") else "to"
    with failing(f"Failed to change size of volume '{volume.name}' {word} {text}"):
        session.storage.storage_vol_resize(volume, capacity, flags)
    session.output.note(f"Size of volume '{volume.name}' successfully changed {word} {text}")


COMMANDS = (
    Command(
        "vol-create",
        "create a volume from a document",
        (POOL, data("file", "file with the XML document"), flag("prealloc-metadata", "make all metadata now")),
        _create,
    ),
    Command("vol-list", "list the volumes of a pool", (POOL, flag("details", "also show type and sizes")), _list),
    Command("vol-info", "facts about a volume", (VOL, IN_POOL, flag("bytes", "sizes in bytes")), _info),
    Command(
        "vol-dumpxml",
        "the document of a volume",
        (VOL, IN_POOL),
        lambda s, a: s.output.text(s.storage.storage_vol_get_xml_desc(s.volume(a))),
    ),
    Command(
        "vol-path",
        "the path of a volume",
        (data("vol", "volume name or key"), IN_POOL),
        lambda s, a: s.output.line(s.storage.storage_vol_get_path(s.volume(a))),
    ),
    Command(
        "vol-key",
        "the key of a volume",
        (data("vol", "volume name or path"), IN_POOL),
        lambda s, a: s.output.line(s.volume(a).key),
    ),
    Command(
        "vol-name",
        "the name of a volume",
        (data("vol", "volume key or path"),),
        lambda s, a: s.output.line(s.volume(a).name),
    ),
    Command("vol-delete", "remove a volume", (VOL, IN_POOL), _delete),
    Command(
        "vol-resize",
        "change the capacity of a volume",
        (
            VOL,
            data("capacity", "new capacity, in bytes or with a unit"),
            IN_POOL,
            flag("allocate", "allocate what is added"),
            flag("delta", "capacity is a difference"),
            flag("shrink", "allow less than before"),
        ),
        _resize,
    ),
)
