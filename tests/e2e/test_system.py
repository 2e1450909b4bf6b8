"""``qemu:///system``: the host's machines, of root in process, of our daemon where one runs, of real virsh on it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hostel import guest
from support.session import disk, domain_xml

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.requires_tool("virsh"),
    pytest.mark.requires_tool("unshare"),
    pytest.mark.skipif(os.geteuid() != 0, reason="the host's machines are root's"),
]
# The usual places, empty and for these commands alone.
SCRIPT = """
set -e
mount --make-rprivate /
for place in /var/lib /var/cache /run; do mount -t tmpfs none $place; done
ours() { "$PYTHON" -m hostel virsh -q -c qemu:///system "$@"; }
state() { echo "$1: $(ours domstate guest)"; }
end() { ours destroy guest >/dev/null 2>&1 || :; [ -z "$daemon" ] || kill $daemon; }
daemon=
trap end EXIT
ours define "$1/guest.xml" >/dev/null
ours start guest >/dev/null
state "in process"
ls /var/lib/hostel/config/qemu/guest.xml
"$PYTHON" -m hostel daemon -q & daemon=$!
for turn in $(seq 200); do [ -S /run/libvirt/libvirt-sock ] && break; sleep 0.1; done
echo "real virsh: $(virsh -q -c qemu:///system domstate guest)"
state "by the daemon"
virsh -q -c qemu:///system destroy guest >/dev/null
kill $daemon; wait $daemon
daemon=
state "in process"
echo "of the session: $(HOME=$1 "$PYTHON" -m hostel virsh -q list --all)"
"""


def lines_of(script: str, folder: Path, xml: str) -> list[str]:
    """What a script prints that has the host's places for itself, and an image and a document in a folder."""
    (folder / "disk.img").write_bytes(guest.image(label="system", mode=guest.Mode.WAIT).ljust(1 << 20, b"\0"))
    (folder / "guest.xml").write_text(xml)
    usual = {name: value for name, value in os.environ.items() if not name.startswith(("HOSTEL_", "XDG_"))}
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", str(folder)],
        capture_output=True, text=True, timeout=120, check=False, env={**usual, "PYTHON": sys.executable},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_root_the_daemon_and_real_virsh_have_the_same_machines(tmp_path: Path) -> None:
    assert lines_of(SCRIPT, tmp_path, domain_xml(tmp_path, disk(tmp_path / "disk.img"))) == [
        "in process: running",
        "/var/lib/hostel/config/qemu/guest.xml",
        "real virsh: running",
        "by the daemon: running",
        "in process: shut off",
        "of the session: ",
    ]


# A host with the user that Debian's package of libvirt makes, and an image where images are.
OWNED = """
set -e
mount --make-rprivate /
for place in /var/lib /var/cache /run; do mount -t tmpfs none $place; done
{ cat /etc/passwd; echo libvirt-qemu:x:64055:64055::/:/bin/false; } >/run/passwd
{ cat /etc/group; echo libvirt-qemu:x:64055:; } >/run/group
mount --bind /run/passwd /etc/passwd
mount --bind /run/group /etc/group
ours() { "$PYTHON" -m hostel virsh -q -c qemu:///system "$@"; }
end() { ours destroy guest >/dev/null 2>&1 || :; }
trap end EXIT
mkdir -p /var/lib/hostel/images
install -o 1000 -g 1000 "$1/disk.img" /var/lib/hostel/images/disk.img
ours define "$1/guest.xml" >/dev/null
ours start guest >/dev/null
echo "$(ours domstate guest): $(stat -c %u:%g /proc/$(cat /run/hostel/qemu/run/*/pid))"
stat -c "%n %u:%g" /var/lib/hostel/images/disk.img
stat -c "%n %a" /run/hostel /run/hostel/qemu /run/hostel/qemu/run /run/hostel/qemu/*.xml
ours destroy guest
stat -c "%n %u:%g" /var/lib/hostel/images/disk.img
ls /run/hostel/qemu/given
"""


def test_machines_of_the_host_are_a_user_of_their_own(tmp_path: Path) -> None:
    image = Path("/var/lib/hostel/images/disk.img")
    assert lines_of(OWNED, tmp_path, domain_xml(Path("/run"), disk(image))) == [
        "running: 64055:64055",
        f"{image} 64055:64055",
        "/run/hostel 711",
        "/run/hostel/qemu 711",
        "/run/hostel/qemu/run 711",
        "/run/hostel/qemu/guest.xml 600",
        f"{image} 1000:1000",
    ]
