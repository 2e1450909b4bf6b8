"""Who may do what: what a procedure needs, held against what the caller is given."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from hostel.daemon.config import Rule
from hostel.drivers.base.migration import DEST_NAME, DEST_XML
from hostel.drivers.fault import fault
from hostel.errors import ErrorCode, ErrorDomain, ModelError, VirtError
from hostel.wire.rpc.procedure import Permission, Procedure

# These need no permission to change things by libvirt's table, and still are not for those who only look.
_CHANGING: Final = frozenset(
    {"domain_set_scheduler_parameters", "connect_find_storage_pool_sources", "node_get_sev_info"}
)
# Words that C's names have in capitals.
_CAPITALS: Final = {
    **{word: word.upper() for word in ("cpu", "dhcp", "fd", "id", "mac", "nmi", "os", "pm", "scsi", "sev", "ssh")},
    **{word: word.upper() for word in ("uri", "uuid", "wwn", "xml")},
    "fsfreeze": "FSFreeze", "fsinfo": "FSInfo", "fsthaw": "FSThaw", "fstrim": "FSTrim", "iothread": "IOThread",
    "nwfilter": "NWFilter", "nwfilters": "NWFilters",
}  # fmt: skip
# Procedures of QEMU's own program, whose names in C say so.
_OF_QEMU: Final = re.compile(r"domain_(monitor|agent)_command|domain_attach$|connect_domain_monitor_event")


# From a kind of object and a reference on the wire to the object's name.
NameOf = Callable[[str, Any], str]


class Identity(NamedTuple):
    """Who a client is.

    Attributes:
        user: the name; of a user of this host, or what the client has shown.
        uid: the number of a user of this host, else -1.
        pid: likewise the process.
    """

    user: str
    uid: int = -1
    pid: int = -1


class Access:
    """The rules.

    Args:
        rules: None where everybody may do everything.
    """

    def __init__(self, rules: Sequence[Rule] | None) -> None:
        self._rules = rules

    @property
    def is_open(self) -> bool:
        """Whether everybody may do everything."""
        return self._rules is None

    def check(self, identity: Identity, procedure: Procedure, arguments: Sequence[Any], name_of: NameOf) -> None:
        """Let a call pass, or not.

        Args:
            identity: who calls.
            procedure: what is called.
            arguments: of the call.
            name_of: tells the name of the object that a reference is to; what a client says of it may be wrong.

        Raises:
            VirtError: ``ACCESS_DENIED``, or there is no such object.
        """
        if self._rules is None:
            return
        for permission in procedure.permissions:
            if permission.filters or not is_needed(permission, procedure, arguments):
                continue
            name = _object_name(permission, procedure, arguments, name_of)
            if name is not None:
                self.require(identity, permission, name)

    def check_found(self, identity: Identity, procedure: Procedure, result: Sequence[Any]) -> None:
        """Let the answer of a call that looks something up pass, or not.

        Raises:
            VirtError: ``ACCESS_DENIED``.
        """
        if self._rules is not None and "_lookup_" in procedure.name:
            for permission in procedure.permissions:
                self.require(identity, permission, str(result[0][0]))

    def require(self, identity: Identity, permission: Permission, name: str) -> None:
        """Insist on a permission on the object of a name.

        Raises:
            VirtError: ``ACCESS_DENIED``.
        """
        if not self.allows(identity, permission, name):
            raise VirtError(
                ErrorCode.ACCESS_DENIED,
                f"access denied: '{permission.object}' '{permission.name.replace('_', '-')}' permission is needed",
                domain=ErrorDomain.ACCESS,
            )

    def allows(self, identity: Identity, permission: Permission, name: str) -> bool:
        """Whether somebody has a permission on the object of a name."""
        if self._rules is None:
            return True
        return any(
            rule.user in ("*", identity.user)
            and fnmatch.fnmatchcase(name, rule.name)
            and any(fnmatch.fnmatchcase(str(permission), pattern) for pattern in rule.allow)
            for rule in self._rules
        )


def check_looking(procedure: Procedure, arguments: Sequence[Any]) -> None:
    """Let a call of somebody who may only look pass, or not.

    Raises:
        VirtError: ``OPERATION_DENIED``.
    """
    if procedure.name in _CHANGING or any(
        not permission.only_looks and is_needed(permission, procedure, arguments)
        for permission in procedure.permissions
    ):
        raise fault(
            ErrorCode.OPERATION_DENIED, f"read only access prevents {api_name(procedure.name)}", ErrorDomain.NONE
        )


def is_needed(permission: Permission, procedure: Procedure, arguments: Sequence[Any]) -> bool:
    """Whether a call needs a permission, by its arguments."""
    if not permission.field:
        return True
    for field, value in zip(procedure.arguments.fields, arguments, strict=True):
        if field.name == permission.field:
            return permission.is_needed(value)
    return True


def api_name(procedure: str) -> str:
    """The name that C has for a procedure: ``storage_vol_create_xml`` is ``virStorageVolCreateXML``."""
    if procedure.startswith("connect_domain_event_callback_"):
        procedure = procedure.replace("callback_", "")  # which for C is no other call
    if _OF_QEMU.match(procedure):
        procedure = procedure.replace("domain_", "domain_qemu_", 1)
    elif procedure == "domain_open_namespace":
        procedure = "domain_lxc_open_namespace"
    return "vir" + "".join(_CAPITALS.get(word, word.capitalize()) for word in procedure.split("_"))


def _object_name(permission: Permission, procedure: Procedure, arguments: Sequence[Any], name_of: NameOf) -> str | None:
    """The name of the object that a call is about; None where only its answer says that.

    Of a document it is the name in it; the connection and what has no name is called by an empty one.
    """
    kinds = {"storage_pool": "pool", "storage_vol": "volume"}
    wanted = kinds.get(permission.object, permission.object)
    document = ""
    for field, value in zip(procedure.arguments.fields, arguments, strict=True):
        if field.type.rstrip("?") == wanted and value is not None:
            return name_of(wanted, value)
        if field.name in ("xml", "xml_desc", "desc", "dom_xml"):
            document = value
        if field.name == "dname" and value is not None:
            return str(value)
        if field.name == "params" and procedure.name.startswith("domain_migrate_"):
            given = {name: text for name, (_, text) in value}
            if DEST_NAME in given:
                return str(given[DEST_NAME])
            document = str(given.get(DEST_XML, ""))
    if wanted != "connect" and "_lookup_" in procedure.name:
        return None
    return _document_name(document) if document and wanted != "connect" else ""


def _document_name(xml: str) -> str:
    """The name that a document gives its object.

    Raises:
        VirtError: it is no document.
    """
    from hostel.codec.xmltext import parse

    try:
        return (parse(xml, "document").findtext("name") or "").strip()
    except ModelError as error:
        raise VirtError(error.code, error.reason, domain=ErrorDomain.XML) from None
