"""``qemu-img convert``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from hostel.block.driver import Cache
from hostel.block.node import BlockNode
from hostel.block.options import Kind, Option, OptionError, given_options
from hostel.cli.img.arguments import (
    FORCE_SHARE,
    IMAGE_OPTS,
    OBJECT,
    OPTIONS,
    PROGRESS,
    QUIET,
    Arguments,
    Command,
    asks_for_help,
    size,
)
from hostel.cli.img.create import creation_help
from hostel.cli.img.load import LOAD, load
from hostel.cli.img.progress import Progress
from hostel.cli.qemu.failure import Failure
from hostel.cli.qemu.flag import Flag
from hostel.cli.qemu.opening import cache_mode, could_not_open, open_image
from hostel.cli.qemu.output import Output
from hostel.img import convert
from hostel.img.convert import Bitmaps
from hostel.img.copy import CopySettings, Feedback
from hostel.img.target import refuse_source
from hostel.units import SECTOR

_NUMBER: Final = Option("coroutines", Kind.NUMBER, "")
_MAX_SPARSE: Final = 16 << 20
_MAX_COROUTINES: Final = 16


def _min_sparse(text: str) -> int:
    found = size("buffer size for sparse output", text)
    if found % SECTOR or found > _MAX_SPARSE:
        raise Failure(
            f"Invalid buffer size for sparse output specified. Valid sizes are multiples of {SECTOR} up to "
            f"{_MAX_SPARSE}. Select 0 to disable sparse detection (fully allocates output)."
        )
    return found


def _rate(text: str) -> int:
    return size("rate limit", text)


def _coroutines(text: str) -> int:
    try:
        found = int(_NUMBER.convert(text))
    except OptionError:
        found = 0
    if not 1 <= found <= _MAX_COROUTINES:
        raise Failure(f"Invalid number of coroutines. Allowed number of coroutines is between 1 and {_MAX_COROUTINES}")
    return found


COMMAND: Final = Command(
    "convert",
    (
        OBJECT,
        IMAGE_OPTS,
        Flag("target-image-opts", long="target-image-opts"),
        FORCE_SHARE,
        Flag("bitmaps", long="bitmaps"),
        Flag("skip-broken-bitmaps", long="skip-broken-bitmaps"),
        Flag("salvage", long="salvage"),
        Flag("target-is-zero", long="target-is-zero"),
        Flag("compress", "c", newer=("compress",)),
        PROGRESS,
        QUIET,
        Flag("no-create", "n", newer=("no-create",)),
        Flag("format", "f", value="fmt", newer=("source-format",)),
        Flag("cache", "t", value="cache", newer=("target-cache",)),
        Flag("source-cache", "T", value="src_cache", newer=("source-cache",)),
        Flag("target-format", "O", value="output_fmt", newer=("target-format",)),
        Flag("backing", "B", value="backing_file", newer=("b", "backing")),
        Flag("backing-format", "F", value="backing_fmt", newer=("backing-format",)),
        OPTIONS._replace(newer=("target-format-options",)),
        LOAD,
        Flag("sparse", "S", value="sparse_size", check=_min_sparse, newer=("sparse-size",)),
        Flag("rate", "r", value="rate_limit", check=_rate, newer=("rate-limit",)),
        Flag("coroutines", "m", value="num_coroutines", check=_coroutines, newer=("parallel",)),
        Flag("out-of-order", "W", newer=("oob-writes",)),
        Flag("offload", "C", newer=("copy-range-offloading",)),
    ),
    "filename [filename2 [...]] output_filename",
)


def run(arguments: Arguments, output: Output) -> int:
    """Copy images into a new one, or into one that is there."""
    _check(arguments)
    options = arguments.options()
    target_format = arguments.get("target-format")
    if target_format is None and not arguments.has("target-image-opts"):
        target_format = "raw"
    *source_names, target_name = arguments.operands or ("",)
    if asks_for_help(options):
        if target_format is None:
            raise Failure("Option help requires a format be specified")
        output.text(creation_help(target_format, target_name if source_names else None))
        return 0
    if not source_names:
        raise Failure("Must specify image file name")
    source_cache = cache_mode(arguments.text("source-cache", "writeback"), "source cache option")
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(output, arguments, step=1.0))
        progress.percent(0)
        # As in QEMU, salvaging tells of metadata once while the data is counted, and again while it is copied.
        count_data = progress.shown or arguments.has("salvage")
        feedback = Feedback(progress.report, count_data, None if output.quiet else output.warning)
        sources = [stack.enter_context(_source(arguments, output, name, source_cache)) for name in source_names]
        _load_snapshot(arguments, sources)
        if arguments.has("no-create"):
            _convert_into(arguments, output, sources, target_name, target_format, feedback)
        else:
            plan = convert.plan_target(
                sources,
                target_name,
                "raw" if target_format is None else target_format,
                given=given_options(options or ""),
                backing=arguments.get("backing"),
                backing_format=arguments.get("backing-format"),
                compress=arguments.has("compress"),
            )
            cache, bitmaps = _target_cache(arguments, sources), _bitmaps(arguments)
            convert.convert(sources, plan, _settings(arguments), feedback, cache=cache, bitmaps=bitmaps)
        progress.percent(100)
    return 0


def _check(arguments: Arguments) -> None:
    """Refuse options that contradict each other, in QEMU's order."""
    has = arguments.has
    for is_wrong, message in (
        (has("skip-broken-bitmaps") and not has("bitmaps"), "Use of --skip-broken-bitmaps requires --bitmaps"),
        (has("compress") and has("offload"), "Cannot enable copy offloading when -c is used"),
        (has("sparse") and has("offload"), "Cannot enable copy offloading when -S is used"),
        (has("offload") and has("salvage"), "Cannot use copy offloading in salvaging mode"),
        (has("target-image-opts") and not has("no-create"), "--target-image-opts requires use of -n flag"),
        (has("no-create") and has("options"), "-o has no effect when skipping image creation"),
        (has("target-is-zero") and not has("no-create"), "--target-is-zero requires use of -n flag"),
    ):
        if is_wrong:
            raise Failure(message)


