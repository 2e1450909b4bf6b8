"""A libvirtd of root's that has the host's devices, and files of its own."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from support.answers import remembered
from support.libvirtd import first_port

# A system's daemon keeps its files where a host has them: each place is one of ours, for this daemon alone.
_PRIVATE = """
set -e
mount --make-rprivate /
for place in lib/libvirt log/libvirt cache/libvirt; do
    mkdir -p "$0/$place" "/var/$place"
    mount --bind "$0/$place" "/var/$place"
done
mkdir -p "$0/run" "$0/etc" /run/libvirt /etc/libvirt
mount --bind "$0/run" /run/libvirt
mount --bind "$0/etc" /etc/libvirt
printf 'auth_unix_rw = "none"\\nlog_outputs = "3:file:%s/messages"\\n' "$0" >/etc/libvirt/libvirtd.conf
printf '%s\\n' "$QEMU_CONF" >/etc/libvirt/qemu.conf  # the first line that names a setting is the one that counts
cat >>/etc/libvirt/qemu.conf <<END
security_driver = "none"
namespaces = []
cgroup_controllers = []  # their groups are named by a machine's number and name, which other daemons' machines have too
stdio_handler = "file"
remote_display_port_min = $1
remote_display_port_max = $(($1 + 99))
migration_port_min = $(($1 + 5000))
migration_port_max = $(($1 + 5099))
remote_websocket_port_min = $(($1 + 10000))
remote_websocket_port_max = $(($1 + 10099))
user = "$USER_OF_QEMU"
group = "$GROUP_OF_QEMU"
END
shift
# The driver of machines looks for a user and a group that only Debian's package for a whole system makes.
{ cat /etc/passwd; echo libvirt-qemu:x:64055:64055::/:/bin/false; } >"$0/passwd"
{ cat /etc/group; echo libvirt-qemu:x:64055:; } >"$0/group"
mount --bind "$0/passwd" /etc/passwd
mount --bind "$0/group" /etc/group
# What QEMU can do is looked for with KVM, and held against what the user of machines may open: where that user may not
# have KVM, libvirtd asks again, for a second or two, each time that it looks at a document.
if [ "$USER_OF_QEMU" != root ] && [ -c /dev/kvm ]; then
    mkdir "$0/dev"
    mount -t tmpfs dev "$0/dev"
    mknod -m 666 "$0/dev/kvm" c 10 232 && mount --bind "$0/dev/kvm" /dev/kvm || :  # without, it is only slower
fi
mkdir "$0/drivers"
for driver; do
    ln -s /usr/lib/*/libvirt/connection-driver/libvirt_driver_$driver.so "$0/drivers/"
done
if [ -n "$LOCK_MANAGER" ]; then
    printf 'lock_manager = "%s"\\n' "$LOCK_MANAGER" >>/etc/libvirt/qemu.conf
    cat >"/etc/libvirt/qemu-$LOCK_MANAGER.conf"
    eval "$LOCK_DAEMON" &
    until [ -S "$LOCK_SOCKET" ]; do sleep 0.05; done  # libvirtd looks for it once
fi
LIBVIRT_DRIVER_DIR="$0/drivers" libvirtd --pid-file "$0/pid" &
wait $!  # the first of these processes is the one that buries them: libvirtd waits for those of QEMU to be gone
"""


class LockManager(NamedTuple):
    """Who keeps locks of machines.

    Attributes:
        name: as libvirt has it.
        settings: its file.
        daemon: the command that runs it.
        socket: where it is asked.
        environment: what those who ask it have to know.
    """

    name: str
    settings: str
    daemon: str
    socket: str
    environment: Mapping[str, str] = {}


_NONE = LockManager("", "", "", "")


class Libvirtd(NamedTuple):
    """A daemon that runs.

    Attributes:
        uri: of it, of the first of its drivers where it has no machines.
        inside: what runs a command where it sees the same processes and files as the daemon.
        directory: where its files are.
    """

    uri: str
    inside: tuple[str, ...]
    directory: Path

    @property
    def messages(self) -> list[str]:
        """Its warnings and errors, among them those that a client was not told."""
        return (self.directory / "messages").read_text(errors="replace").splitlines()


@contextlib.contextmanager
def running(
    inside: Sequence[str] = (),
    drivers: Sequence[str] = ("storage", "secret"),
    filters: Mapping[str, str] | None = None,
    owner: str = "root:root",
    qemu_conf: str = "",
) -> Iterator[str]:
    """Run a daemon; gives a URI of it.

    Args:
        inside: what runs a command in another network.
        drivers: the drivers that it loads; "qemu" runs machines, as root.
        filters: documents of filters that are there when it starts, by name.
        owner: the user and the group that machines run as.
        qemu_conf: more lines of that file.
    """
    with apart(inside, drivers, filters, owner=owner, qemu_conf=qemu_conf) as daemon:
        yield daemon.uri


@contextlib.contextmanager
def apart(
    inside: Sequence[str] = (),
    drivers: Sequence[str] = ("storage", "secret"),
    filters: Mapping[str, str] | None = None,
    lock_manager: LockManager = _NONE,
    owner: str = "root:root",
    qemu_conf: str = "",
) -> Iterator[Libvirtd]:
    """Run a daemon beside which other programs can be run; see :func:`running`.

    Args:
        inside: likewise.
        drivers: likewise.
        filters: likewise.
        lock_manager: who keeps locks of machines.
        owner: likewise.
        qemu_conf: likewise.
    """
    directory = Path(tempfile.mkdtemp(prefix="lv-"))
    try:
        with remembered(directory / "cache/libvirt/qemu/capabilities", "system"):
            (directory / "etc/nwfilter").mkdir(parents=True)
            for name, xml in (filters or {}).items():
                (directory / f"etc/nwfilter/{name}.xml").write_text(xml)
            with _served(directory, inside, drivers, lock_manager, owner, qemu_conf) as daemon:
                yield daemon
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _served(
    directory: Path,
    inside: Sequence[str],
    drivers: Sequence[str],
    lock_manager: LockManager,
    owner: str,
    qemu_conf: str,
) -> Iterator[Libvirtd]:
    user, group = owner.split(":")
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    daemon = subprocess.Popen(
        [*inside, *command, "sh", "-c", _PRIVATE, str(directory), str(first_port()), *drivers],
        cwd="/", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
        env={
            "USER_OF_QEMU": user, "GROUP_OF_QEMU": group,
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(directory), "LC_ALL": "C",
            "LOCK_MANAGER": lock_manager.name, "LOCK_DAEMON": lock_manager.daemon, "LOCK_SOCKET": lock_manager.socket,
            **lock_manager.environment,
            "QEMU_CONF": qemu_conf,
        },
    )  # fmt: skip
    assert daemon.stdin is not None
    with daemon.stdin as stream:
        stream.write(lock_manager.settings)
    scheme = "qemu" if "qemu" in drivers else drivers[0]
    uri = f"{scheme}+unix:///system?socket={directory}/run/libvirt-sock"
    try:
        deadline = time.monotonic() + 60
        while subprocess.run(["virsh", "-c", uri, "uri"], capture_output=True, timeout=60, check=False).returncode:
            assert time.monotonic() < deadline and daemon.poll() is None, "libvirtd does not answer"
            time.sleep(0.1)
        first = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()[0]
        yield Libvirtd(uri, ("nsenter", f"--target={first}", "--mount", "--pid"), directory)
    finally:
        daemon.kill()
        daemon.wait(20)
