"""``-l`` of the commands that read an image: which of its snapshots they read."""

from __future__ import annotations

from typing import Final

from hostel.block.node import BlockNode
from hostel.block.options import split_options
from hostel.cli.img.arguments import Arguments
from hostel.cli.qemu.failure import Failure
from hostel.cli.qemu.flag import Flag
from hostel.cli.qemu.output import reason

_NAMES: Final = ("snapshot.id", "snapshot.name")


def _check(text: str) -> None:
    _options(text)


LOAD: Final = Flag("snapshot", "l", value="snapshot_param", check=_check, newer=("snapshot",))


def load(arguments: Arguments, node: BlockNode) -> None:
    """Show the content of the snapshot that ``-l`` names, where it was given.

    Raises:
        Failure: there is no such snapshot, or the format has none.
    """
    text = arguments.get("snapshot")
    if text is None:
        return
    from hostel.img import snapshot

    options = _options(text)
    try:
        if options is None:
            snapshot.load_by_id_or_name(node, text)
        else:
            snapshot.load(node, options.get("snapshot.id"), options.get("snapshot.name"))
    except OSError as error:
        raise Failure(f"Failed to load snapshot: {reason(error)}") from None


def _options(text: str) -> dict[str, str] | None:
    if not text.startswith("snapshot."):
        return None
    options = split_options(text)
    for name in options:
        if name not in _NAMES:
            raise Failure(f"Invalid parameter '{name}'\nFailed in parsing snapshot param '{text}'")
    return options
