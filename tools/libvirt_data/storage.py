"""Storage: pools, what they can do and how they are started; volumes."""

from __future__ import annotations

from collections.abc import Iterator

from hostel.drivers.storage.backends.command import activate_command, mount_command
from hostel.drivers.storage.backends.discovery import gluster_sources
from hostel.errors import ModelError
from hostel.model.pool import read_pool
from hostel.model.storage import PoolType
from hostel.model.storage_capabilities import storage_capabilities
from hostel.model.volume import read_volume
from libvirt_data.case import Case, Suite, Tree


def pools(tree: Tree) -> Iterator[Case]:
    """Documents of pools."""
    for call in tree.calls("storagepoolxml2xmltest", "DO_TEST"):
        name = call.words[0]
        read, written = (tree.path(f"storagepoolxml2xml{way}/{name}.xml") for way in ("in", "out"))
        yield Case("storagepoolxml2xml", name, read, written)


def pool(case: Case) -> str:
    """A pool as it is written."""
    return read_pool(case.text()).format()


def volumes(tree: Tree) -> Iterator[Case]:
    """Documents of volumes, each with its pool's."""
    for call in tree.calls("storagevolxml2xmltest", "DO_TEST_FULL", "DO_TEST"):
        pool, name = call.words[:2]
        read, written = (tree.path(f"storagevolxml2xml{way}/{name}.xml") for way in ("in", "out"))
        extra = {
            "pool": tree.path(f"storagepoolxml2xmlin/{pool}.xml"),
            "needs_capacity": "VIR_VOL_XML_PARSE_NO_CAPACITY" not in call.words[2:],
        }
        yield Case("storagevolxml2xml", name, read, written, extra=extra)


def volume(case: Case) -> str:
    """A volume as it is written."""
    type = read_pool(case.extra["pool"].read_text()).type
    return read_volume(case.text(), type, needs_capacity=case.extra["needs_capacity"]).format()


def capabilities(tree: Tree) -> Iterator[Case]:
    """Which types of pools there are."""
    for call in tree.calls("storagepoolcapstest", "DO_TEST"):
        written = tree.path(f"storagepoolcapsschemadata/poolcaps-{call.words[0]}.xml")
        yield Case("storagepoolcaps", call.words[0], tree.path("storagepoolcapstest.c"), written)


def write_capabilities(case: Case) -> str:
    """The capabilities of a connection that has every type, or one."""
    return storage_capabilities([PoolType.FS] if case.name == "fs" else list(PoolType)).format()


def starts(tree: Tree) -> Iterator[Case]:
    """Pools that a command starts, and others."""
    for call in tree.calls("storagepoolxml2argvtest", "DO_TEST_FAIL", "DO_TEST_PLATFORM", "DO_TEST"):
        name = call.words[0]
        must_fail = call.macro == "DO_TEST_FAIL"
        system = "-linux" if call.macro == "DO_TEST_PLATFORM" else ""
        written = tree.path(f"storagepoolxml2argvdata/{name}{system}.argv")
        read = tree.path(f"storagepoolxml2xmlin/{name}.xml")
        yield Case("storagepoolxml2argv", name, read, None if must_fail else written, must_fail)


def start(case: Case) -> str:
    """The command that starts a pool; most types have none."""
    pool = read_pool(case.text())
    if pool.type in (PoolType.FS, PoolType.NETFS):
        return " ".join(mount_command(pool))
    if pool.type is PoolType.LOGICAL:
        return " ".join(activate_command(pool, active=True))
    raise ModelError("/pool/@type", f"no command starts a pool of type '{pool.type.value}'")


def gluster(tree: Tree) -> Iterator[Case]:
    """What Gluster says of its volumes, for two types of pools."""
    macro = "DO_TEST_GLUSTER_EXTRACT_POOL_SOURCES_"
    for call in tree.calls("virstorageutiltest", f"{macro}NATIVE", f"{macro}NETFS"):
        kind = call.macro.removeprefix(macro).lower()
        begin = f"virstorageutildata/gluster-parse-{call.words[0]}"
        read, written = tree.path(f"{begin}-src.xml"), tree.path(f"{begin}-{kind}.xml")
        yield Case("gluster_pool_sources", f"{call.words[0]}-{kind}", read, written, extra={"kind": kind})


def gluster_source(case: Case) -> str:
    """The sources that are offered."""
    type = PoolType.NETFS if case.extra["kind"] == "netfs" else PoolType.GLUSTER
    return gluster_sources("testhost", case.text(), type).format()


SUITES = (
    Suite("storagepoolxml2xml", pools, pool),
    Suite("storagevolxml2xml", volumes, volume),
    Suite("storagepoolcaps", capabilities, write_capabilities),
    Suite("storagepoolxml2argv", starts, start),
    Suite("gluster_pool_sources", gluster, gluster_source),
)
