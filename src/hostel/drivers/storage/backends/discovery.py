"""What a storage server says of itself, as sources for pools."""

from __future__ import annotations

from hostel.codec import xmltext
from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.source import Host
from hostel.model.pool_sources import PoolSources
from hostel.model.storage import PoolSource, PoolType


def gluster_sources(host: str, output: str, type: PoolType) -> PoolSources:
    """The volumes in what ``gluster volume info --xml`` printed, for a ``gluster`` or a ``netfs`` pool.

    Raises:
        ModelError: it is not XML, or a volume has no name.
    """
    root = xmltext.parse(output, "gluster_cli_output")
    found = []
    for volume in root.iterfind(".//volumes/volume"):
        name = volume.findtext("name")
        if not name:
            where = xmltext.path_of(volume)
            raise ModelError(where, "failed to extract gluster volume name", code=ErrorCode.INTERNAL_ERROR)
        hosts = [Host(name=host)]
        if type is PoolType.NETFS:
            found.append(PoolSource(hosts=hosts, dir=name, format_type="glusterfs"))
        else:
            found.append(PoolSource(hosts=hosts, dir="/", name=name))
    return PoolSources(sources=found)
