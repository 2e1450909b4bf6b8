"""What options say before a node is opened: what QEMU's schema of ``blockdev-add`` refuses, and the names they give."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from hostel.block import blockdev, registry
from hostel.block.driver import Supports
from hostel.block.options import SWITCH, Kind, OptionError, Options

_UNKNOWN: Final = re.compile(r"Block .* support the option '(.+)'")
_FLAGS: Final = ("read-only", "auto-read-only", "force-share")
# What the schema of the commands demands of a driver, and which words it lets options be.
NEEDED: Final = {
    "file": ("filename",),
    "host_device": ("filename",),
    "nbd": ("server",),
    "throttle": ("throttle-group", "file"),
    "quorum": ("children", "vote-threshold"),
    "blkdebug": ("image",),
    "blkverify": ("test", "raw"),
    "blklogwrites": ("file", "log"),
    **dict.fromkeys(("compress", "copy-on-read", "preallocate"), ("file",)),
}
_CHOICES: Final = {
    "discard": ("ignore", "unmap"),
    "detect-zeroes": ("off", "on", "unmap"),
    "aio": ("threads", "native", "io_uring"),
    "locking": ("auto", "off", "on"),
    "overlap-check": ("none", "constant", "cached", "all"),
}


@contextlib.contextmanager
def in_words_of_the_schema(tree: Mapping[str, Any], path: str = "") -> Iterator[None]:
    """The schema of the command has words of its own for an option that nobody knows."""
    try:
        yield
    except OptionError as error:
        if (unknown := _UNKNOWN.fullmatch(error.message)) is not None:
            member = unknown[1].split(".")[0]
            error.message = f"Parameter '{path}{_path(tree, member) or member}' is unexpected"
        raise


def names(tree: Mapping[str, Any]) -> Iterator[str]:
    """The names that options give, in the order in which QEMU takes them: what holds a node's bytes comes before it."""
    children = dict(tree)
    if isinstance(file := children.pop("file", None), Mapping):
        yield from names(file)
    if "node-name" in tree:
        yield str(tree["node-name"])
    for value in children.values():
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, Mapping):
                yield from names(child)


def _path(options: Mapping[str, Any], member: str) -> str:
    """Where a member is in nested options, as QEMU writes it; nothing where it is not."""
    if member in options:
        return member
    for key, value in options.items():
        parts = {key: value} if isinstance(value, Mapping) else {}
        if isinstance(value, list):
            parts = {f"{key}[{index}]": each for index, each in enumerate(value) if isinstance(each, Mapping)}
        for name, part in parts.items():
            if found := _path(part, member):
                return f"{name}.{found}"
    return ""


def _declared(driver: str) -> Options:
    """The options of a driver's own."""
    for known, of in (
        (registry.FORMATS, registry.format_driver),
        (registry.PROTOCOLS, registry.protocol_driver),
        (registry.FILTERS, registry.filter_driver),
    ):
        if driver in known:
            return of(driver).options
    return blockdev.FILE_OPTIONS


def check(tree: Mapping[str, Any], *, text: bool, path: str = "") -> None:
    """Refuse what QEMU's schema refuses before anything is opened: a driver that is unknown, what every node needs.

    Args:
        tree: the options of ``blockdev-add``, nested.
        text: values are text, from a command line.
        path: what stands before names in messages.

    Raises:
        OptionError: with QEMU's text.
    """
    driver = tree.get("driver")
    if driver is None:
        raise OptionError(f"Parameter '{path}driver' is missing")
    if driver not in (*registry.FORMATS, *registry.PROTOCOLS, *registry.FILTERS, "file", "host_device"):
        raise OptionError(f"Parameter 'driver' does not accept value '{driver}'")
    for needed in NEEDED.get(driver, ("file",) if driver in registry.FORMATS else ()):
        if needed not in tree:
            raise OptionError(f"Parameter '{path}{needed}' is missing")
    declared = _declared(str(driver))
    for name, value in tree.items():
        kind = declared[name].kind if name in declared and not text else None
        if kind is Kind.BOOL and not isinstance(value, bool):
            raise OptionError(f"Invalid parameter type for '{path}{name}', expected: boolean")
        if kind in (Kind.NUMBER, Kind.SIZE) and (isinstance(value, bool) or not isinstance(value, int)):
            raise OptionError(f"Invalid parameter type for '{path}{name}', expected: integer")
        if isinstance(value, str) and value not in _CHOICES.get(name, (value,)):
            raise OptionError(f"Parameter '{name}' does not accept value '{value}'")
        for index, each in enumerate(value if isinstance(value, list) else ()):
            if isinstance(each, Mapping) and "driver" in each:
                check(each, text=text, path=f"{path}{name}.{index}." if text else f"{path}{name}[{index}].")
        if isinstance(value, Mapping) and "driver" in value:
            check(value, text=text, path=f"{path}{name}.")
        elif name in ("node-name", "filename", "driver") and not isinstance(value, str):
            raise OptionError(f"Invalid parameter type for '{path}{name}', expected: string")
        elif name in _FLAGS and not text and not isinstance(value, bool):
            raise OptionError(f"Invalid parameter type for '{path}{name}', expected: boolean")
        elif name in _FLAGS and text and value not in SWITCH:
            raise OptionError(f"Parameter '{path}{name}' expects 'on' or 'off'")
    if "backing" in tree and not (
        driver in registry.FORMATS and registry.format_driver(driver).supports & Supports.BACKING
    ):
        raise OptionError(f"Parameter '{path}backing' is unexpected")
