"""``hostel inspect``: say whether an image is safe to accept, without following anything that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

from hostel.cause import sentence
from hostel.codec.qobject import pretty_json
from hostel.drivers.fault import printable
from hostel.errors import BlockError, HostelError, UsageError
from hostel.img.inspect import EXPECTED, inspect
from hostel.img.inspection import Inside, Inspection, Level
from hostel.units import format_size, parse_size

if TYPE_CHECKING:
    import argparse

EXIT: Final = {Level.NOTE: 0, Level.UNSAFE: 2, Level.WARNING: 3}
_EPILOG: Final = """\
exit status:
  0  safe
  1  the image could not be looked at
  2  unsafe
  3  safe, with warnings

Only IMAGE is opened, for reading: what it names is reported and never followed."""
_CONTENTS: Final = {"mbr": "MBR", "gpt": "GPT", "lvm2": "LVM2", "luks": "LUKS"}


def main(words: list[str]) -> int:
    """Run a command line; returns the exit code."""
    arguments = _parser().parse_args(words)
    limit = _size(arguments.max_virtual_size)
    try:
        found = inspect(
            arguments.image, expected=arguments.format, max_virtual_size=limit, check_digests=arguments.check_digests
        )
    except OSError as error:
        named = "" if isinstance(error, BlockError) else f"{arguments.image}: "
        raise HostelError(printable(named + sentence(error))) from None
    print(pretty_json(found.to_json()) if arguments.output == "json" else describe(found))
    return EXIT[found.verdict]


def _parser() -> argparse.ArgumentParser:
    import argparse

    class Parser(argparse.ArgumentParser):
        """Raises what it finds wrong, for the entry point to print."""

        def error(self, message: str) -> NoReturn:
            raise UsageError(f"{printable(message)} (try 'hostel inspect --help')")

    parser = Parser(
        prog="hostel inspect",
        description="Say whether a disk image is safe to accept, without following anything that it names.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "-f", "--format", metavar="EXPECTED", choices=EXPECTED, help=f"the format it must be of: {', '.join(EXPECTED)}"
    )
    parser.add_argument("--max-virtual-size", metavar="SIZE", help="refuse a larger disk, such as 100G")
    parser.add_argument("--check-digests", action="store_true", help="of an OVA, hold its files against its manifest")
    parser.add_argument("--output", choices=("human", "json"), default="human", help="default: human")
    parser.add_argument("image", metavar="IMAGE", help="a file or a block device; always a path")
    return parser


def _size(given: str | None) -> int | None:
    try:
        return None if given is None else parse_size(given)
    except (ValueError, OverflowError) as error:
        raise UsageError(printable(f"--max-virtual-size: {error}")) from None


def describe(found: Inspection) -> str:
    """What was found, for people: the verdict, the facts, the findings."""
    lines = [_verdict(found), f"image: {found.filename}"]
    expected = f" (expected {found.expected})" if found.expected else ""
    lines.append(f"format: {found.format}{expected}")
    lines.append(f"file size: {format_size(found.file_size)} ({found.file_size} bytes)")
    if found.virtual_size is not None:
        size = found.virtual_size
        lines.append(f"virtual size: {format_size(size)} ({size} bytes), {found.ratio} times the file")
    if content := _content(found):
        lines.append(f"content: {content}")
    if found.inside is not None:
        lines.append(f"packed: {found.inside.wrapper}, {_inside(found.inside)}")
    for each in found.disks or ():
        much = "of unknown size" if each.virtual_size is None else f"of {format_size(each.virtual_size)}"
        lines.append(f"disk: {each.disk.name} ({each.format}), {much}: --image-opts {each.options(found.filename)}")
    lines += [f"{each.level.value}: {each.code}: {each.message}" for each in found.findings]
    return "\n".join(map(printable, lines))


def _inside(inside: Inside) -> str:
    what = "no known format inside" if inside.format == "raw" else f"{inside.format} inside"
    if inside.size is not None:
        return f"{what}, {format_size(inside.size)} ({inside.size} bytes)"
    return what if inside.largest is None else f"{what}, {format_size(inside.largest)} at most"


def _verdict(found: Inspection) -> str:
    if found.verdict is Level.NOTE:
        return "safe"
    worst = [each for each in found.findings if each.level is found.verdict]
    more = f" (and {len(worst) - 1} more)" if len(worst) > 1 else ""
    verdict = "unsafe" if found.verdict is Level.UNSAFE else "safe, with warnings"
    return f"{verdict}: {worst[0].message}{more}"


def _content(found: Inspection) -> str:
    content = found.content
    if content is None:
        return ""
    parts = []
    if content.table is not None:
        parts.append(f"{_CONTENTS[content.table]} with {content.partitions} partitions")
    if content.filesystem is not None:
        parts.append(_CONTENTS.get(content.filesystem, content.filesystem))
    if content.first_filesystem is not None:
        first = _CONTENTS.get(content.first_filesystem, content.first_filesystem)
        parts.append(f"{first} in the first partition")
    if content.packed is not None:
        parts.append(content.packed)
    return ", ".join(parts)
