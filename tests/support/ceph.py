"""A Ceph cluster of one monitor and one server of objects, which keeps them in memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

from support.process import started
from support.web import free_port

TIMEOUT = 60.0  # seconds for anything that a test waits for
POOL = "rbd"

_CONFIGURATION = """
[global]
fsid = {fsid}
mon_host = {monitor}
mon_initial_members = a
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_ipv6 = false
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_crush_chooseleaf_type = 0
osd_crush_initial_weight = 1
mon_allow_pool_size_one = true
mon_data_avail_crit = 1
mon_data_avail_warn = 2
paxos_propose_interval = 0.05
mon_tick_interval = 1
osd_mon_report_interval = 1
run_dir = {work}
admin_socket = {work}/$name.asok
pid_file = {work}/$name.pid
log_file = {work}/$name.log
keyring = {work}/keyring
mon_data = {work}/mon
osd_data = {work}/osd
crash_dir = {work}/crash
osd_objectstore = memstore
memstore_device_bytes = 1073741824
osd_max_object_name_len = 256
rbd_default_features = 61
"""
_CAPABILITIES = {
    "mon.": ("mon", "allow *"),
    "client.admin": ("mon", "allow *", "osd", "allow *", "mgr", "allow *"),
    "client.reader": ("mon", "profile rbd", "osd", "profile rbd-read-only"),
    "osd.0": ("mon", "allow profile osd", "osd", "allow *", "mgr", "allow profile osd"),
}


class Ceph:
    """A running cluster.

    Attributes:
        configuration: its file, which names the keys.
        monitor: where the monitor listens for clients of the older protocol.
        keys: by the names of their owners.
    """

    def __init__(self, work: Path, monitor: str, keys: dict[str, str]) -> None:
        self.configuration = work / "ceph.conf"
        self.monitor = monitor
        self.keys = keys

    def run(self, *words: str) -> str:
        """Run a tool of Ceph's; what it printed."""
        environment = {**os.environ, "CEPH_CONF": str(self.configuration)}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert not done.returncode, done.stderr
        return done.stdout


@contextlib.contextmanager
def cluster(work: Path) -> Iterator[Ceph]:
    """Run a cluster with the pool ``rbd``; as root only.

    Args:
        work: an empty folder, with a short name: sockets lie in it.
    """
    ports = free_port(), free_port()
    address = "[v2:127.0.0.1:{},v1:127.0.0.1:{}]".format(*ports)
    fsid, osd = str(uuid.uuid4()), str(uuid.uuid4())
    (work / "ceph.conf").write_text(_CONFIGURATION.format(fsid=fsid, monitor=address, work=work))
    for name in ("mon", "osd"):
        (work / name).mkdir()
    keyring = str(work / "keyring")
    for index, (owner, words) in enumerate(_CAPABILITIES.items()):
        granted = [word for pair in zip(words[::2], words[1::2], strict=True) for word in ("--cap", *pair)]
        _tool(
            "ceph-authtool", *(["--create-keyring"] if not index else []), keyring, "--gen-key", "-n", owner, *granted
        )
    keys = {owner: _tool("ceph-authtool", keyring, "--print-key", "-n", owner).strip() for owner in _CAPABILITIES}
    ceph = Ceph(work, f"127.0.0.1:{ports[1]}", keys)
    _tool("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, str(work / "monmap"))
    ceph.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", str(work / "monmap"), "--keyring", keyring)
    common = ["-f", "-c", str(ceph.configuration), "--id"]
    with started(["ceph-mon", *common, "a"]):
        ceph.run("ceph", "osd", "new", osd)
        ceph.run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        with started(["ceph-osd", *common, "0"]):
            ceph.run("ceph", "osd", "pool", "create", POOL, "8")
            ceph.run("rbd", "pool", "init", POOL)  # and that waits until the pool can be used
            yield ceph


def _tool(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT, check=True).stdout


def may_run() -> bool:
    """Whether this user may run a cluster."""
    return os.geteuid() == 0
