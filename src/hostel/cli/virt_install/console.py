"""The console of a new machine: which one to connect to, and how."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Final, NamedTuple
from xml.etree import ElementTree

from hostel.cli.output import Output
from hostel.cli.virt_install.guest import Guest
from hostel.errors import UsageError
from hostel.objects import Domain

KINDS: Final = ("none", "default", "text", "graphical")
_VIEWER: Final = "remote-viewer"
_SHOWN: Final = ("vnc", "spice")


class Console(NamedTuple):
    """The console to connect to: ``text``, ``graphical`` or ``none``; and whether that was left to us."""

    kind: str
    is_default: bool

    @property
    def connects(self) -> bool:
        """Whether there is one."""
        return self.kind != "none"


def choose(wanted: str, guest: Guest, output: Output) -> Console:
    """Choose the console.

    Raises:
        UsageError: there is no such kind.
    """
    if wanted not in KINDS:
        raise UsageError(f"Unknown autoconsole type '{wanted}'")
    if wanted != "default":
        return Console(wanted, is_default=False)
    displays = guest.devices["graphics"]
    if not displays:
        return Console("text", is_default=True)
    if displays[0].get("@type") not in _SHOWN:
        return Console("none", is_default=True)
    if shutil.which(_VIEWER) is None:
        warn(
            output,
            "Unable to connect to graphical console: virt-viewer not installed. "
            "Please install the 'virt-viewer' package.",
        )
        return Console("none", is_default=True)
    if not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY"):
        warn(output, "Graphics requested but DISPLAY is not set. Not running virt-viewer.")
        return Console("none", is_default=True)
    return Console("graphical", is_default=True)


def connect(console: Console, domain: Domain, output: Output, *, wait: bool) -> None:
    """Connect to the console, and come back when it is closed; a viewer is left alone with ``wait`` off."""
    if console.kind == "text":
        _text(domain, output)
    elif console.kind == "graphical":
        _graphical(domain, output, wait=wait)


def _text(domain: Domain, output: Output) -> None:
    from hostel.cli.virsh.main import main as virsh

    words = ["--connect", domain.connection.uri, "console", domain.name]
    output.note(f"Running text console command: virsh {' '.join(words)}")
    output.out.flush()
    if virsh(words) != 0:
        warn(output, "Console command returned failure.")


def _graphical(domain: Domain, output: Output, *, wait: bool) -> None:
    address = _address(domain)
    if address is None:
        warn(output, f"Domain '{domain.name}' has no display to connect to.")
        return
    output.note(f"Running graphical console command: {_VIEWER} {address}")
    output.out.flush()
    try:
        viewer = subprocess.Popen([_VIEWER, address], start_new_session=not wait)
    except OSError as error:
        warn(output, f"Error launching {_VIEWER}: {error.strerror}")
        return
    if wait and viewer.wait() != 0:
        warn(output, "Console command returned failure.")


def _address(domain: Domain) -> str | None:
    """Where the display of a running machine is, such as ``vnc://127.0.0.1:5900``."""
    for element in ElementTree.fromstring(domain.xml()).iterfind("devices/graphics"):
        port = element.get("port", "-1")
        if port == "-1":
            continue
        listen = element.get("listen") or "127.0.0.1"
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen, listen)
        return f"{element.get('type')}://{f'[{host}]' if ':' in host else host}:{port}"
    return None


def warn(output: Output, message: str) -> None:
    """Print a warning; dropped when quiet."""
    if not output.quiet:
        output.out.flush()
        output.err.write(f"WARNING  {message}\n")
        output.err.flush()
