"""A libvirtd of root's that has the host's devices: storage pools alone, and files of its own."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

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
printf 'auth_unix_rw = "none"\\n' >/etc/libvirt/libvirtd.conf
# No machines: that part wants a user that only Debian's package for a whole system makes.
mkdir "$0/drivers"
ln -s /usr/lib/*/libvirt/connection-driver/libvirt_driver_storage.so "$0/drivers/"
ln -s /usr/lib/*/libvirt/connection-driver/libvirt_driver_secret.so "$0/drivers/"
LIBVIRT_DRIVER_DIR="$0/drivers" exec libvirtd --pid-file "$0/pid"
"""


@contextlib.contextmanager
def running(inside: Sequence[str] = ()) -> Iterator[str]:
    """Run a daemon; gives the URI of its storage driver.

    Args:
        inside: what runs a command in another network.
    """
    directory = Path(tempfile.mkdtemp(prefix="lv-"))
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    daemon = subprocess.Popen(
        [*inside, *command, "sh", "-c", _PRIVATE, str(directory)], cwd="/", stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(directory), "LC_ALL": "C"},
    )  # fmt: skip
    uri = f"storage+unix:///system?socket={directory}/run/libvirt-sock"
    try:
        deadline = time.monotonic() + 60
        while subprocess.run(
            ["virsh", "-c", uri, "pool-list"], capture_output=True, timeout=60, check=False
        ).returncode:
            assert time.monotonic() < deadline and daemon.poll() is None, "libvirtd does not answer"
            time.sleep(0.1)
        yield uri
    finally:
        daemon.kill()
        daemon.wait(20)
        shutil.rmtree(directory, ignore_errors=True)
