"""What is tried in a kernel that has what pools need: run by name, inside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from support.virsh import Ours

OURS = Ours(Path("/tmp/home"))  # of this kernel alone: nothing of it stays


def tool(*words: str) -> str:
    """Run a tool, which must succeed."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert not done.returncode, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


def must(line: str) -> str:
    """A line of virsh that succeeds; what it says."""
    code, out, err = OURS.run(line)
    print(f"{time.monotonic():.1f} $ {line}\n{out}{err}", flush=True)
    assert code == 0, line
    return out


def refused(line: str, why: str) -> None:
    """A line of virsh that is refused."""
    code, out, err = OURS.run(line)
    print(f"$ {line}\n{out}{err}", flush=True)
    assert code == 1 and why in err, line


def logical() -> None:
    """A volume group: built, filled, snapshots, clones, stopped, found again."""
    tool("modprobe", "-a", "dm_mod", "dm_snapshot")
    # Nobody makes the files of devices here but LVM itself. Nobody watches snapshots, and no memory is locked, which
    # takes long in this kernel.
    activation = "udev_sync = 0\n udev_rules = 0\n monitoring = 0\n reserved_memory = 0\n reserved_stack = 0"
    backup = "backup = 0\n archive = 0"
    Path("/etc/lvm/lvmlocal.conf").write_text(f"activation {{\n {activation}\n}}\nbackup {{\n {backup}\n}}\n")
    must("pool-define-as g logical --source-dev /dev/ubda --source-name vg")
    refused("pool-start g", "cannot find logical volume group name 'vg'")
    must("pool-build g")
    refused("pool-build g", "already formatted using 'LVM2_member'")
    must("pool-start g")
    assert "<name>vg</name>" in must("find-storage-pool-sources logical")
    must("vol-create-as g one 8M")
    Path("/tmp/bytes").write_bytes(os.urandom(1 << 20))
    must("vol-upload one /tmp/bytes g")
    must("vol-create-as g snap 8M --allocation 8M --backing-vol one")
    assert "<backingStore>" in must("vol-dumpxml snap g")
    must("vol-clone one two g")
    for name in ("two", "snap"):
        must(f"vol-download {name} /tmp/out-{name} g")
        assert Path(f"/tmp/out-{name}").read_bytes()[: 1 << 20] == Path("/tmp/bytes").read_bytes(), name
    must("vol-create-as g thin 64M --allocation 4M")
    assert "64.00 MiB" in must("vol-list g --details")
    refused("vol-wipe thin g", "is sparse")
    refused("vol-create-as g large 10G", "insufficient free space")
    key = must("vol-key two g").strip()
    assert must(f"vol-name {key}").strip() == "two"
    tool("mkfs.ext4", "-q", "/dev/vg/two")
    tool("mount", "/dev/vg/two", "/mnt")
    refused("vol-wipe two g", "is still in use by the mount on /mnt")
    refused("vol-delete two g", "is still in use by the mount on /mnt")
    tool("umount", "/mnt")
    must("vol-delete snap g")
    must("vol-delete two g")
    must("vol-wipe one g")
    assert not any(Path("/dev/vg/one").read_bytes())
    must("pool-destroy g")
    assert not os.path.exists("/dev/vg/one")
    must("pool-start g")
    assert "one" in must("vol-list g")
    must("pool-destroy g")
    must("pool-delete g")
    refused("pool-start g", "cannot find logical volume group name 'vg'")


def scsi() -> None:
    """Disks of an adapter, as they come and go."""
    tool("modprobe", "-a", "sd_mod")
    tool("modprobe", "scsi_debug", "dev_size_mb=16", "num_tgts=2")
    host = next(path.name for path in Path("/sys/class/scsi_host").iterdir())
    must(f"pool-create-as s scsi --adapter-name {host} --target /dev")
    found = must("vol-list s")
    assert "unit:0:0:0" in found and "unit:0:1:0" in found
    assert "32.00 MiB" in must("pool-info s")
    Path("/tmp/bytes").write_bytes(os.urandom(1 << 16))
    must("vol-upload unit:0:1:0 /tmp/bytes s")
    must("vol-download unit:0:1:0 /tmp/out s --length 65536")
    assert Path("/tmp/out").read_bytes() == Path("/tmp/bytes").read_bytes()
    refused("vol-create-as s x 1M", "storage pool does not support volume creation")
    device = must("vol-path unit:0:1:0 s").strip()
    Path(f"/sys/block/{Path(device).name}/device/delete").write_text("1")
    assert "unit:0:1:0" not in must("vol-list s"), "a list is never stale"
    must("pool-refresh s")
    until = time.monotonic() + 60
    while "unit:0:1:0" not in must("vol-list s"):
        assert time.monotonic() < until
        time.sleep(0.2)
    must("pool-destroy s")


