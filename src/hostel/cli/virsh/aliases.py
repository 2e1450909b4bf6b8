"""Names of options that virsh knows besides, and tells nobody of: older ones, and one for an option with a value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_LIMITS: Final = (
    *(f"{what}_{kind}_sec{end}" for kind in ("bytes", "iops") for end in ("", "_max", "_max_length")
      for what in ("total", "read", "write")),
    "size_iops_sec", "group_name",
)  # fmt: skip
# By the command: the option, or the option and its value, that is meant.
ALIASES: Final[Mapping[str, Mapping[str, str]]] = {
    "attach-disk": {"shareable": "mode=shareable"},
    "blkdeviotune": {name: name.replace("_", "-") for name in _LIMITS},
    "blockcopy": {"raw": "format=raw"},
    "domif-getlink": {"persistent": "config"},
    "domif-setlink": {"persistent": "config"},
    "echo": {"hi": "string=hello", "str": "string"},
    "migrate": {"tunneled": "tunnelled"},
    "nodedev-destroy": {"name": "device"},
    "setmaxmem": {"kilobytes": "size"},
    "setmem": {"kilobytes": "size"},
    "undefine": {"delete-snapshots": "delete-storage-volume-snapshots"},
}
