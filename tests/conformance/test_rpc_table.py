"""The procedure table, judged by the installed libvirt: its XDR routines, and the tables of its daemon."""

from __future__ import annotations

import ctypes
import random

import pytest

from hostel.codec.xdr import Codec, Types, split_type
from hostel.daemon.access import api_name
from hostel.wire.rpc.procedure import Program
from hostel.wire.rpc.programs import LXC, PROGRAMS, QEMU, REMOTE
from hostel.wire.rpc.table.types import TYPES
from support.libvirt_xdr import DAEMON, LIBRARY, LibvirtXdr, daemon_table

pytestmark = pytest.mark.requires_tool("libvirtd")

FIRST = {
    "remote": "remote_connect_open_args",
    "qemu": "qemu_domain_monitor_command_args",
    "lxc": "lxc_domain_open_namespace_args",
}
# What our names leave out: numbers of libvirt that no procedure has.
COUNTS = {"remote": 443, "qemu": 7, "lxc": 1}
_RANGES = {
    "i8": (-128, 127), "u8": (0, 255), "i16": (-(2**15), 2**15 - 1), "u16": (0, 2**16 - 1),
    "i32": (-(2**31), 2**31 - 1), "u32": (0, 2**32 - 1), "i64": (-(2**63), 2**63 - 1), "u64": (0, 2**64 - 1),
}  # fmt: skip


def made_up(types: Types, kind: str, chance: random.Random) -> object:
    """A random value of a type."""
    item, mark, bound = split_type(kind)
    if mark == "?":
        return None if chance.random() < 0.3 else made_up(types, item, chance)
    if item in ("bytes", "chars"):
        return chance.randbytes(bound if mark == "[" else chance.randint(0, min(bound, 9)))
    if mark:
        return [made_up(types, item, chance) for _ in range(bound if mark == "[" else chance.randint(0, min(bound, 4)))]
    if kind in _RANGES:
        return chance.choice([*_RANGES[kind], 0, 1, chance.randint(*_RANGES[kind])])
    if kind == "f64":
        return chance.uniform(-1e9, 1e9)
    if kind == "str":
        return "".join(chance.choice("ab/é\u2028") for _ in range(chance.randint(0, 9)))
    if kind == "uuid":
        return chance.randbytes(16)
    if kind == "typed_value":
        number, of = chance.choice([(1, "i32"), (2, "u32"), (3, "i64"), (4, "u64"), (5, "f64"), (6, "i32"), (7, "str")])
        return number, made_up(types, of, chance)
    return tuple(made_up(types, field.type, chance) for field in types.fields(kind))


def bodies(program: Program) -> list[tuple[str, Codec]]:
    """Every body that a program's messages have, by libvirt's name."""
    found = []
    for procedure in program.by_number.values():
        if procedure.event:
            found.append((f"{program.name}_{procedure.name}_msg", procedure.arguments))
        else:
            found.append((f"{program.name}_{procedure.name}_args", procedure.arguments))
            found.append((f"{program.name}_{procedure.name}_ret", procedure.result))
    return found


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=lambda program: program.name)
def test_libvirt_reads_and_writes_every_body_as_we_do(program: Program) -> None:
    libvirt = LibvirtXdr()
    for name, codec in bodies(program):
        if not codec.fields:
            assert not libvirt.knows(name), f"libvirt's {name} is not empty"
            continue
        chance = random.Random(name)
        for _ in range(20):
            values = tuple(made_up(TYPES, field.type, chance) for field in codec.fields)
            data = codec.pack(values)
            assert codec.unpack(data) == values, name
            assert libvirt.there_and_back(name, data) == data, name


def test_libvirt_reads_and_writes_the_error_as_we_do() -> None:
    codec = TYPES.codec(TYPES.fields("error"))
    chance = random.Random(1)
    libvirt = LibvirtXdr()
    for _ in range(100):
        data = codec.pack(tuple(made_up(TYPES, field.type, chance) for field in codec.fields))
        assert libvirt.there_and_back("remote_error", data) == data


@pytest.mark.skipif(not DAEMON.exists(), reason="needs libvirtd (package libvirt-daemon)")
@pytest.mark.parametrize("program", [REMOTE, QEMU, LXC], ids=lambda program: program.name)
def test_number_name_and_priority_are_those_of_the_daemon(program: Program) -> None:
    table = daemon_table(program.name, FIRST[program.name])
    assert len(table) > COUNTS[program.name] * 0.75
    for number, entry in table.items():
        ours = program.by_number[number]
        assert entry.arguments == (f"{program.name}_{ours.name}_args" if ours.arguments.fields else "")
        assert entry.result == (f"{program.name}_{ours.name}_ret" if ours.result.fields else "")
        assert entry.high == ours.high, ours.name


def test_name_in_errors_is_that_of_a_function_of_libvirt() -> None:
    library = ctypes.CDLL(LIBRARY)
    for procedure in REMOTE.by_number.values():
        # Logging in is nobody's call but the library's own.
        if not procedure.event and not procedure.name.startswith("auth_"):
            assert hasattr(library, api_name(procedure.name)), procedure.name


def test_name_of_a_procedure_of_qemus_own_program_is_that_of_its_library() -> None:
    library = ctypes.CDLL("libvirt-qemu.so.0")
    for procedure in QEMU.by_number.values():
        if not procedure.event:
            assert hasattr(library, api_name(procedure.name)), procedure.name


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=lambda program: program.name)
def test_no_number_is_left_out(program: Program) -> None:
    assert sorted(program.by_number) == list(range(1, COUNTS[program.name] + 1))
    assert len(program.by_name) == COUNTS[program.name]