def _target_cache(arguments: Arguments, sources: Sequence[BlockNode]) -> Cache:
    """How the target is written: looked at when all is known of what is copied, as in QEMU."""
    convert.check_sources(sources, _bitmaps(arguments))
    return cache_mode(arguments.text("cache", "unsafe"), "cache option")


def _settings(arguments: Arguments) -> CopySettings:
    return CopySettings(
        compress=arguments.has("compress"),
        min_sparse=_min_sparse(arguments.get("sparse") or "4k"),
        reads_as_zeroes=arguments.has("target-is-zero"),
        in_order=not arguments.has("out-of-order"),
        threads=_coroutines(arguments.get("coroutines") or "8"),
        rate=_rate(arguments.get("rate") or "0"),
        salvage=arguments.has("salvage"),
        offload=arguments.has("offload"),
    )


def _source(arguments: Arguments, output: Output, name: str, cache: Cache) -> BlockNode:
    return open_image(
        output,
        name,
        arguments.get("format"),
        image_opts=arguments.has("image-opts"),
        force_share=arguments.has("force-share"),
        exclusive=True,
        cache=cache,
    )


def _convert_into(
    arguments: Arguments,
    output: Output,
    sources: Sequence[BlockNode],
    name: str,
    format: str | None,
    feedback: Feedback,
) -> None:
    if arguments.has("target-is-zero") and arguments.has("backing"):
        raise Failure("Cannot use --target-is-zero when the destination image has a backing file")
    if len(sources) > 1 and arguments.has("backing"):
        raise Failure("Having a backing file for the target makes no sense when concatenating multiple input images")
    cache = _target_cache(arguments, sources)
    try:
        refuse_source(sources, name)
    except OSError as error:
        raise could_not_open(name, error) from None
    settings = _settings(arguments)
    target = open_image(
        output,
        name,
        format,
        image_opts=arguments.has("target-image-opts"),
        read_only=False,
        cache=cache,
        unmap=bool(settings.min_sparse),
    )
    if arguments.has("backing"):
        settings = settings._replace(base=sources[0].backing)
    convert.convert_into(sources, target, settings, feedback, bitmaps=_bitmaps(arguments))


def _load_snapshot(arguments: Arguments, sources: Sequence[BlockNode]) -> None:
    """Show a snapshot's content instead of the present one."""
    wanted = arguments.get("snapshot")
    if wanted is not None and not wanted.startswith("snapshot.") and len(sources) > 1:
        raise Failure("No support for concatenating multiple snapshot")
    load(arguments, sources[0])


def _bitmaps(arguments: Arguments) -> Bitmaps:
    if not arguments.has("bitmaps"):
        return Bitmaps.NONE
    return Bitmaps.CONSISTENT if arguments.has("skip-broken-bitmaps") else Bitmaps.ALL
