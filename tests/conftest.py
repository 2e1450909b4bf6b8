"""Fixtures and marks that every test may use."""

from __future__ import annotations

import ctypes
import gc
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from support import answers

# The Debian package that brings each tool, so that a skip says what to install.
PACKAGES = {
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "qemu-nbd": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "virsh": "libvirt-clients",
    "libvirtd": "libvirt-daemon libvirt-daemon-driver-qemu",
    "virtlockd": "libvirt-daemon",
    "/usr/lib/libvirt/libvirt_sanlock_helper": "libvirt-sanlock",
    "virt-install": "virtinst",
    "virt-manager": "virt-manager",
    "Xvfb": "xvfb",
    "import": "imagemagick",
    "dbus-daemon": "dbus-daemon",
    "perl": "perl libsys-virt-perl",
    "qemu-storage-daemon": "qemu-system-common",
    "nbdkit": "nbdkit",
    "nbdinfo": "libnbd-bin",
    "nbdcopy": "libnbd-bin",
    "nbdsh": "python3-libnbd",
    "qemu-ga": "qemu-guest-agent",
    "busybox": "busybox-static",
    "mke2fs": "e2fsprogs",
    "setfacl": "acl",
    "cryptsetup": "cryptsetup-bin",
    "mcopy": "mtools",
    "mdir": "mtools",
    "fsck.fat": "dosfstools",
    "debugfs": "e2fsprogs",
    "dpkg-deb": "dpkg",
    "nginx": "nginx-light",
    "in.tftpd": "tftpd-hpa",
    "ip": "iproute2",
    "nft": "nftables",
    "passt": "passt",
    "dnsmasq": "dnsmasq-base",
    "ovs-vswitchd": "openvswitch-switch",
    "ovsdb-server": "openvswitch-common",
    "ganesha.nfsd": "nfs-ganesha nfs-ganesha-vfs",
    "nfs-ls": "libnfs-utils",
    "tgtd": "tgt",
    "parted": "parted",
    "mkfs.xfs": "xfsprogs",
    "mkfs.btrfs": "btrfs-progs",
    "linux.uml": "user-mode-linux",
    "lvcreate": "lvm2",
    "dmsetup": "dmsetup",
    "iscsiadm": "open-iscsi",
    "exportfs": "nfs-kernel-server",
    "showmount": "nfs-common",
    "sshd": "openssh-server",
    "nc": "netcat-openbsd",
    "ssh-agent": "openssh-client",
    "glusterd": "glusterfs-server",
    "block-gluster.so": "qemu-block-extra",
    "ceph-mon": "ceph-mon",
    "ceph-osd": "ceph-osd",
    "rbd": "ceph-common",
    "block-rbd.so": "qemu-block-extra",
    "block-ssh.so": "qemu-block-extra",
    "block-curl.so": "qemu-block-extra",
    "block-iscsi.so": "qemu-block-extra",
    "block-nfs.so": "qemu-block-extra",
    "/usr/share/OVMF/OVMF_CODE_4M.fd": "ovmf",
}
BENCH = Path(__file__).parent / "bench"

# Where pytest sees CI it prints differences without end, and ours are between whole disks.
if os.environ.pop("CI", None) == "true":
    os.environ["HOSTEL_TESTS_IN_CI"] = "true"
IN_CI = "HOSTEL_TESTS_IN_CI" in os.environ

# Examples take as long as a busy machine needs for them; CI judges a change by the same ones each time.
settings.register_profile("hostel", deadline=None, derandomize=IN_CI)
settings.load_profile("hostel")


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory that every user of the host reaches, wherever the run's own ones are."""
    with tempfile.TemporaryDirectory(prefix="hostel-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def pytest_configure(config: pytest.Config) -> None:
    """Have the workers share what they find out about QEMU; whoever starts them comes first."""
    if not hasattr(config, "workerinput"):
        folder = tempfile.mkdtemp(prefix="hostel-answers-")
        os.environ[answers.FOLDER] = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave timings out unless they are asked for by name: they say nothing while other tests run."""
    asked = any("bench" in argument for argument in config.invocation_params.args)
    return True if collection_path == BENCH and not asked else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What boots a guest needs QEMU."""
    for item in items:
        if item.get_closest_marker("qemu"):
            item.add_marker(pytest.mark.requires_tool("qemu-system-x86_64"))


def pytest_collection_finish() -> None:
    """Have the collector of garbage pass over the tests, which it would go through, and copy in each fork."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def memory_back() -> Iterator[None]:
    """Give the host back what a module's tests freed: a gigabyte that is kept is mapped anew by each fork."""
    yield
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc's
        trim(0)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose tool is missing, naming the package to install; in CI that is an error."""
    for mark in item.iter_markers("requires_tool"):
        tool = mark.args[0]
        if not os.path.exists(tool) and shutil.which(tool) is None and not glob.glob(f"/usr/lib/*/qemu/{tool}"):
            reason = f"needs {tool} (package {PACKAGES.get(tool, tool)})"
            if IN_CI:
                pytest.fail(f"{reason}; ./test --setup should have installed it", pytrace=False)
            pytest.skip(reason)
