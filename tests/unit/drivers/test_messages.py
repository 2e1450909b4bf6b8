"""Events and libvirt's messages, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from hostel.drivers.events import (
    DOMAIN_EVENTS,
    NETWORK_EVENTS,
    NODE_DEVICE_EVENTS,
    POOL_EVENTS,
    SECRET_EVENTS,
    Event,
    Subject,
)
from hostel.drivers.messages import event_of, message_of, message_values
from hostel.wire.rpc.programs import REMOTE

UUID = "12345678-9abc-def0-1234-56789abcdef0"
KINDS = [
    *((Subject.DOMAIN, kind) for kind in DOMAIN_EVENTS),
    *((Subject.POOL, kind) for kind in POOL_EVENTS),
    *((Subject.NETWORK, kind) for kind in NETWORK_EVENTS),
    *((Subject.SECRET, kind) for kind in SECRET_EVENTS),
    *((Subject.NODE_DEVICE, kind) for kind in NODE_DEVICE_EVENTS),
]
DETAILS: dict[str, Mapping[str, Any]] = {
    "lifecycle": {"event": 5, "detail": 1},
    "block-job": {"disk": "/a", "type": 1, "status": 2},
    "block-job-2": {"disk": "vda", "type": 1, "status": 2},
    "device-added": {"alias": "net0"},
    "disk-change": {"alias": "ide0", "old": "/a", "new": None, "reason": 0},
    "io-error": {"srcPath": "/a", "devAlias": "disk0", "action": 1},
    "rtc-change": {"utcoffset": -7},
    "tunable": {"blkdeviotune.total_iops_sec": 5, "blkdeviotune.disk": "vda"},
    "graphics": {
        "phase": 1, "local": {"family": 0, "node": "a", "service": "1"}, "authScheme": "vnc",
        "remote": {"family": 0, "node": "b", "service": "2"}, "subject": [{"type": "x509dname", "name": "CN=a"}],
    },
}  # fmt: skip


@pytest.mark.parametrize(("subject", "kind"), KINDS)
def test_every_kind_has_a_message_that_can_be_packed(subject: Subject, kind: str) -> None:
    procedure = REMOTE.by_name[message_of(subject, kind)]
    assert procedure.event
    event = Event(subject, kind, "name", "" if subject is Subject.NODE_DEVICE else UUID, 4, {})
    data = procedure.arguments.pack(message_values(procedure, 7, event))
    back = event_of(subject, kind, procedure, procedure.arguments.unpack(data))
    assert (back.subject, back.kind, back.name, back.uuid) == (subject, kind, "name", event.uuid)


@pytest.mark.parametrize("kind", DETAILS)
def test_details_come_back_by_the_names_that_drivers_have_for_them(kind: str) -> None:
    procedure = REMOTE.by_name[message_of(Subject.DOMAIN, kind)]
    event = Event(Subject.DOMAIN, kind, "web", UUID, 4, DETAILS[kind])
    data = procedure.arguments.pack(message_values(procedure, 7, event))
    assert event_of(Subject.DOMAIN, kind, procedure, procedure.arguments.unpack(data)) == event


def test_old_registrations_have_messages_of_their_own() -> None:
    assert message_of(Subject.DOMAIN, "lifecycle", legacy=True) == "domain_event_lifecycle"
    assert message_of(Subject.DOMAIN, "lifecycle") == "domain_event_callback_lifecycle"
