"""Ends of character devices for machines that run: the same as on a command line."""

from __future__ import annotations

from typing import Any

import pytest

from hostel.drivers.qemu.command.character import chardev
from hostel.drivers.qemu.plug.chardev import backend
from hostel.model.domain.devices.character import Channel
from support.arguments import CONTEXT


def inet(host: str, port: str) -> dict[str, Any]:
    return {"type": "inet", "data": {"host": host, "port": port}}


@pytest.mark.parametrize(
    ("xml", "kind", "data"),
    [
        ("type='null'/", "null", {}),
        ("type='pty'><log file='/l,og' append='on'/", "pty", {"logfile": "/l,og", "logappend": True}),
        ("type='file'><source path='/a,,b,' append='on'/", "file", {"out": "/a,,b,", "append": True}),
        ("type='dev'><source path='/dev/ttyS0'/", "serial", {"device": "/dev/ttyS0"}),
        ("type='pipe'><source path='/p=q'/", "pipe", {"device": "/p=q"}),
        ("type='unix'><source mode='bind' path='/s'/", "socket",
         {"addr": {"type": "unix", "data": {"path": "/s"}}, "server": True, "wait": False}),
        ("type='unix'><source mode='connect' path='/s'><reconnect enabled='yes' timeout='3'/></source", "socket",
         {"addr": {"type": "unix", "data": {"path": "/s"}}, "server": False, "reconnect": 3}),
        ("type='tcp'><source mode='bind' host='::1' service='7'/><protocol type='telnet'/", "socket",
         {"addr": inet("::1", "7"), "server": True, "wait": False, "telnet": True}),
        ("type='udp'><source mode='connect' host='h' service='1'/><source mode='bind' service='2'/", "udp",
         {"remote": inet("h", "1"), "local": inet("", "2")}),
        ("type='spicevmc'/", "spicevmc", {"type": "vdagent"}),
        ("type='spiceport'><source channel='org.x'/", "spiceport", {"fqdn": "org.x"}),
    ],
)  # fmt: skip
def test_end_of_a_device_that_is_plugged_in(xml: str, kind: str, data: dict[str, Any]) -> None:
    closing = "" if xml.startswith(("type='null'/", "type='spicevmc'/")) else "</channel>"
    channel = Channel.parse(f"<channel {xml}>{closing}")
    channel.alias = "channel0"
    option, value = chardev(channel, CONTEXT)
    assert option == "-chardev"
    assert backend(value) == {"id": "charchannel0", "backend": {"type": kind, "data": data}}
