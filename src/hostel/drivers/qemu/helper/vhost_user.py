"""Programs that serve a guest's devices over vhost-user, as this host describes them (docs/interop/vhost-user.json)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hostel.drivers.qemu.document import unsupported

# The later override the former, file by file.
DIRECTORIES: Final = (Path("/usr/share/qemu/vhost-user"), Path("/etc/qemu/vhost-user"))


def find(kind: str, directories: Sequence[Path] = DIRECTORIES) -> str | None:
    """The program for a kind of device, ``fs`` or ``gpu``; None where none is described.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: a description is broken.
    """
    found: dict[str, Path] = {}
    for directory in directories:
        if directory.is_dir():
            found |= {path.name: path for path in directory.iterdir() if path.suffix == ".json"}
    for _, path in sorted(found.items()):
        try:
            text = path.read_text(encoding="utf-8")
            descriptor = json.loads(text) if text else {}
            if descriptor.get("type") == kind:
                return str(descriptor["binary"])
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise unsupported(f"descriptor '{path}' is broken: {error}; mend it, or make it empty") from error
    return None
