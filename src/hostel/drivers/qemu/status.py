"""The state document of a running machine, and the note of how the last run ended."""

from __future__ import annotations

import json
from typing import NamedTuple

from hostel.codec.xml import Element, attr, child, integer
from hostel.drivers.base import ShutoffReason
from hostel.drivers.store import Store
from hostel.errors import ModelError
from hostel.model.domain.domain import Domain

_I64 = 2**63 - 1


class StatusDocument(Element, tag="domstatus"):
    """:class:`Status` on disk."""

    id: int = attr(integer())
    pid: int = attr(integer())
    started: int = attr(integer(maximum=_I64))
    run: str = attr()
    log_start: int = attr(integer(maximum=_I64))
    paused: int = attr(integer())
    running: int = attr(integer())
    ending: str = attr()
    domain: Domain = child(Domain)


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

    domain: Domain
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
        return StatusDocument(**self._asdict()).format()

    @classmethod
    def parse(cls, text: str) -> Status:
        """Read a document that :meth:`format` wrote.

        Raises:
            ValueError: it is not one.
        """
        try:
            document = StatusDocument.parse(text)
        except ModelError as error:
            raise ValueError(str(error)) from error
        return cls(**{name: getattr(document, name) for name in cls._fields})


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
