"""Storage volumes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from hostel.cli.options import Args, Command, data, flag, number, value
from hostel.cli.output import pretty_size
from hostel.cli.virsh import document
from hostel.cli.virsh.document import element, empty, nested
from hostel.cli.virsh.session import VALIDATE, CommandError, Session, failing, read_document, validated
from hostel.drivers.base import (
    PoolRef,
    VolumeCreateFlag,
    VolumeRef,
    VolumeResizeFlag,
    VolumeType,
    WipeAlgorithm,
)
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, VirtError
from hostel.units import scale_libvirt

_SIZE: Final = re.compile(r"\s*\+?([0-9]+)(.*)", re.ASCII | re.DOTALL)
_MAX: Final = 2**64 - 1  # unsigned long long
TYPES: Final = {kind: kind.name.lower() for kind in VolumeType}
POOL: Final = data("pool", "pool name")
VOL: Final = data("vol", "volume name, key or path")
IN_POOL: Final = value("pool", "pool name or uuid")
PREALLOC: Final = flag("prealloc-metadata", "make all metadata now (qcow2)")
REFLINK: Final = flag("reflink", "share the blocks with the original, where the file system can (raw)")
TRANSFER: Final = (
    VOL,
    data("file", "the file on our side"),
    IN_POOL,
    number("offset", "byte of the volume to begin at"),
    number("length", "bytes to transfer; all of them when left out"),
    flag("sparse", "keep holes as holes"),
)


def _size(text: str) -> int:
    """Parse a size in virsh's words, bytes when it has no unit."""
    match = _SIZE.fullmatch(text)
    if match is None or int(match[1]) > _MAX:
        raise CommandError(f"Malformed size {text}")
    try:
        return scale_libvirt(int(match[1]), match[2])
    except OverflowError as error:
        cause = fault(ErrorCode.OVERFLOW, str(error))
    except ValueError as error:
        cause = fault(ErrorCode.INVALID_ARG, str(error))
    raise CommandError(f"Malformed size {text}", cause)


def _create(session: Session, args: Args) -> None:
    pool = session.pool(args["pool"])
    xml = read_document(args["file"])
    with failing(f"Failed to create vol from {args['file']}"):
        volume = session.storage.storage_vol_create_xml(pool, validated(args, xml, "volume"), _create_flags(args))
    session.output.note(f"Vol {volume.name} created from {args['file']}")


def _create_flags(args: Args) -> VolumeCreateFlag:
    flags = VolumeCreateFlag.NONE
    if args.has("prealloc-metadata"):
        flags |= VolumeCreateFlag.PREALLOC_METADATA
    if args.has("reflink"):
        flags |= VolumeCreateFlag.REFLINK
    return flags


def _create_as(session: Session, args: Args) -> None:
    pool = session.pool(args["pool"])
    name = args["name"]
    parts = [element("name", name), element("capacity", str(_size(args["capacity"])))]
    if (allocation := args.get("allocation")) is not None:
        parts.append(element("allocation", str(_size(allocation))))
    if (format := args.get("format")) is not None:
        parts.append(nested("target", empty("format", type=format)))
    if (backing := args.get("backing-vol")) is not None:
        below = [element("path", session.storage.storage_vol_get_path(_backing(session, pool, backing)))]
        if (backing_format := args.get("backing-vol-format")) is not None:
            below.append(empty("format", type=backing_format))
        parts.append(nested("backingStore", *below))
    xml = nested("volume", *parts)
    if args.has("print-xml"):
        session.output.line(xml)
        return
    with failing(f"Failed to create vol {name}"):
        session.storage.storage_vol_create_xml(pool, xml, _create_flags(args))
    session.output.note(f"Vol {name} created")


def _backing(session: Session, pool: PoolRef, word: str) -> VolumeRef:
    """The volume of a name in the pool, or else of a key or path anywhere."""
    find = session.storage
    ways: tuple[Callable[[], VolumeRef], ...] = (
        lambda: find.storage_vol_lookup_by_name(pool, word),
        lambda: find.storage_vol_lookup_by_key(word),
        lambda: find.storage_vol_lookup_by_path(word),
    )
    cause: VirtError | None = None
    for way in ways:
        try:
            return way()
        except VirtError as error:
            cause = error
    raise CommandError(f"failed to get vol '{word}'", cause)


