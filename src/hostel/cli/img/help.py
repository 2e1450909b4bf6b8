"""What ``qemu-img COMMAND --help`` prints: the command's line, then a line or two for each of its options."""

from __future__ import annotations

from typing import Final

from hostel.cli.img.arguments import Command
from hostel.cli.qemu.flag import HELP, Flag

SUMMARIES: Final = {
    "amend": "change what an image was created with",
    "bench": "measure requests to an image",
    "bitmap": "change a persistent bitmap of an image",
    "check": "find, and repair, what is wrong with an image's metadata",
    "commit": "move what an overlay holds down into its backing file",
    "compare": "find out whether two images hold the same",
    "convert": "copy images into another one, of any format",
    "create": "make a new image",
    "dd": "copy a part of an image into a new one",
    "info": "show what is known of an image",
    "map": "show which parts of an image are data, and where they lie",
    "measure": "say how large a file a new image would need",
    "rebase": "give an overlay another backing file",
    "resize": "change an image's virtual size",
    "snapshot": "list, create, apply or delete internal snapshots",
}

# By an option's name; by command and name where it means something else there.
ABOUT: Final = {
    "add": "make the bitmap; it records what is written from now on",
    "aio": "accepted; requests are always made by threads",
    "apply": "go back to the snapshot",
    "backing": "the backing file; for rebase an empty name is none",
    "backing-chain": "show the backing files as well",
    "backing-format": "the backing file's format",
    "base": "the image of the chain to commit into; implies -d",
    "bitmaps": "copy persistent bitmaps as well",
    "cache": "cache mode: none, writeback, writethrough, directsync or unsafe",
    "clear": "forget what the bitmap has recorded",
    "compress": "write compressed clusters",
    "coroutines": "how many threads may work at once",
    "count": "how many requests to make",
    "create": "create a snapshot of this name",
    "delete": "delete the snapshot",
    "depth": "how many requests are under way at once",
    "disable": "let the bitmap rest",
    "drop": "keep what the overlay holds",
    "enable": "let the bitmap record what is written",
    "flush-interval": "flush after so many writes",
    "force": "allow what may lose data",
    "force-share": "open the image even where another process writes it: what is read may be out of date",
    "format": "the image's format; guessed from its content where it is not given",
    "granularity": "bytes that one bit of a new bitmap stands for",
    "help": "show this page",
    "image-opts": "the image is given as options (driver=qcow2,file.filename=PATH), not as a file name",
    "length": "bytes of the range to show",
    "limits": "show which sizes and alignments requests may have",
    "list": "list the snapshots (which is done where nothing else is asked for)",
    "merge": "mark in the bitmap what is dirty in this one",
    "native": "accepted; requests are always made by threads",
    "no-create": "copy into an image that is there",
    "no-drain": "do not wait for other requests before a flush",
    "object": "define an object, such as secret,id=ID,file=PATH",
    "offload": "let the host copy, where it can",
    "offset": "where the first request starts, bytes",
    "options": "name=value,... of the format; 'help' lists them",
    "out-of-order": "write in whatever order reading is done",
    "output": "human (default) or json",
    "pattern": "the byte to write",
    "preallocation": "off, metadata, falloc or full, for what is new",
    "progress": "show progress; json: one object a line, plain: a line each, both on standard error",
    "quiet": "print errors only",
    "rate": "bytes a second at most",
    "remove": "drop the bitmap",
    "remove-all": "drop all bitmaps",
    "repair": "leaks: free lost clusters; all: correct wrong metadata as well",
    "salvage": "go on after what cannot be read, with zeroes in its place",
    "second-format": "the second image's format",
    "shrink": "allow a size that cuts data off",
    "size": "the virtual size to measure for, bytes",
    "skip-broken-bitmaps": "leave out bitmaps that are inconsistent, instead of failing",
    "snapshot": "a snapshot to read: its id or name, or snapshot.id=ID,snapshot.name=NAME",
    "source-cache": "cache mode of what is read",
    "source-file": "the image that the merged bitmap is in",
    "source-format": "its format",
    "sparse": "so many bytes of zeroes become a hole; 0 writes all of them",
    "start": "where the range to show starts, bytes",
    "step": "bytes from one request to the next",
    "strict": "sizes and allocation must be the same, too",
    "target-format": "the new image's format (default: raw)",
    "target-image-opts": "the target is given as options, not as a file name",
    "target-is-zero": "take it that the target reads as zeroes",
    "unsafe": "do not open the backing file: nothing checks what it is expected to hold",
    "write": "write instead of reading",
    ("bench", "length"): "bytes of a request",
    ("check", "cache"): "cache mode: none, writeback, writethrough, directsync or unsafe",
    ("compare", "format"): "the first image's format",
    ("create", "format"): "the new image's format (default: raw)",
    ("create", "unsafe"): "do not look whether the backing file is there",
}


def command_help(command: Command) -> str:
    """The page of a command."""
    lines = [f"usage: qemu-img {command.synopsis()}", SUMMARIES[command.name], ""]
    for flag in sorted((HELP, *command.flags), key=lambda flag: flag.names[-1].lower()):
        about = ABOUT.get((command.name, flag.name)) or ABOUT[flag.name]
        lines += [f"  {_names(flag)}", f"      {about}"]
    return "\n".join(lines) + "\n"


def _names(flag: Flag) -> str:
    text = ", ".join(f"-{name}" if len(name) == 1 else f"--{name}" for name in flag.names)
    separator = "" if flag.optional else " "
    return f"{text}{separator}{flag.value}" if flag.value else text
