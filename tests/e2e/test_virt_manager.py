"""virt-manager on our daemon, under a screen that nobody sees: the list, the console, and a button."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostel import guest
from support import hosteld
from support.desktop import WIDTH, Desktop, desktop
from support.hosteld import Hosteld

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.requires_tool("virt-manager"),
    pytest.mark.requires_tool("Xvfb"),
    pytest.mark.requires_tool("dbus-daemon"),
    pytest.mark.requires_tool("import"),
    pytest.mark.requires_tool("virsh"),
]
CURSOR = 2  # rows of pixels, which blink
SESSION = "qemu:///session"
ARTEFACT = Path(__file__).parents[2] / "build" / "virt-manager.png"
MACHINE = """<domain type='qemu'><name>web1</name><memory>65536</memory><os><type arch='x86_64'>hvm</type></os><devices>
<disk type='file'><driver name='qemu' type='raw'/><source file='{disk}'/><target dev='vda' bus='virtio'/></disk>
<graphics type='vnc'/><video><model type='vga'/></video></devices></domain>"""


def virsh(daemon: Hosteld, *arguments: str) -> str:
    return daemon.virsh("-q", *arguments, uri=SESSION).stdout.strip()


def where_libvirts_socket_is(directory: Path) -> list[str]:
    """The words before a program that shall find the daemon's socket at libvirt's own place.

    With a URI that names a socket, virt-manager takes the host for another, and shows no screens that are for this one.
    """
    (directory / "libvirt").mkdir()
    (directory / "libvirt" / "libvirt-sock").symlink_to(directory / "sock")
    if os.geteuid():
        return []  # under $XDG_RUNTIME_DIR, which is the desktop's directory
    return ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /run && exec "$@"', str(directory)]


def rows(screenshot: Path) -> list[bytes]:
    """The rows of a PPM, each as its bytes of red, green and blue."""
    kind, size, depth, pixels = screenshot.read_bytes().split(b"\n", 3)
    width, height = map(int, size.split())
    assert (kind, depth, len(pixels)) == (b"P6", b"255", 3 * width * height)
    return [pixels[at : at + 3 * width] for at in range(0, len(pixels), 3 * width)]


def shows_the_guest(shown: Desktop, daemon: Hosteld, screenshot: Path) -> bool:
    """Whether the guest's screen is on the desktop, row by row."""
    virsh(daemon, "qemu-monitor-command", "web1", "--hmp", f"screendump {screenshot}")
    guests, screen = rows(screenshot), shown.pixels()
    first = next((at for at, row in enumerate(guests) if any(row)), None)
    if first is None or (found := screen.find(guests[first])) < 0:
        return False
    starts = range(found - 3 * WIDTH * first, len(screen), 3 * WIDTH)
    return sum(screen[at : at + len(row)] != row for at, row in zip(starts, guests, strict=False)) <= CURSOR


def test_virt_manager_lists_shows_and_pauses_a_guest(tmp_path: Path) -> None:
    disk, description = tmp_path / "disk.raw", tmp_path / "web1.xml"
    disk.write_bytes(guest.image(label="daemon", mode=guest.Mode.STAY, size=1 << 20))
    description.write_text(MACHINE.format(disk=disk))
    manager = [*where_libvirts_socket_is(tmp_path), "virt-manager", "--connect", SESSION]
    with hosteld.process(directory=tmp_path) as daemon, desktop(tmp_path) as shown:
        virsh(daemon, "define", str(description))
        with shown.program(*manager, "--no-fork"):
            shown.wait_for("frame", "Virtual Machine Manager")
            shown.wait_for("table cell", r"web1\nShutoff")
            virsh(daemon, "start", "web1")
            try:
                shown.wait_for("table cell", r"web1\nRunning")
                with shown.program(*manager, "--show-domain-console", "web1"):
                    shown.wait_for("frame", "web1 on QEMU/KVM.*")
                    shown.wait(lambda: shows_the_guest(shown, daemon, tmp_path / "screen.ppm"), "the guest's screen")
                shown.save(ARTEFACT)
                shown.press("toggle button", "Pause")
                shown.wait(lambda: virsh(daemon, "domstate", "web1") == "paused", "a paused guest")
                shown.wait_for("table cell", r"web1\nPaused")
            finally:
                virsh(daemon, "destroy", "web1")
            shown.wait_for("table cell", r"web1\nShutoff")
