"""Running the tools that pools and networks are managed with: bounded in time, with their own words in the error."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from hostel.drivers.fault import fault, printable
from hostel.errors import ErrorCode, ErrorDomain, VirtError

# Debian's package of each tool.
PACKAGES: Final = {
    "blkid": "util-linux",
    "bridge": "iproute2",
    "bzip2": "bzip2",
    "dmsetup": "dmsetup",
    "dnsmasq": "dnsmasq-base",
    "ebtables": "ebtables",
    "gluster": "glusterfs-cli",
    "gzip": "gzip",
    "ip": "iproute2",
    "ip6tables": "iptables",
    "iptables": "iptables",
    "iscsiadm": "open-iscsi",
    "lzop": "lzop",
    "mkfs": "util-linux",
    "mdevctl": "mdevctl",
    "modprobe": "kmod",
    "mount": "mount",
    "nft": "nftables",
    "ovs-vsctl": "openvswitch-switch",
    "parted": "parted",
    "passt": "passt",
    "prlimit": "util-linux",
    "setpriv": "util-linux",
    "showmount": "nfs-common",
    "tc": "iproute2",
    "udevadm": "udev",
    "umount": "mount",
    "vstorage-mount": "vstorage-client (of Virtuozzo)",
    "xz": "xz-utils",
    "zfs": "zfsutils-linux",
    "zpool": "zfsutils-linux",
    **dict.fromkeys(
        ("lvchange", "lvcreate", "lvremove", "lvs", "pvcreate", "pvremove", "pvs", "vgchange", "vgcreate", "vgremove",
         "vgs", "vgscan"),
        "lvm2",
    ),
}  # fmt: skip
# A user's search path may leave out where the tools of administrators are.
_ADMINISTRATORS: Final = "/usr/local/sbin:/usr/sbin:/sbin"
TIMEOUT: Final = 300.0  # seconds; a server that is away keeps mount busy for two minutes


class Ended(NamedTuple):
    """How a tool ended, and what it printed."""

    code: int
    out: str
    err: str


def find(name: str) -> str | None:
    """Where a tool is; None when it is not installed."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{_ADMINISTRATORS}")


def require(name: str, domain: ErrorDomain) -> str:
    """Where a tool is.

    Raises:
        VirtError: ``SYSTEM_ERROR``; it is not installed.
    """
    path = find(name)
    if path is None:
        package = PACKAGES.get(name, name)
        raise VirtError(
            ErrorCode.SYSTEM_ERROR,
            f"Cannot find '{name}' in path: No such file or directory; install the package {package}",
            domain=domain,
        )
    return path


def run(
    command: Sequence[str],
    domain: ErrorDomain,
    *,
    expected: Collection[int] = (0,),
    secret: str = "",
    timeout: float = TIMEOUT,
    stdin: str = "",
) -> Ended:
    """Run a tool to its end.

    Args:
        command: its name, and its arguments.
        domain: what an error is about.
        expected: the exit codes that are no failure.
        secret: an argument that must not be told.
        timeout: seconds after which it is killed.
        stdin: what it reads.

    Raises:
        VirtError: it is not installed (``SYSTEM_ERROR``), it failed (``INTERNAL_ERROR``, with what it said), or it did
            not end (``OPERATION_TIMEOUT``).
    """
    import subprocess

    words = [require(command[0], domain), *command[1:]]
    shown = " ".join("***" if secret and word == secret else word for word in words)
    environment = {**os.environ, "LC_ALL": "C", "PATH": f"{os.environ.get('PATH', os.defpath)}:{_ADMINISTRATORS}"}
    try:
        done = subprocess.run(
            words, input=stdin.encode(), capture_output=True, timeout=timeout, check=False, env=environment
        )
    except subprocess.TimeoutExpired:
        text = f"'{printable(shown)}' has not ended within {timeout:.0f} seconds, and was stopped"
        raise fault(ErrorCode.OPERATION_TIMEOUT, text, domain) from None
    except (OSError, ValueError) as error:
        raise fault(ErrorCode.INTERNAL_ERROR, f"cannot run '{printable(shown)}': {error}", domain) from None
    ended = Ended(done.returncode, _text(done.stdout), _text(done.stderr))
    if ended.code not in expected:
        raise failure(shown, ended, domain)
    return ended


def failure(shown: str, ended: Ended, domain: ErrorDomain) -> VirtError:
    """A tool's failure as libvirt tells of it, with all that the tool said."""
    how = f"unexpected exit status {ended.code}" if ended.code >= 0 else f"unexpected fatal signal {-ended.code}"
    said = "\n".join(printable(line.rstrip()) for line in ended.err.strip().splitlines())
    return fault(ErrorCode.INTERNAL_ERROR, f"Child process ({printable(shown)}) {how}: {said}", domain)


def settle() -> None:
    """Wait until the kernel's news of devices have become files; where nobody waits for news there is nothing to do."""
    if find("udevadm") is not None and os.path.exists("/run/udev/control"):
        run(["udevadm", "settle"], ErrorDomain.NONE, expected=range(256))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
