"""Snapshots and checkpoints of domains."""

from __future__ import annotations

from typing import Any

from hostel.libvirt.method import Handle, install, kind


class _OfDomain(Handle):
    """Something that belongs to a domain, and is found by it or by another such thing of its."""

    KEEPS_MAKER = True

    def __init__(self, dom: Any, _obj: Any = None) -> None:
        super().__init__(dom._conn, _obj)
        self._dom: Any = dom._dom if isinstance(dom, _OfDomain) else dom

    def domain(self) -> Any:
        """The domain."""
        return self._dom

    def getDomain(self) -> Any:
        """The domain."""
        return self._dom

    def getConnect(self) -> Any:
        """The connection."""
        return self._conn

    def getName(self) -> str:
        """The name."""
        return str(self._wire.name)


@kind
class virDomainSnapshot(_OfDomain):
    """A snapshot."""

    KIND = "snapshot"


install(
    virDomainSnapshot,
    """
delete(flags=0) domain_snapshot_delete
getParent(flags=0) domain_snapshot_get_parent
getXMLDesc(flags=0) domain_snapshot_get_xml_desc
hasMetadata(flags=0) domain_snapshot_has_metadata
isCurrent(flags=0) domain_snapshot_is_current
listAllChildren(flags=0) domain_snapshot_list_all_children
listChildrenNames(flags=0) domain_snapshot_list_children_names
numChildren(flags=0) domain_snapshot_num_children
""",
)


@kind
class virDomainCheckpoint(_OfDomain):
    """A checkpoint."""

    KIND = "checkpoint"


install(
    virDomainCheckpoint,
    """
delete(flags=0) domain_checkpoint_delete
getParent(flags=0) domain_checkpoint_get_parent
getXMLDesc(flags=0) domain_checkpoint_get_xml_desc
listAllChildren(flags=0) domain_checkpoint_list_all_children
""",
)
