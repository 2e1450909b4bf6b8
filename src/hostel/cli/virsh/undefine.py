"""``undefine``, which may take the volumes of the domain's disks along."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from xml.etree.ElementTree import Element

from hostel.cli.options import Args, split_list
from hostel.cli.virsh import document
from hostel.cli.virsh.domain_monitor import is_saved
from hostel.cli.virsh.saving import saves
from hostel.cli.virsh.session import CommandError, Session, failing
from hostel.drivers.base import DomainRef, UndefineFlag, VolumeRef
from hostel.drivers.base.snapshot import SnapshotDriver
from hostel.errors import ErrorCode, HostelError, UsageError, VirtError

_SOURCES = ("file", "dir", "name", "dev", "volume")


class DiskVolume(NamedTuple):
    """A volume of a pool that is a disk of the domain."""

    target: str
    source: str
    volume: VolumeRef


def undefine(session: Session, args: Args) -> None:
    """Drop the definition, and the volumes that were asked for with it.

    Raises:
        UsageError: options that do not go together.
        CommandError: what failed; the volumes are only removed once the definition is gone.
    """
    args.exclude("nvram", "keep-nvram")
    args.exclude("tpm", "keep-tpm")
    if args.has("delete-storage-volume-snapshots") and not args.has("remove-all-storage"):
        raise UsageError("Option --remove-all-storage is required by option --delete-storage-volume-snapshots")
    takes_storage = args.has("storage") or args.has("remove-all-storage")
    if args.has("wipe-storage") and not takes_storage:
        raise UsageError("'--wipe-storage' requires '--storage <string>' or '--remove-all-storage'")
    domain = session.domain(args)
    volumes = _volumes(session, domain, args) if takes_storage else []
    word = args["domain"]
    _drop(session, domain, args)
    session.output.note(f"Domain '{word}' has been undefined")
    # Every volume is tried, whatever happens to the others.
    takes_snapshots = args.has("delete-storage-volume-snapshots")
    removed = [_remove(session, volume, wipe=args.has("wipe-storage"), snapshots=takes_snapshots) for volume in volumes]
    if not all(removed):
        raise CommandError("")  # said already, volume by volume


def _drop(session: Session, domain: DomainRef, args: Args) -> None:
    """Drop the definition, by what virsh would ask of a daemon that may be older than it."""
    # What runs has nothing saved, and its snapshots are not in the way.
    is_off = domain.id == -1
    saved = is_off and _found(lambda: is_saved(session, domain))
    moments = _found(lambda: _snapshots(session, domain)) if is_off else 0
    flags = _flags(args)
    if not saved:
        flags &= ~UndefineFlag.MANAGED_SAVE
    if not moments:
        flags &= ~UndefineFlag.SNAPSHOTS_METADATA
    with failing(f"Failed to undefine domain '{args['domain']}'"):
        if args.has("managed-save") or args.has("nvram") or moments or not saved:
            try:
                session.hypervisor.domain_undefine(domain, flags)
                return
            except VirtError as error:
                if args.has("nvram") or error.code not in (ErrorCode.NO_SUPPORT, ErrorCode.INVALID_ARG):
                    raise
    if saved:
        if not args.has("managed-save"):
            raise CommandError("Refusing to undefine while domain managed save image exists")
        saves(session, "virDomainManagedSaveRemove").domain_managed_save_remove(domain)
    if moments:
        if args.has("snapshots-metadata"):
            raise CommandError(f"Unable to remove metadata of {moments} snapshots")
        raise CommandError(f"Refusing to undefine while {moments} snapshots exist")
    with failing(f"Failed to undefine domain '{args['domain']}'"):
        session.hypervisor.domain_undefine(domain)


def _snapshots(session: Session, domain: DomainRef) -> int:
    driver = session.hypervisor
    return len(driver.domain_list_all_snapshots(domain)) if isinstance(driver, SnapshotDriver) else 0


def _found(look: Callable[[], int]) -> int:
    """What a look tells; nothing where the driver has no such thing."""
    try:
        return look()
    except VirtError as error:
        if error.code != ErrorCode.NO_SUPPORT:
            raise
        return 0


def _flags(args: Args) -> UndefineFlag:
    return args.flags(
        UndefineFlag.NONE,
        {
            "managed-save": UndefineFlag.MANAGED_SAVE,
            "snapshots-metadata": UndefineFlag.SNAPSHOTS_METADATA,
            "checkpoints-metadata": UndefineFlag.CHECKPOINTS_METADATA,
            "nvram": UndefineFlag.NVRAM,
            "keep-nvram": UndefineFlag.KEEP_NVRAM,
            "tpm": UndefineFlag.TPM,
            "keep-tpm": UndefineFlag.KEEP_TPM,
        },
    )


def _volumes(session: Session, domain: DomainRef, args: Args) -> list[DiskVolume]:
    """The volumes to remove; what is asked for and is no disk of the domain ends the command before it did anything."""
    if domain.id != -1:
        raise CommandError("Storage volume deletion is supported only on stopped domains")
    asked = args.get("storage")
    if asked is not None and args.has("remove-all-storage"):
        raise CommandError("Specified both --storage and --remove-all-storage")
    wanted = split_list(asked) if asked is not None else None
    volumes = []
    for disk in document.tree(session.hypervisor.domain_get_xml_desc(domain)).iterfind("devices/disk"):
        target = _attribute(disk, "target", "dev")
        source = next(filter(None, (_attribute(disk, "source", name) for name in _SOURCES)), "")
        if not source:
            continue
        if wanted is not None:
            name = next((name for name in wanted if name in (target, source)), None)
            if name is None:
                continue
            wanted.remove(name)
        found = _look_up(session, target, source, _attribute(disk, "source", "pool"))
        if found is not None:
            volumes.append(DiskVolume(target, source, found))
    if wanted:
        raise CommandError("\n".join(f"Volume '{name}' was not found in domain's definition.\n" for name in wanted))
    return volumes


def _attribute(disk: Element, tag: str, name: str) -> str:
    element = disk.find(tag)
    return "" if element is None else element.get(name, "")


def _look_up(session: Session, target: str, source: str, pool: str) -> VolumeRef | None:
    """The volume of a disk; None, and a line about it, where it is in no pool."""
    storage = session.storage
    if pool:
        try:
            found = storage.storage_pool_lookup_by_name(pool)
        except VirtError:
            session.output.error(f"Storage pool '{pool}' for volume '{target}' not found.")
            return None
    try:
        return storage.storage_vol_lookup_by_name(found, source) if pool else storage.storage_vol_lookup_by_path(source)
    except VirtError:
        session.output.error(f"Storage volume '{target}'({source}) is not managed by libvirt. Remove it manually.\n")
        return None


def _remove(session: Session, disk: DiskVolume, *, wipe: bool, snapshots: bool) -> bool:
    output = session.output
    if wipe:
        if not output.quiet:
            output.text(f"Wiping volume '{disk.target}'({disk.source}) ... ")
            output.out.flush()
        try:
            session.storage.storage_vol_wipe_pattern(disk.volume)
        except HostelError as error:
            output.error(f"Failed! Volume not removed.\n{error}")
            return False
        output.note("Done.")
    try:
        session.storage.storage_vol_delete(disk.volume, snapshots=snapshots)
    except HostelError as error:
        output.error(f"Failed to remove storage volume '{disk.target}'({disk.source})\n{error}")
        return False
    output.note(f"Volume '{disk.target}'({disk.source}) removed.")
    return True
