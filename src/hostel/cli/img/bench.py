"""``qemu-img bench``."""

from __future__ import annotations

from typing import Final

from hostel.block.driver import CACHE_MODES
from hostel.block.options import Kind, Option, OptionError
from hostel.cli.img.arguments import FORCE_SHARE, FORMAT, IMAGE_OPTS, QUIET, Arguments, Command, size
from hostel.cli.qemu.failure import Failure
from hostel.cli.qemu.flag import Flag
from hostel.cli.qemu.opening import open_image
from hostel.cli.qemu.output import Output
from hostel.errors import UsageError
from hostel.img.bench import Pattern, bench

_INT_MAX: Final = 2**31 - 1
_NUMBER: Final = Option("number", Kind.NUMBER, "")
_AIO: Final = ("threads", "native", "io_uring")


def _number(what: str, text: str, *, minimum: int = 0, maximum: int = _INT_MAX) -> int:
    try:
        found = int(_NUMBER.convert(text))
    except OptionError:
        found = -1
    if not minimum <= found <= maximum:
        raise Failure(f"Invalid {what} specified")
    return found


def _count(text: str) -> int:
    return _number("request count", text)


def _depth(text: str) -> int:
    return _number("queue depth", text, minimum=1)


def _fill(text: str) -> int:
    return _number("pattern byte", text, maximum=0xFF)


def _flush_interval(text: str) -> int:
    return _number("flush interval", text)


def _offset(text: str) -> int:
    return size("offset", text)


def _length(text: str) -> int:
    return size("buffer size", text, maximum=_INT_MAX)


def _step(text: str) -> int:
    return size("step_size", text, maximum=_INT_MAX)


def _check_aio(text: str) -> None:
    if text not in _AIO:
        raise Failure(f"Invalid aio option: {text}")


def _check_cache(text: str) -> None:
    if text not in CACHE_MODES:
        raise Failure("Invalid cache mode")


COMMAND: Final = Command(
    "bench",
    (
        Flag("count", "c", value="count", check=_count, newer=("count",)),
        Flag("depth", "d", value="depth", check=_depth, newer=("depth",)),
        FORMAT,
        Flag("flush-interval", long="flush-interval", value="flush_interval", check=_flush_interval),
        Flag("aio", "i", value="aio", check=_check_aio, newer=("aio",)),
        Flag("native", "n", newer=("native",)),
        Flag("no-drain", long="no-drain"),
        Flag("offset", "o", value="offset", check=_offset, newer=("offset",)),
        Flag("pattern", long="pattern", value="pattern", check=_fill),
        QUIET,
        Flag("length", "s", value="buffer_size", check=_length, newer=("buffer-size",)),
        Flag("step", "S", value="step_size", check=_step, newer=("step-size",)),
        Flag("cache", "t", value="cache", check=_check_cache, newer=("cache",)),
        Flag("write", "w", newer=("write",)),
        FORCE_SHARE,
        IMAGE_OPTS,
    ),
    "filename",
)


def run(arguments: Arguments, output: Output) -> int:
    """Read or write an image with many requests, and say how long that takes."""
    if len(arguments.operands) != 1:
        raise UsageError("Expecting one image file name")
    name = arguments.operands[0]
    pattern = _pattern(arguments)
    cache = CACHE_MODES[arguments.get("cache") or "writeback"]
    write = pattern.fill is not None
    if write and arguments.has("force-share"):
        raise Failure(f"Could not open '{name}': force-share=on can only be used with read-only images")
    with open_image(
        output,
        name,
        arguments.get("format"),
        image_opts=arguments.has("image-opts"),
        read_only=not write,
        force_share=arguments.has("force-share"),
        cache=cache,
    ) as node:
        if (arguments.has("native") or arguments.get("aio") == "native") and not cache.direct:
            raise Failure(
                f"Could not open '{name}': aio=native was specified, but it requires cache.direct=on, "
                "which was not specified."
            )
        output.line(
            f"Sending {pattern.requests} {'write' if write else 'read'} requests, {pattern.length} bytes each, "
            f"{pattern.depth} in parallel (starting at offset {pattern.offset}, step size {pattern.step})"
        )
        if pattern.flush_interval:
            output.line(f"Sending flush every {pattern.flush_interval} requests")
        output.line(f"Run completed in {bench(node, pattern):3.3f} seconds.")
    return 0


def _pattern(arguments: Arguments) -> Pattern:
    given = arguments.get
    length = _length(given("length") or "4096")
    pattern = Pattern(
        requests=_count(given("count") or "75000"),
        depth=_depth(given("depth") or "64"),
        length=length,
        offset=_offset(given("offset") or "0"),
        step=_step(given("step") or "0") or length,
        fill=_fill(given("pattern") or "0") if arguments.has("write") else None,
        flush_interval=_flush_interval(given("flush-interval") or "0"),
        drain=not arguments.has("no-drain"),
    )
    if pattern.flush_interval and pattern.fill is None:
        raise Failure("--flush-interval is only available in write tests")
    if pattern.flush_interval and pattern.flush_interval < pattern.depth:
        raise Failure("Flush interval can't be smaller than depth")
    return pattern
