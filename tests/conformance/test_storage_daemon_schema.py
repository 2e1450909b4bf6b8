"""What the storage daemon says of its commands, beside what QEMU's says of the same ones."""

from __future__ import annotations

from typing import Any

import pytest

from support.daemon import OURS, THEIRS, daemon

pytestmark = [pytest.mark.requires_tool("qemu-storage-daemon")]
# What is left out, in docs/compatibility/qemu-storage-daemon.md.
LEFT_OUT: set[str] = set()
EVENTS_LEFT_OUT = {"BLOCK_IO_ERROR", "VSERPORT_CHANGE"}
CASES_LEFT_OUT = {"block-export-add": {"vduse-blk"}, "blockdev-add": {"blkreplay", "host_cdrom", "nvme", "replication"}}

LATER = {"qcow2": {"discard-no-unref": True}}  # options of later releases

Entities = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> tuple[Entities, Entities]:
    """QEMU's and ours, by the names of the entities."""
    folder = tmp_path_factory.mktemp("schema")
    found: list[Entities] = []
    for tool in (THEIRS, OURS):
        with daemon(folder, tool=tool) as running:
            entities = running.monitor.command("query-qmp-schema")
            assert len({each["name"] for each in entities}) == len(entities)
            found.append({each["name"]: each for each in entities})
            commands = {each["name"] for each in running.monitor.command("query-commands")}
            assert {name for name, each in found[-1].items() if each["meta-type"] == "command"} == commands
    return found[0], found[1]


def members(schema: Entities, name: str) -> dict[str, bool]:
    """The members of a type, and whether they may be left out."""
    return {each["name"]: "default" in each for each in schema[name]["members"]}


def test_all_commands_of_qemu_are_there_and_take_what_they_take(schemas: tuple[Entities, Entities]) -> None:
    real, ours = schemas
    commands = [name for name, each in real.items() if each["meta-type"] == "command"]
    assert [name for name in commands if name not in ours] == []
    for name in commands:
        taken, known = (members(schema, schema[name]["arg-type"]) for schema in schemas)
        assert {key: value for key, value in taken.items() if known.get(key) != value and key not in LEFT_OUT} == {}
        assert [key for key, optional in known.items() if key not in taken and not optional] == []
    for name in ("block-export-add", "blockdev-add"):
        cases = [{each["case"] for each in schema[schema[name]["arg-type"]]["variants"]} for schema in schemas]
        assert cases[0] - cases[1] == CASES_LEFT_OUT[name]
    events = {name for name, each in real.items() if each["meta-type"] == "event"}
    assert events - ours.keys() == EVENTS_LEFT_OUT
    for name in events & ours.keys():
        assert members(real, real[name]["arg-type"]) == members(ours, ours[name]["arg-type"])


def test_every_type_that_is_named_is_there(schemas: tuple[Entities, Entities]) -> None:
    _, ours = schemas
    for entity in ours.values():
        named = [entity[key] for key in ("arg-type", "ret-type", "element-type") if key in entity]
        named += [each["type"] for key in ("members", "variants") for each in entity.get(key, ()) if "type" in each]
        assert [name for name in named if name not in ours] == []


def test_formats_take_the_options_of_qemu(schemas: tuple[Entities, Entities]) -> None:
    for name in ("qcow2", "raw", "vmdk", "vdi", "qed", "throttle", "quorum", "blkverify", "compress", "preallocate"):
        taken = []
        for schema in schemas:
            variants = {each["case"]: each["type"] for each in schema[schema["blockdev-add"]["arg-type"]]["variants"]}
            taken.append(members(schema, variants[name]))
        assert taken[1] == taken[0] | LATER.get(name, {}), name