def multipath() -> None:
    """Two ways to one disk."""
    tool("modprobe", "-a", "dm_mod", "dm_multipath", "dm_round_robin", "sd_mod")
    tool("modprobe", "scsi_debug", "dev_size_mb=16")
    until = time.monotonic() + 60
    while not os.path.exists("/dev/sda"):
        assert time.monotonic() < until
        time.sleep(0.1)
    sectors = Path("/sys/block/sda/size").read_text().strip()
    number = Path("/sys/block/sda/dev").read_text().strip()
    must("pool-create-as m mpath --target /dev/mapper")
    assert "dm-" not in must("vol-list m")
    table = f"0 {sectors} multipath 0 0 1 1 round-robin 0 1 1 {number} 1"
    tool("dmsetup", "create", "--noudevsync", "mpatha", "--table", table)
    tool("dmsetup", "create", "--noudevsync", "other", "--table", "0 2048 error")
    tool("dmsetup", "mknodes")
    found = must("vol-list m")
    assert "/dev/mapper/mpatha" in found and "/dev/mapper/other" not in found
    assert "16.00 MiB" in must("pool-info m")
    must("pool-destroy m")


def iscsi() -> None:
    """A target in this kernel, and the kernel's own initiator."""
    tool("modprobe", "-a", "iscsi_tcp", "sd_mod")
    with open("/srv/unit", "wb") as file:
        file.truncate(16 << 20)
    subprocess.Popen(["tgtd", "-f", "--iscsi", "portal=127.0.0.1:3260"])
    until = time.monotonic() + 30
    while subprocess.run(["tgtadm", "--op", "show", "--mode", "system"], capture_output=True, check=False).returncode:
        assert time.monotonic() < until
        time.sleep(0.1)
    iqn = "iqn.2024-01.test:disks"
    admin = ["tgtadm", "--lld", "iscsi", "--op"]
    tool(*admin, "new", "--mode", "target", "--tid", "1", "-T", iqn)
    tool(*admin, "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", "/srv/unit")
    tool(*admin, "bind", "--mode", "target", "--tid", "1", "-I", "ALL")
    os.makedirs("/etc/iscsi", exist_ok=True)
    Path("/etc/iscsi/initiatorname.iscsi").write_text("InitiatorName=iqn.2024-01.test:host\n")
    subprocess.Popen(["iscsid", "-f"])
    until = time.monotonic() + 30
    while OURS.run("find-storage-pool-sources-as iscsi 127.0.0.1")[0]:  # it does not listen yet
        assert time.monotonic() < until
        time.sleep(0.1)
    assert iqn in must("find-storage-pool-sources-as iscsi 127.0.0.1")
    must(f"pool-define-as i iscsi --source-host 127.0.0.1 --source-dev {iqn} --target /dev")
    must("pool-start i")
    until = time.monotonic() + 30
    while "unit:0:0:1" not in must("vol-list i"):
        assert time.monotonic() < until
        time.sleep(0.5)
    Path("/tmp/bytes").write_bytes(os.urandom(1 << 16))
    must("vol-upload unit:0:0:1 /tmp/bytes i")
    must("pool-refresh i")
    must("pool-destroy i")
    with open("/srv/unit", "rb") as file:
        assert file.read(1 << 16) == Path("/tmp/bytes").read_bytes()
    refused("vol-list i", "storage pool 'i' is not active")


def nfs() -> None:
    """A directory of this kernel's own server."""
    tool("modprobe", "-a", "nfsd", "nfs", "nfsv4")
    tool("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd")
    os.makedirs("/run/rpcbind", exist_ok=True)
    os.makedirs("/srv/shared", exist_ok=True)
    tool("mount", "-t", "tmpfs", "none", "/srv/shared")
    # Nobody had locks here before who might want them back.
    Path("/proc/sys/fs/nfs/nlm_grace_period").write_text("1")
    tool("rpcbind", "-w")
    Path("/etc/exports").write_text("/srv/shared *(rw,fsid=0,insecure,no_root_squash,no_subtree_check)\n")
    tool("exportfs", "-a")
    tool("rpc.nfsd", "2")
    Path("/proc/fs/nfsd/v4_end_grace").write_text("Y")
    tool("rpc.mountd")
    assert "<dir path='/srv/shared'/>" in must("find-storage-pool-sources-as netfs 127.0.0.1")
    words = "--source-host 127.0.0.1 --source-path / --source-format nfs --source-protocol-ver 4.2 --target /tmp/share"
    must(f"pool-create-as n netfs {words} --build")
    must("vol-create-as n a 4M --format qcow2")
    Path("/srv/shared/outside").write_bytes(b"x")
    assert "outside" in must("vol-list n"), "a list is never stale"
    assert "n" in must("pool-list")
    must("pool-destroy n")
    assert os.listdir("/tmp/share") == []
    refused(
        "pool-create-as n netfs --source-host 127.0.0.1 --source-path /nothing --source-format nfs --target /tmp/share",
        "unexpected exit status 32: mount.nfs",
    )


TRIALS: dict[str, Callable[[], None]] = {trial.__name__: trial for trial in (logical, scsi, multipath, iscsi, nfs)}

if __name__ == "__main__":
    TRIALS[sys.argv[1]]()
