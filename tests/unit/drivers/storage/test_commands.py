"""The commands by which pools are started, and what servers say of themselves."""

from __future__ import annotations

import pytest

from hostel.drivers.storage.backends.command import activate_command, mount_command
from hostel.drivers.storage.backends.discovery import gluster_sources
from hostel.errors import ModelError
from hostel.model.pool import read_pool
from hostel.model.storage import Pool, PoolType


def netfs(format: str, host: str = "h", more: str = "", path: str = "/t") -> Pool:
    source = f"<host name='{host}'/><dir path='/d'/><format type='{format}'/>{more}"
    return read_pool(
        f"<pool type='netfs'><name>p</name><source>{source}</source><target><path>{path}</path></target></pool>"
    )


def device(path: str) -> Pool:
    source = f"<device path='{path}'/><format type='ext4'/>"
    return read_pool(f"<pool type='fs'><name>p</name><source>{source}</source><target><path>/t</path></target></pool>")


def group(name: str) -> Pool:
    return read_pool(f"<pool type='logical'><name>p</name><source><name>{name}</name></source></pool>")


@pytest.mark.parametrize(
    ("pool", "options", "rest"),
    [(netfs("auto"), "", "h:/d /t"),
     (netfs("nfs", more="<protocol ver='4.2'/>"), ",nfsvers=4.2", "-t nfs h:/d /t"),
     (netfs("glusterfs"), ",direct-io-mode=1", "-t glusterfs h:/d /t"),
     (netfs("cifs"), ",guest", "-t cifs //h//d /t"),
     (device("/dev/x"), "", "-t ext4 /dev/x /t")],
)  # fmt: skip
def test_a_file_system_is_mounted_without_what_could_act_on_the_host(pool: Pool, options: str, rest: str) -> None:
    assert mount_command(pool) == ["mount", "-o", f"nodev,nosuid,noexec{options}", *rest.split()]


def test_a_group_of_volumes_is_activated_for_this_host() -> None:
    assert activate_command(group("g"), active=True) == ["vgchange", "-aly", "g"]
    assert activate_command(group("g"), active=False) == ["vgchange", "-aln", "g"]


@pytest.mark.parametrize(
    "pool", [device("-o,remount"), netfs("nfs", host="-oremount"), netfs("nfs", path="--bind")]
)  # fmt: skip
def test_nothing_to_mount_is_an_option(pool: Pool) -> None:
    with pytest.raises(ModelError, match="begins with '-'"):
        mount_command(pool)


def test_no_group_is_an_option() -> None:
    with pytest.raises(ModelError, match="/pool/source/name: '--help' begins with '-'"):
        activate_command(group("--help"), active=True)


VOLUMES = """<cliOutput><volInfo><volumes>
<volume><name>one</name></volume><volume><name>two</name></volume>
</volumes></volInfo></cliOutput>"""


def test_a_servers_volumes_are_sources() -> None:
    found = gluster_sources("h", VOLUMES, PoolType.GLUSTER).sources
    assert [(source.name, source.dir) for source in found] == [("one", "/"), ("two", "/")]
    mounted = gluster_sources("h", VOLUMES, PoolType.NETFS).sources
    assert [(source.dir, source.format_type) for source in mounted] == [("one", "glusterfs"), ("two", "glusterfs")]


@pytest.mark.parametrize("output", ["", "gluster: no such command", VOLUMES.replace("<name>two</name>", "")])
def test_what_is_no_list_of_volumes_is_refused(output: str) -> None:
    with pytest.raises(ModelError):
        gluster_sources("h", output, PoolType.GLUSTER)