def _create_from(session: Session, args: Args) -> None:
    pool = session.pool(args["pool"])
    source = session.volume(args, pool_option="inputpool")
    xml = read_document(args["file"])
    with failing(f"Failed to create vol from {args['file']}"):
        volume = session.storage.storage_vol_create_xml_from(
            pool, validated(args, xml, "volume"), source, _create_flags(args)
        )
    session.output.note(f"Vol {volume.name} created from input vol {source.name}")


def _clone(session: Session, args: Args) -> None:
    source = session.volume(args)
    pool = session.storage.storage_pool_lookup_by_volume(source)
    xml = document.with_name(session.storage.storage_vol_get_xml_desc(source), args["newname"])
    if args.has("print-xml"):
        session.output.text(xml)
        return
    with failing(f"Failed to clone vol from {source.name}"):
        volume = session.storage.storage_vol_create_xml_from(pool, xml, source, _create_flags(args))
    session.output.note(f"Vol {volume.name} cloned from {source.name}")


def _list(session: Session, args: Args) -> None:
    storage = session.storage
    pool = session.pool(args["pool"])
    with failing("Failed to list volumes"):
        volumes = storage.storage_pool_list_volume_rows(pool, details=args.has("details"))
    rows = []
    for ref, path, info in sorted(volumes, key=lambda row: row.volume.name):
        row = [ref.name, path]
        if args.has("details"):
            row += (
                ["unknown"] * 3  # it went away meanwhile
                if info is None
                else [TYPES[info.type], pretty_size(info.capacity), pretty_size(info.allocation)]
            )
        rows.append(row)
    header = ["Name", "Path", *(["Type", "Capacity", "Allocation"] if args.has("details") else [])]
    session.output.table(header, rows)


def _info(session: Session, args: Args) -> None:
    volume = session.volume(args)
    session.output.line(f"{'Name:':<15} {volume.name}")
    physical = args.has("physical")
    info = session.storage.storage_vol_get_info(volume, physical=physical)
    shown: Callable[[int], str] = (lambda size: f"{size} bytes") if args.has("bytes") else pretty_size
    session.output.line(f"{'Type:':<15} {TYPES[info.type]}")
    session.output.line(f"{'Capacity:':<15} {shown(info.capacity)}")
    session.output.line(f"{'Physical:' if physical else 'Allocation:':<15} {shown(info.allocation)}")


def _delete(session: Session, args: Args) -> None:
    volume = session.volume(args)
    with failing(f"Failed to delete vol {args['vol']}"):
        session.storage.storage_vol_delete(volume, snapshots=args.has("delete-snapshots"))
    session.output.note(f"Vol {args['vol']} deleted")


def _wipe(session: Session, args: Args) -> None:
    volume = session.volume(args)
    name = args.get("algorithm")
    try:
        algorithm = WipeAlgorithm.ZERO if name is None else WipeAlgorithm[name.upper()]
    except KeyError:
        algorithm = None
    if algorithm is None or (name is not None and name != name.lower()):
        raise CommandError(f"Unsupported algorithm '{name}'")
    with failing(f"Failed to wipe vol {args['vol']}"):
        session.storage.storage_vol_wipe_pattern(volume, algorithm)
    session.output.note(f"Vol {args['vol']} wiped")


def _resize(session: Session, args: Args) -> None:
    volume = session.volume(args)
    text = args["capacity"].lstrip(" \t\n")
    flags = args.flags(
        VolumeResizeFlag.NONE,
        {
            "allocate": VolumeResizeFlag.ALLOCATE,
            "delta": VolumeResizeFlag.DELTA,
            "shrink": VolumeResizeFlag.SHRINK,
        },
    )
    if text.startswith("-"):
        # A convenience of virsh: the driver only takes how much, and which way.
        if not args.has("shrink"):
            raise CommandError("negative size requires --shrink")
        text = text[1:]
        flags |= VolumeResizeFlag.DELTA
    capacity = _size(text)
    word = "by" if flags & VolumeResizeFlag.DELTA else "to"
    with failing(f"Failed to change size of volume '{volume.name}' {word} {text}"):
        session.storage.storage_vol_resize(volume, capacity, flags)
    session.output.note(f"Size of volume '{volume.name}' successfully changed {word} {text}")


