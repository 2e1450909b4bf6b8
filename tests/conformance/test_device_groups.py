"""Which devices of the host those in a control group may open, by this kernel, of both versions."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel import guest
from hostel.drivers.cgroup.devices import Rule, restrict, rules
from hostel.drivers.cgroup.group import Group, Place, mounted
from support.session import disk, domain_xml

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the host's control groups are root's")
# Where one opens what follows; says of each file whether it may be read, and whether it may be written too.
OPENING = """
group=$1; shift
exec 2> /dev/null
echo 0 > "$group/cgroup.procs"
for path; do
    reads=no; writes=no
    true < "$path" && reads=yes
    true <> "$path" && writes=yes
    echo "$path $reads $writes"
done
"""
MACHINE = """
set -e
mount --make-rprivate /
for place in /var/lib /var/cache /run; do mount -t tmpfs none $place; done
ours() { "$PYTHON" -m hostel virsh -q -c qemu:///system "$@"; }
trap 'ours destroy guest >/dev/null 2>&1 || :' EXIT
mkdir -p /var/lib/hostel/config
echo "cgroup_device_acl = [ \\"/dev/null\\", \\"/dev/ptmx\\", \\"/dev/urandom\\" ]" > /var/lib/hostel/config/qemu.conf
[ "$PLACE" = "" ] || echo "max_threads_per_process = 77" >> /var/lib/hostel/config/qemu.conf
ours create "$1/guest.xml" >/dev/null
opened() { sh -c "$OPENING" sh "$(echo /sys/fs/cgroup/devices/machine/qemu-*-guest.libvirt-qemu)" "$@"; }
opened /dev/null /dev/full /dev/kmsg "$2"
cat /sys/fs/cgroup/pids/machine/qemu-*-guest.libvirt-qemu/pids.max
ours attach-device guest "$1/rng.xml" >/dev/null
opened /dev/full /dev/kmsg "$2"
ours change-media guest hdc --eject >/dev/null
opened /dev/full /dev/kmsg "$2"
ours destroy guest >/dev/null
for folder in /sys/fs/cgroup/*/machine/qemu-*-guest.libvirt-qemu; do [ ! -e "$folder" ]; done
"""


def kernels() -> dict[str, Place]:
    """Where this kernel decides about devices, by the version."""
    found = {}
    if (place := mounted(["devices"]).get("devices")) is not None:
        found["unified" if place.is_unified else "legacy"] = place
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    unified = next((line.split()[1] for line in mounts if " cgroup2 " in line), None)
    return found if unified is None else {**found, "unified": Place(Path(unified), True)}


@pytest.fixture(params=["legacy", "unified"])
def group(request: pytest.FixtureRequest) -> Iterator[Group]:
    place = kernels().get(request.param)
    if place is None:
        pytest.skip("this kernel has no such groups")
    found = Group(f"/hostel-test-{os.getpid()}", {"devices": place})
    found.make()
    try:
        yield found
    finally:
        found.remove()


def opened(group: Group, *paths: str) -> list[str]:
    """Whether somebody in the group reads files, and writes them too."""
    done = subprocess.run(
        ["sh", "-c", OPENING, "sh", group.folder("devices"), *paths],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return [line.partition(" ")[2] for line in done.stdout.splitlines()]


def test_only_what_is_named_is_opened(group: Group) -> None:
    paths = ("/dev/null", "/dev/zero", "/dev/full", "/dev/urandom")
    assert opened(group, *paths) == ["yes yes"] * 4
    try:
        restrict(group, rules(["/dev/null", "/dev/zero", "/dev/gone", "/etc/passwd"]))
    except PermissionError:
        pytest.skip("this host lets nobody deny devices")
    assert opened(group, *paths) == ["yes yes", "yes yes", "no no", "no no"]
    restrict(group, {Rule("c", 1, 7), Rule("c", 1, 9)})
    assert opened(group, *paths) == ["no no", "no no", "yes yes", "yes yes"]
    restrict(group, {Rule("c", 1)})
    assert opened(group, *paths) == ["yes yes"] * 4
    restrict(group, {Rule("b", 1)})
    assert opened(group, *paths) == ["no no"] * 4
    restrict(group, ())
    assert opened(group, *paths) == ["no no"] * 4


@contextlib.contextmanager
def block_device(path: Path) -> Iterator[str]:
    done = subprocess.run(
        ["losetup", "--find", "--show", path], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        pytest.skip(f"no loop device: {done.stderr}")
    try:
        yield done.stdout.strip()
    finally:
        subprocess.run(["losetup", "--detach", done.stdout.strip()], timeout=60, check=False)


@pytest.mark.qemu
@pytest.mark.requires_tool("unshare")
def test_machine_opens_what_its_document_names(tmp_path: Path) -> None:
    if not kernels().get("legacy") or "pids" not in mounted(["pids"]):
        pytest.skip("this kernel has no such groups")
    (tmp_path / "disk.img").write_bytes(guest.image(label="system", mode=guest.Mode.WAIT).ljust(1 << 20, b"\0"))
    (tmp_path / "rng.xml").write_text("<rng model='virtio'><backend model='random'>/dev/kmsg</backend></rng>")
    (tmp_path / "medium").write_bytes(bytes(1 << 20))
    with block_device(tmp_path / "medium") as device:
        drive = f"<disk type='block' device='cdrom'><source dev='{device}'/><target dev='hdc' bus='ide'/></disk>"
        (tmp_path / "guest.xml").write_text(domain_xml(tmp_path, disk(tmp_path / "disk.img"), drive))
        usual = {name: value for name, value in os.environ.items() if not name.startswith(("HOSTEL_", "XDG_"))}
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", MACHINE, "sh", str(tmp_path), device],
            capture_output=True, text=True, timeout=120, check=False,
            env={**usual, "PYTHON": sys.executable, "OPENING": OPENING, "PLACE": "pids"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        kmsg, no = "/dev/kmsg yes yes", "no no"
        assert done.stdout.splitlines() == [
            "/dev/null yes yes", f"/dev/full {no}", f"/dev/kmsg {no}", f"{device} yes yes", "77",
            f"/dev/full {no}", kmsg, f"{device} yes yes",
            f"/dev/full {no}", kmsg, f"{device} {no}",
        ]  # fmt: skip
