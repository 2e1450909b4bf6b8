"""What a character device has at the host's end, for a machine that runs: ``chardev-add`` in place of ``-chardev``."""

from __future__ import annotations

import re
from typing import Any, Final

_WORD: Final = re.compile(r"(?:[^,]|,,)+")
_SOCKET: Final = {"server": "server", "wait": "wait", "telnet": "telnet"}
_PATHS: Final = {"file": "out", "serial": "device", "parallel": "device", "pipe": "device"}


def backend(text: str) -> dict[str, Any]:
    """The arguments of ``chardev-add`` for an option of the command line.

    Args:
        text: the option's value, as :func:`hostel.drivers.qemu.command.character.chardev` writes it.
    """
    kind, *words = (word.replace(",,", ",") for word in _WORD.findall(text))
    given = dict(word.split("=", 1) for word in words)
    data: dict[str, Any] = {}
    if "logfile" in given:
        data = {"logfile": given["logfile"], "logappend": given["logappend"] == "on"}
    if kind in _PATHS:
        data[_PATHS[kind]] = given["path"]
    match kind:
        case "file":
            data["append"] = given["append"] == "on"
        case "spicevmc":
            data["type"] = given["name"]
        case "spiceport":
            data["fqdn"] = given["name"]
        case "udp":
            data["remote"] = _inet(given["host"], given["port"])
            data["local"] = _inet(given["localaddr"], given["localport"])
        case "socket":
            unix = {"type": "unix", "data": {"path": given.get("path")}}
            data["addr"] = unix if "path" in given else _inet(given["host"], given["port"])
            data["server"] = False
            data |= {name: given[word] == "on" for word, name in _SOCKET.items() if word in given}
            if "reconnect" in given:
                data["reconnect"] = int(given["reconnect"])
            if "tls-creds" in given:
                data["tls-creds"] = given["tls-creds"]
    return {"id": given["id"], "backend": {"type": kind, "data": data}}


def _inet(host: str, port: str) -> dict[str, Any]:
    return {"type": "inet", "data": {"host": host, "port": port}}
