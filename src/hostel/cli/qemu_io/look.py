"""The commands that look at the image or change how it is open."""

from __future__ import annotations

from typing import Final

from hostel.block.chain import rounded_length
from hostel.block.driver import CACHE_MODES, Cache, FilterDriver
from hostel.block.options import OptionError, given_options
from hostel.block.powers import Preallocation
from hostel.block.protocol import ProtocolDriver
from hostel.cli.qemu.output import dump
from hostel.cli.qemu_io.command import BadUsage, Command, CommandError, Given, shown, size
from hostel.cli.qemu_io.session import Opening, Session
from hostel.img import exercise
from hostel.units import SECTOR


def _length(session: Session, given: Given) -> None:
    session.text(f"{shown(rounded_length(session.node))}\n")


def _truncate(session: Session, given: Given) -> None:
    mode = given.get("m") or "off"
    if mode not in [each.value for each in Preallocation]:
        session.output.error(f"Invalid preallocation mode '{mode}'")
        raise CommandError("")
    if not given.operands:
        raise BadUsage
    target = size(given.operands[0])
    session.outstanding.settle()
    try:
        session.node.resize(target, Preallocation(mode))
    except OSError as error:
        session.output.failed(error)
        raise CommandError("") from None


def _info(session: Session, given: Given) -> None:
    node = session.node
    if session.opening.copy_on_read and isinstance(node.driver, FilterDriver):
        node = node.driver.child  # with QEMU that is how an image is used, and no node
    session.text(f"format name: {node.format}\n")
    if isinstance(node.driver, ProtocolDriver):
        # The real tool asks for the protocol's name as well.
        session.text(f"format name: {node.format}\n")
    details = node.driver.info()
    if details.dirty is None or isinstance(node.driver, ProtocolDriver):
        raise CommandError("")  # there is nothing more to say of it
    session.text(f"cluster size: {shown(details.cluster_size or 0)}\n")
    session.text(f"vm state offset: {shown(details.vm_state_offset)}\n")
    # A filter says nothing of what it stands on.
    if details.specific is not None and not isinstance(node.driver, FilterDriver):
        session.text("Format specific information:\n" + dump(details.specific, 1))


def _alloc(session: Session, given: Given) -> None:
    start = size(given.operands[0])
    count = size(given.operands[1]) if len(given.operands) > 1 else SECTOR
    inside = max(0, min(count, rounded_length(session.node) - start))
    parts = exercise.allocation(session.node, start, inside) if inside else ()
    total = sum(length for _, length, is_data in parts if is_data)
    session.text(f"{total}/{inside} bytes allocated at offset {shown(start)}\n")


def _map(session: Session, given: Given) -> None:
    for offset, length, is_data in exercise.allocation(session.node, 0, rounded_length(session.node)):
        what = "    allocated" if is_data else "not allocated"
        session.text(f"{shown(length)} ({length:#x}) bytes {what} at offset {shown(offset)} ({offset:#x})\n")


def _close(session: Session, given: Given) -> None:
    session.close()


def _quit(session: Session, given: Given) -> None:
    session.ended = True


def _open(session: Session, given: Given) -> None:
    opening = Opening(None, read_only=given.has("r"), force_share=given.has("U"), copy_on_read=given.has("C"))
    if given.has("n"):
        opening = opening._replace(cache=CACHE_MODES["none"])
    if given.get("t") is not None:
        opening = opening._replace(cache=_cache(session, given.get("t") or ""))
    if given.has("s"):
        opening = opening._replace(snapshot=True)
    settings = {letter: given.get(letter) for letter in ("d", "i")}
    if given.has("k"):
        settings["i"] = "native"
    options = _options(session, given.get("o"))
    if options and session.image_opts:
        raise CommandError("--image-opts and 'open -o' are mutually exclusive")
    if len(given.operands) > 1:
        raise BadUsage
    if given.operands and session.image_opts:
        options = _options(session, given.operands[0])
    elif given.operands:
        opening = opening._replace(filename=given.operands[0])
    try:
        session.open(with_settings(opening._replace(options=options), settings["d"], settings["i"]))
    except OptionError as error:
        session.output.failed(error)
        raise CommandError("") from None


def _reopen(session: Session, given: Given) -> None:
    if given.has("r") and given.has("w"):
        session.output.error("Only one -r/-w option may be given")
        raise CommandError("")
    if given.operands:
        raise BadUsage
    opening = session.opening
    changes = _options(session, given.get("o"))
    is_read_only = "on" if given.has("r") else "off" if given.has("w") else None
    if is_read_only is not None and "read-only" in changes:
        session.output.error("Cannot set both -r/-w and 'read-only'")
        raise CommandError("")
    if given.has("c"):
        opening = opening._replace(cache=_cache(session, given.get("c") or ""))
        if "cache.direct" in changes or "cache.no-flush" in changes:
            session.output.error("Cannot set both -c and the cache options")
            raise CommandError("")
    if is_read_only is not None:
        changes["read-only"] = is_read_only
    if "read-only" in changes:
        opening = opening._replace(read_only=changes["read-only"] == "on")
    session.reopen(opening, changes)


def _cache(session: Session, text: str) -> Cache:
    if text not in CACHE_MODES:
        session.output.error(f"Invalid cache option: {text}")
        raise CommandError("")
    return CACHE_MODES[text]


AIO: Final = ("threads", "native", "io_uring")
DISCARD: Final = ("ignore", "off", "unmap", "on")


def with_settings(opening: Opening, discard: str | None, aio: str | None) -> Opening:
    """An opening with the options that ``-d`` and ``-i`` stand for.

    Raises:
        OptionError: there is no such mode.
    """
    options = dict(opening.options)
    if discard is not None:
        if discard not in DISCARD:
            raise OptionError(f"Invalid discard option: {discard}")
        options.setdefault("discard", discard)
    if aio is not None and aio not in AIO:
        raise OptionError(f"Invalid aio option: {aio}")
    return opening._replace(options=options, aio=aio or "")


def _options(session: Session, text: str | None) -> dict[str, str]:
    if not text:
        return {}
    try:
        return {given.name: given.value for given in given_options(text)}
    except OptionError as error:
        session.output.failed(error)
        raise CommandError("") from None


COMMANDS: Final = (
    Command("length", "l", _length, "gets the length of the current file"),
    Command("truncate", "t", _truncate, "truncates the current file at the given offset", "m:", (1, 3),
            "[-m prealloc_mode] off", writes=True),
    Command("info", "i", _info, "prints information about the current file"),
    Command("alloc", "a", _alloc, "checks if offset is allocated in the file", "", (1, 2), "offset [count]"),
    Command("map", "", _map, "prints the allocated areas of a file", synopsis=""),
    Command("open", "o", _open, "open the file specified by path", "snCro:ki:t:d:U", (1, -1),
            "[-rsCnkU] [-t cache] [-d discard] [-o options] [path]", False),
    Command("reopen", "", _reopen, "reopens an image with new options", "c:o:rw", (0, -1),
            "[(-r|-w)] [-c cache] [-o options]"),
    Command("close", "c", _close, "close the current open file", patient=True),
    Command("quit", "q", _quit, "exit the program", "", (-1, -1), None, False, True),
)  # fmt: skip
