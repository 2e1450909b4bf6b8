"""``qemu-img check``: exit code 0 clean or repaired, 1 not checked, 2 corrupt, 3 only leaks, 63 the format has none."""

from __future__ import annotations

import errno
import os
from typing import Final

from hostel.block.powers import CheckResult, Repair
from hostel.cli.img.arguments import FORCE_SHARE, IMAGE_OPTS, OBJECT, OUTPUT, QUIET, Arguments, Command
from hostel.cli.qemu.flag import Flag
from hostel.cli.qemu.opening import cache_mode, open_image
from hostel.cli.qemu.output import Output, reason
from hostel.codec.qobject import pretty_json
from hostel.errors import InvalidImage, UnsupportedFeature, UsageError
from hostel.img.check import check, to_json

_CORRUPT: Final = 2
_LEAKS: Final = 3
_UNSUPPORTED: Final = 63

_REPAIRS: Final = {"leaks": Repair.LEAKS, "all": Repair.ALL}


def _check_repair(text: str) -> None:
    if text not in _REPAIRS:
        raise UsageError(f"Unknown option value for -r (expecting 'leaks' or 'all'): {text}")


COMMAND: Final = Command(
    "check",
    (
        OBJECT,
        IMAGE_OPTS,
        QUIET,
        Flag("format", "f", "format", "fmt"),
        OUTPUT,
        Flag("repair", "r", "repair", "leaks|all", check=_check_repair),
        Flag("cache", "T", value="src_cache", newer=("cache",)),
        FORCE_SHARE,
    ),
    "filename",
)


def run(arguments: Arguments, output: Output) -> int:
    """Check an image and say what is wrong with it."""
    name = arguments.one_image()
    json = arguments.wants_json()
    cache = cache_mode(arguments.text("cache", "writeback"), "source cache option")
    repair = _REPAIRS[arguments.get("repair") or ""] if arguments.has("repair") else Repair.NOTHING
    node = open_image(
        output,
        name,
        arguments.get("format"),
        image_opts=arguments.has("image-opts"),
        read_only=repair is Repair.NOTHING,
        check=True,
        force_share=arguments.has("force-share"),
        cache=cache,
    )
    with node:
        try:
            checked = check(node, repair, output.diagnostic, None if json else output.note)
        except UnsupportedFeature as error:
            output.error(error.message)
            return _UNSUPPORTED
        except InvalidImage as error:
            output.failed(error)
            output.error(f"Check failed: {os.strerror(error.errno or errno.EINVAL)}")
            return 1
        except OSError as error:
            # What is wrong was reported as it was found.
            known = error.errno == errno.EIO
            output.error(f"Check failed: {os.strerror(errno.EIO) if known else reason(error)}")
            return 1
        result = checked.result
        output.note(pretty_json(to_json(checked, name, node.format)) if json else describe(result))
    if result.check_errors:
        output.error("Check failed")
        return 1
    if result.corruptions:
        return _CORRUPT
    return _LEAKS if result.leaks else 0


def describe(result: CheckResult) -> str:
    """What was found, as people read it."""
    lines = []
    if result.corruptions:
        lines.append(
            f"\n{result.corruptions} errors were found on the image.\n"
            "Data may be corrupted, or further writes to the image may corrupt it."
        )
    if result.leaks:
        lines.append(
            f"\n{result.leaks} leaked clusters were found on the image.\n"
            "This means waste of disk space, but no harm to data."
        )
    if result.check_errors:
        lines.append(f"\n{result.check_errors} internal errors have occurred during the check.")
    if not lines:
        lines.append("No errors were found on the image.")
    if result.total_clusters and result.allocated_clusters:
        allocated = result.allocated_clusters
        lines.append(
            f"{allocated}/{result.total_clusters} = {allocated * 100 / result.total_clusters:.2f}% allocated, "
            f"{result.fragmented_clusters * 100 / allocated:.2f}% fragmented, "
            f"{result.compressed_clusters * 100 / allocated:.2f}% compressed clusters"
        )
    if result.image_end_offset:
        lines.append(f"Image end offset: {result.image_end_offset}")
    return "\n".join(lines)