def _upload(session: Session, args: Args) -> None:
    from hostel.cli.virsh import transfer

    transfer.upload(session, args)


def _download(session: Session, args: Args) -> None:
    from hostel.cli.virsh import transfer

    transfer.download(session, args)


def _pool_of(session: Session, args: Args) -> None:
    pool = session.storage.storage_pool_lookup_by_volume(session.volume(args, pool_option=None))
    session.output.line(pool.uuid if args.has("uuid") else pool.name)


COMMANDS = (
    Command(
        "vol-clone",
        "copy a volume in its pool",
        (VOL, data("newname", "name of the copy"), IN_POOL, PREALLOC, REFLINK, flag("print-xml", "do nothing")),
        _clone,
    ),
    Command(
        "vol-create-as",
        "create a volume from options",
        (
            POOL,
            data("name", "name of the volume"),
            data("capacity", "its size, in bytes or with a unit"),
            value("allocation", "what to allocate at once, in bytes or with a unit"),
            value("format", "format, such as raw or qcow2"),
            value("backing-vol", "volume that the new one is an overlay of"),
            value("backing-vol-format", "format of that volume"),
            PREALLOC,
            flag("print-xml", "show the document and do nothing"),
        ),
        _create_as,
    ),
    Command(
        "vol-create",
        "create a volume from a document",
        (POOL, data("file", "file with the XML document"), PREALLOC, VALIDATE),
        _create,
    ),
    Command(
        "vol-create-from",
        "create a volume with the content of another",
        (
            data("pool", "pool name or uuid"),
            data("file", "file with the XML document"),
            VOL,
            value("inputpool", "pool of the other volume, by name or uuid"),
            PREALLOC,
            REFLINK,
            VALIDATE,
        ),
        _create_from,
    ),
    Command(
        "vol-delete",
        "remove a volume",
        (VOL, IN_POOL, flag("delete-snapshots", "and its snapshots, where the pool keeps some beside it")),
        _delete,
    ),
    Command("vol-download", "copy a volume's bytes to a file", TRANSFER, _download),
    Command(
        "vol-dumpxml",
        "the document of a volume",
        (VOL, IN_POOL, *document.PARTS),
        lambda s, a: document.show(s, s.storage.storage_vol_get_xml_desc(s.volume(a)), a),
    ),
    Command(
        "vol-info",
        "facts about a volume",
        (
            VOL,
            IN_POOL,
            flag("bytes", "sizes in bytes"),
            flag("physical", "where the file ends instead of what it takes on the host"),
        ),
        _info,
    ),
    Command(
        "vol-key",
        "the key of a volume",
        (data("vol", "volume name or path"), IN_POOL),
        lambda s, a: s.output.line(s.volume(a).key),
    ),
    Command("vol-list", "list the volumes of a pool", (POOL, flag("details", "also show type and sizes")), _list),
    Command(
        "vol-name",
        "the name of a volume",
        (data("vol", "volume key or path"),),
        lambda s, a: s.output.line(s.volume(a, pool_option=None).name),
    ),
    Command(
        "vol-path",
        "the path of a volume",
        (data("vol", "volume name or key"), IN_POOL),
        lambda s, a: s.output.line(s.storage.storage_vol_get_path(s.volume(a))),
    ),
    Command(
        "vol-pool",
        "the pool of a volume",
        (data("vol", "volume key or path"), flag("uuid", "its UUID instead of its name")),
        _pool_of,
    ),
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
    Command(
        "vol-upload",
        "overwrite a volume with a file's bytes",
        (*TRANSFER, flag("trust", "follow the other files that an image in it names (not in libvirt)")),
        _upload,
    ),
    Command(
        "vol-wipe",
        "overwrite a volume so that nothing can be read back",
        (VOL, IN_POOL, value("algorithm", "zero (the default), nnsa, dod, bsi, gutmann, schneier, pfitzner7, ...")),
        _wipe,
    ),
)
