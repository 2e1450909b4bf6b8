"""``qemu-img snapshot``."""

from __future__ import annotations

import errno
import os
from typing import Final

from hostel.block.node import BlockNode
from hostel.cli.img.arguments import FORCE_SHARE, FORMAT, IMAGE_OPTS, OBJECT, QUIET, Arguments, Command
from hostel.cli.img.info import snapshot_table
from hostel.cli.qemu.flag import Flag
from hostel.cli.qemu.opening import open_image
from hostel.cli.qemu.output import Output, reason
from hostel.errors import CorruptImage, InvalidImage, UnsupportedFeature, UsageError
from hostel.img import snapshot

_ACTIONS: Final = ("list", "apply", "create", "delete")

COMMAND: Final = Command(
    "snapshot",
    (
        OBJECT,
        IMAGE_OPTS,
        FORMAT,
        FORCE_SHARE,
        QUIET,
        Flag("list", "l", newer=("list",)),
        Flag("apply", "a", value="snapshot", newer=("apply",)),
        Flag("create", "c", value="snapshot", newer=("create",)),
        Flag("delete", "d", value="snapshot", newer=("delete",)),
    ),
    "filename",
)


def run(arguments: Arguments, output: Output) -> int:
    """List, create, apply or delete an internal snapshot."""
    actions = list(arguments.in_order(*_ACTIONS))
    if len(actions) > 1:
        raise UsageError("Cannot mix '-l', '-a', '-c', '-d'")
    name = arguments.one_image()
    # Without an action 7.2 does nothing; as of 10.1 to list is what is meant.
    action, wanted = actions[0] if actions else ("list", "")
    with open_image(
        output,
        name,
        arguments.get("format"),
        image_opts=arguments.has("image-opts"),
        read_only=action == "list",
        force_share=arguments.has("force-share"),
    ) as node:
        if action == "list":
            _list(node, output)
            return 0
        try:
            snapshot.ACTIONS[action](node, wanted)
        except OSError as error:
            if action == "apply" and isinstance(error, InvalidImage):
                output.failed(error)
            output.error(
                f"Could not {action} snapshot '{wanted}': {_reason(action, error)}", _told_nowhere(action, error)
            )
            return 1
    return 0


def _list(node: BlockNode, output: Output) -> None:
    found = snapshot.snapshots(node)
    if found:
        output.text("\n".join(["Snapshot list:", *snapshot_table(found), ""]))


def _told_nowhere(action: str, error: OSError) -> str | None:
    """What is broken, where that is neither in the message nor has been told when it was found."""
    if action != "create" or not isinstance(error, CorruptImage) or error.hint is not None:
        return None
    return f"{error.message}; qemu-img check tells what else is broken."


def _reason(action: str, error: OSError) -> str:
    code = error.errno or 0
    if action == "create":
        return f"{-code} ({os.strerror(code)})"
    is_loading = not isinstance(error, UnsupportedFeature) or reason(error) == os.strerror(errno.ENOTSUP)
    if action == "apply" and code != errno.EBUSY and is_loading:
        told = code == errno.ENOENT or isinstance(error, InvalidImage)
        return f"Failed to load snapshot: {os.strerror(code) if told else reason(error)}"
    return reason(error)
