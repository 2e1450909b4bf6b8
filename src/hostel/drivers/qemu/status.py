"""The state document of a running machine, and the note of how the last run ended."""

from __future__ import annotations

import json
from typing import NamedTuple

from lxml import etree

from hostel.drivers.base import ShutoffReason
from hostel.drivers.qemu import document
from hostel.drivers.store import Store
from hostel.errors import HostelError


class Status(NamedTuple):
    """A machine that runs, or was being started when its starter died (``pid`` 0).

    Attributes:
        domain: the live document.
        id: its number while it runs.
        pid: QEMU's process id.
        started: QEMU's start time, in clock ticks since boot.
        run: the directory of its sockets and of its supervisor.
        log_start: the log's length before this run, in bytes.
        paused: libvirt's reason while it is paused on request, else 0.
        running: libvirt's reason while it runs.
        ending: why it is being ended by us, else empty.
    """

    domain: document.Node
    id: int
    pid: int
    started: int
    run: str
    log_start: int
    paused: int = 0
    running: int = 1
    ending: str = ""

    def format(self) -> str:
        """The document's text."""
        fields = {name: str(getattr(self, name)) for name in self._fields if name != "domain"}
        root = etree.Element("domstatus", fields)
        root.append(document.parse_xml(document.format(self.domain)))
        return document.format(root)

    @classmethod
    def parse(cls, text: str) -> Status:
        """Read a document that :meth:`format` wrote.

        Raises:
            ValueError: it is not one.
        """
        try:
            root = document.parse_xml(text)
            numbers = {
                name: int(root.attrib[name]) for name in ("id", "pid", "started", "log_start", "paused", "running")
            }
            found = root.find("domain")
            if found is None:
                raise ValueError("no <domain>")
            domain = document.parse_xml(etree.tostring(found, encoding="unicode"))
            return cls(domain=domain, run=str(root.attrib["run"]), ending=str(root.attrib["ending"]), **numbers)
        except (HostelError, KeyError) as error:
            raise ValueError(str(error)) from error


class Ending(NamedTuple):
    """How the last run of a domain ended."""

    reason: ShutoffReason
    detail: str


def write_ending(store: Store, name: str, ending: Ending) -> None:
    """Remember how a run ended."""
    store.write(name, json.dumps({"reason": int(ending.reason), "detail": ending.detail}))


def read_ending(store: Store, name: str) -> Ending:
    """How the last run ended; ``UNKNOWN`` when nobody knows."""
    text = store.read(name)
    try:
        fields = json.loads(text or "{}")
        return Ending(ShutoffReason(int(fields["reason"])), str(fields["detail"]))
    except (ValueError, KeyError, TypeError):
        return Ending(ShutoffReason.UNKNOWN, "")
