"""Pool type ``iscsi``: the logical units of a target that the kernel is logged in to, by ``iscsiadm``."""

from __future__ import annotations

import os
import re
import secrets
from typing import Final

from hostel.drivers.fault import fault
from hostel.drivers.storage.backends import tool
from hostel.drivers.storage.backends.finding import one_host, port_of
from hostel.drivers.storage.backends.probing import require_word
from hostel.drivers.storage.backends.scsi import LogicalUnits, require_folder
from hostel.drivers.storage.document import PoolDefinition
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.source import Host as ServerName
from hostel.model.pool_sources import PoolSources
from hostel.model.storage import PoolDevice, PoolSource

_PORT: Final = 3260
_SESSION: Final = re.compile(r"tcp:\s+\[(\S+)\]\s+\S+\s+(\S+).*")
_TARGET: Final = re.compile(r"\s*(\S+)\s+(\S+)\s*")
_NO_SESSIONS: Final = 21  # how iscsiadm ends that has nothing to list


class IscsiBackend(LogicalUnits):
    """A target."""

    def check(self, pool: PoolDefinition) -> None:
        """One server and one target.

        Raises:
            VirtError: in libvirt's words.
        """
        super().check(pool)
        one_host(pool.source, "iscsi")
        if len(pool.source.devices) != 1:
            raise fault(ErrorCode.INTERNAL_ERROR, "missing source device", ErrorDomain.STORAGE)
        require_word(pool.device, "target")
        require_folder(pool)
        if pool.source.auth is not None and pool.source.auth.type != "chap":
            raise fault(ErrorCode.XML_ERROR, "iscsi pool only supports 'chap' auth type", ErrorDomain.STORAGE)

    def is_running(self, pool: PoolDefinition) -> bool:
        """Whether the kernel is logged in."""
        try:
            return bool(_session(pool.device))
        except VirtError:
            return False

    def start(self, pool: PoolDefinition) -> None:
        """Log in, unless the kernel is already."""
        if _session(pool.device):
            return
        node = _node(pool)
        tool.run([*node, "--op", "new"])
        if pool.source.auth is not None:
            self._authenticate(pool, node)
        tool.run([*node, "--login", *_interface_words(pool)])

    def stop(self, pool: PoolDefinition) -> None:
        """Log out; who is not logged in stays so."""
        if _session(pool.device):
            tool.run([*_node(pool), "--logout", *_interface_words(pool)])

    def refresh(self, pool: PoolDefinition) -> PoolDefinition:
        """Have the kernel ask the target for its units again."""
        session = _session(pool.device)
        if not session:
            raise fault(ErrorCode.INTERNAL_ERROR, f"cannot find iscsiadm session: '{pool.device}'", ErrorDomain.STORAGE)
        tool.run(["iscsiadm", "--mode", "session", "-r", session, "-R"])
        tool.settle()
        return pool

    def adapter(self, pool: PoolDefinition) -> int:
        """The adapter that the kernel made for the session."""
        folder = f"{self.host.sysfs}/class/iscsi_session/session{_session(pool.device)}/device"
        try:
            names = os.listdir(folder)
        except OSError:
            names = []
        match = next((found for name in names if (found := re.fullmatch(r"target(\d+):.*", name))), None)
        if match is None:
            detail = f"Failed to get host number for iSCSI session with path '{folder}'"
            raise fault(ErrorCode.INTERNAL_ERROR, detail, ErrorDomain.STORAGE)
        return int(match[1])

    def find_sources(self, source: PoolSource | None) -> PoolSources:
        """The targets of a server.

        Raises:
            VirtError: it cannot be asked, or not under the name that is to be used.
        """
        host, _ = one_host(source, "iscsi")
        assert source is not None  # it has a host
        name = None if source.initiator is None else source.initiator.iqn
        interface = []
        if name is not None:
            known = _interface(name)
            if known is None:
                detail = f"no iSCSI interface defined for IQN {name}"
                raise fault(ErrorCode.OPERATION_FAILED, detail, ErrorDomain.STORAGE)
            interface = ["--interface", known]
        found = _targets(_portal(source), [*interface], keep=False)
        port = str(port_of(source.hosts[0].port) or _PORT)
        return PoolSources(
            sources=[
                PoolSource(
                    hosts=[ServerName(name=host, port=port)],
                    devices=[PoolDevice(path=target)],
                    initiator=source.initiator,
                )
                for target in found
            ]
        )

    def _authenticate(self, pool: PoolDefinition, node: list[str]) -> None:
        auth = pool.source.auth
        assert auth is not None and auth.secret is not None  # the document's rules
        password = self.host.secret(auth.secret, "iscsi").decode("utf-8", "surrogateescape")
        for name, value in (("authmethod", "CHAP"), ("username", auth.username), ("password", password)):
            command = [*node, "--op", "update", "--name", f"node.session.auth.{name}", "--value", value]
            tool.run(command, secret=password)


def portal_of(name: str, port: int) -> str:
    """An address and a port, as iSCSI writes them."""
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def _portal(source: PoolSource) -> str:
    name, port = one_host(source, "iscsi")
    return f"{portal_of(name, port or _PORT)},1"


def _node(pool: PoolDefinition) -> list[str]:
    return ["iscsiadm", "--mode", "node", "--portal", _portal(pool.source), "--targetname", pool.device]


def _session(target: str) -> str:
    """The number of the kernel's session with a target; empty where it has none."""
    for line in tool.run(["iscsiadm", "--mode", "session"], expected=(0, _NO_SESSIONS)).out.splitlines():
        match = _SESSION.fullmatch(line)
        if match is not None and match[2] == target:
            return match[1]
    return ""


def _interface_words(pool: PoolDefinition) -> list[str]:
    """By which interface to log in, where the pool says as whom."""
    name = None if pool.source.initiator is None else pool.source.initiator.iqn
    if name is None:
        return []
    known = _interface(name)
    if known is None:
        known = _make_interface(name)
        # Without having looked through it, iscsiadm knows of no target there.
        _targets(_portal(pool.source), ["--interface", known], keep=True)
    return ["--interface", known]


def _interface(initiator: str) -> str | None:
    """The interface that logs in as ``initiator``."""
    for line in tool.run(["iscsiadm", "--mode", "iface"]).out.splitlines():
        name, _, rest = line.partition(" ")
        fields = rest.split(",", 4)
        if len(fields) == 5 and fields[4] == initiator:
            return name
    return None


def _make_interface(initiator: str) -> str:
    require_word(initiator, "initiator")
    words = ["iscsiadm", "--mode", "iface", "--interface", f"libvirt-iface-{secrets.token_hex(4)}"]
    # Its exit codes say nothing: older versions fail that have done it.
    tool.run([*words, "--op", "new"], expected=range(256))
    update = ["--op", "update", "--name", "iface.initiatorname", "--value", initiator]
    tool.run([*words, *update], expected=range(256))
    made = _interface(initiator)
    if made is None:
        detail = f"Failed to run command 'iscsiadm' to update iscsi interface with IQN '{initiator}'"
        raise fault(ErrorCode.INTERNAL_ERROR, detail, ErrorDomain.STORAGE)
    return made


def _targets(portal: str, words: list[str], *, keep: bool) -> list[str]:
    """What a server offers; ``keep`` has iscsiadm remember it."""
    command = ["iscsiadm", "--mode", "discovery", "--type", "sendtargets", "--portal", portal]
    command += [] if keep else ["--op", "nonpersistent"]
    lines = tool.run([*command, *words]).out.splitlines()
    return [match[2] for line in lines if (match := _TARGET.fullmatch(line))]
