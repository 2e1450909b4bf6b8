"""NBD machines under anything that can arrive: the same events for any portions, bounded memory, no odd errors."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hostel.block import graph
from hostel.block.extent import Status
from hostel.block.node import BlockNode
from hostel.errors import RemoteProtocolError
from hostel.export.nbd.export import NbdExport
from hostel.wire.nbd import protocol
from hostel.wire.nbd.client import ClientHandshake, Connected
from hostel.wire.nbd.client import StartTls as ClientStartTls
from hostel.wire.nbd.protocol import Answer, Command, ExportFlag, Info, Offer, Option
from hostel.wire.nbd.reply import ReplyReader
from hostel.wire.nbd.request import ReplyFormat, RequestReader
from hostel.wire.nbd.server import ServerHandshake, StartTls
from support.nbd import FLAGS, MIB, answer, go, option, queries, request, serving, text

MEMORY = 8 * MIB  # bytes that a machine may take at most while it is fed a small stream

OFFERS = [
    Offer("", 1 << 20, ExportFlag.HAS_FLAGS, "first", contexts=("base:allocation", "qemu:allocation-depth")),
    Offer("disk", 1 << 30, ExportFlag.HAS_FLAGS | ExportFlag.READ_ONLY, minimum=512),
]
names = st.sampled_from(["", "disk", "other", "x" * 4096])
numbers = st.one_of(st.sampled_from(list(Option)), st.integers(0, 2**32 - 1))
garbage = st.binary(max_size=60)

valid_options = st.one_of(
    st.builds(
        option, st.sampled_from([Option.LIST, Option.STRUCTURED_REPLY, Option.EXTENDED_HEADERS, Option.STARTTLS])
    ),
    st.builds(
        lambda number, name, asked: option(number, go(name, *asked)),
        st.sampled_from([Option.GO, Option.INFO]),
        names,
        st.lists(st.integers(0, 5), max_size=4),
    ),
    st.builds(
        lambda number, name, asked: option(number, queries(name, *asked)),
        st.sampled_from([Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT]),
        names,
        st.lists(st.sampled_from(["base:", "base:allocation", "qemu:", "x" * 5000]), max_size=3),
    ),
    st.builds(option, numbers, garbage),
)
client_streams = st.builds(
    lambda flags, options, rest: flags + b"".join(options) + rest,
    st.sampled_from([FLAGS, bytes(4), b"\0\0\0\1"]),
    st.lists(valid_options, max_size=8),
    garbage,
)
answers = st.one_of(
    st.builds(answer, st.sampled_from(list(Option)), st.sampled_from(list(Answer)), garbage),
    st.builds(
        lambda number, size, flags: answer(number, Answer.INFO, struct.pack(">HQH", Info.EXPORT, size, flags)),
        st.sampled_from([Option.GO, Option.INFO]),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**16 - 1),
    ),
    st.builds(lambda name: answer(Option.LIST, Answer.SERVER, text(name)), names),
    st.builds(
        lambda number: answer(
            Option.SET_META_CONTEXT, Answer.META_CONTEXT, struct.pack(">I", number) + b"base:allocation"
        ),
        st.integers(0, 2**32 - 1),
    ),
)
server_streams = st.builds(
    lambda flags, found, rest: (
        protocol.GREETING.pack(protocol.GREETING_MAGIC, protocol.OPTION_MAGIC, flags) + b"".join(found) + rest
    ),
    st.integers(0, 7),
    st.lists(answers, max_size=10),
    garbage,
)
requests = st.builds(
    lambda kind, flags, offset, length, payload: (
        request(kind, offset, len(payload) if kind == Command.WRITE else length, flags=flags, payload=payload)
        if kind == Command.WRITE
        else request(kind, offset, length, flags=flags)
    ),
    st.integers(0, 9),
    st.integers(0, 63),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=2000),
)
SIMPLE, STRUCTURED = ReplyFormat(), ReplyFormat(structured=True)
small = st.integers(0, 300)
chunks = st.one_of(
    st.builds(
        lambda at, data: STRUCTURED.chunk(protocol.Chunk.OFFSET_DATA, 1, 0, struct.pack(">Q", at) + data),
        small,
        garbage,
    ),
    st.builds(lambda at, length, last: STRUCTURED.hole(1, 0, at, length, last=last), small, small, st.booleans()),
    st.builds(
        lambda context, extents, last: STRUCTURED.status(2, 0, context, extents, last=last),
        st.integers(0, 2),
        st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), max_size=4),
        st.booleans(),
    ),
    st.builds(lambda cookie, code: STRUCTURED.error(cookie, 0, code, "why"), st.integers(0, 3), st.integers(0, 200)),
    st.builds(lambda cookie: SIMPLE.done(cookie, 0), st.integers(0, 3)),
    garbage,
)


def cut(data: st.DataObject, stream: bytes) -> Iterator[bytes]:
    """A stream in portions of all lengths."""
    start = 0
    while start < len(stream):
        length = data.draw(st.integers(1, max(1, min(len(stream) - start, 5000))))
        yield stream[start : start + length]
        start += length


def run_server(stream: Iterator[bytes], *, tls: bool) -> tuple[object, ...]:
    machine = ServerHandshake(lambda: OFFERS, tls=tls)
    events: list[object] = []
    sent = b""
    try:
        for part in stream:
            for event in machine.receive(part):
                events.append(event)
                if isinstance(event, StartTls):
                    machine.started_tls()
            sent += b"".join(machine.outgoing())
        machine.receive_eof()
    except RemoteProtocolError as error:
        return events, sent + b"".join(machine.outgoing()), str(error)
    return events, sent + b"".join(machine.outgoing()), machine.state, machine.rest()


def run_client(stream: Iterator[bytes], *, listing: bool, tls: bool) -> tuple[object, ...]:
    machine = ClientHandshake("disk", listing=listing, tls=tls, extended=True)
    events: list[object] = []
    try:
        for part in stream:
            for event in machine.receive(part):
                events.append(event)
                if isinstance(event, ClientStartTls):
                    machine.started_tls()
        machine.receive_eof()
    except RemoteProtocolError as error:
        return events, b"".join(machine.outgoing()), str(error)
    return events, b"".join(machine.outgoing()), machine.state, machine.rest()


@given(client_streams, st.data())
def test_the_server_understands_a_client_in_any_portions(stream: bytes, data: st.DataObject) -> None:
    assert run_server(cut(data, stream), tls=False) == run_server(iter([stream]), tls=False)


@given(server_streams, st.booleans(), st.data())
def test_the_client_understands_a_server_in_any_portions(stream: bytes, listing: bool, data: st.DataObject) -> None:
    whole = run_client(iter([stream]), listing=listing, tls=False)
    assert run_client(cut(data, stream), listing=listing, tls=False) == whole
    for event in whole[0]:  # type: ignore[attr-defined]
        if isinstance(event, Connected):
            assert 0 <= event.export.size < 2**63


@given(client_streams)
def test_before_tls_a_client_is_told_nothing(stream: bytes) -> None:
    machine = ServerHandshake(lambda: OFFERS, tls=True)
    events: list[object] = []
    with contextlib.suppress(RemoteProtocolError):
        events = list(machine.receive(stream))
    sent = b"".join(machine.outgoing())
    assert all(type(event).__name__ in ("StartTls", "Aborted") for event in events)
    assert b"first" not in sent
    assert b"base:allocation" not in sent


@given(server_streams)
def test_without_tls_a_client_that_wants_it_asks_for_nothing_else(stream: bytes) -> None:
    machine = ClientHandshake("disk", tls=True)
    with contextlib.suppress(RemoteProtocolError):
        machine.receive(stream)
    sent = b"".join(machine.outgoing())[4:]
    assert sent in (b"", option(Option.STARTTLS), option(Option.ABORT), option(Option.STARTTLS) + option(Option.ABORT))


@given(st.lists(requests, max_size=12), garbage, st.data())
def test_requests_are_the_same_in_any_portions(found: list[bytes], rest: bytes, data: st.DataObject) -> None:
    stream = b"".join(found) + rest

    def run(parts: Iterator[bytes]) -> tuple[object, ...]:
        reader = RequestReader(maximum=4096)
        taken: list[object] = []
        try:
            for part in parts:
                taken += [(*one[:5], bytes(one[5])) for one in reader.receive(part)]
        except RemoteProtocolError as error:
            return taken, str(error)
        return (taken,)

    pieces, whole = run(cut(data, stream)), run(iter([stream]))
    # Whatever comes with a broken request in one portion is lost with it.
    assert pieces == whole or (pieces[1:] == whole[1:] and pieces[0][: len(whole[0])] == whole[0])  # type: ignore[index,arg-type]


@given(st.lists(chunks, max_size=10), st.data())
def test_replies_are_the_same_in_any_portions_and_stay_in_their_buffers(
    found: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(found)

    def run(parts: Iterator[bytes]) -> tuple[object, ...]:
        target = bytearray(b"?" * 300)
        reader = ReplyReader(structured=True, contexts=(1,))
        reader.expect(1, Command.READ, 100, 100, memoryview(target)[100:200])
        reader.expect(2, Command.BLOCK_STATUS, 0, 1000)
        reader.expect(3, Command.FLUSH, 0, 0)
        taken: list[object] = []
        error = ""
        try:
            for part in parts:
                taken += reader.receive(part)
        except RemoteProtocolError as caught:
            error = str(caught)
        assert target[:100] == target[200:] == b"?" * 100
        for reply in taken:
            for extents in reply.extents.values():  # type: ignore[attr-defined]
                assert sum(length for length, _ in extents) <= 1000
        return taken, error

    pieces, whole = run(cut(data, stream)), run(iter([stream]))
    assert pieces == whole or (pieces[1] == whole[1] and whole[1])


@settings(max_examples=60)
@given(st.one_of(client_streams, st.binary(max_size=400)), st.one_of(server_streams, st.binary(max_size=400)))
def test_no_stream_takes_more_memory_than_it_has_bytes_for(client: bytes, server: bytes) -> None:
    tracemalloc.start()
    try:
        run_server(iter([client]), tls=False)
        run_client(iter([server]), listing=True, tls=False)
        reader = ReplyReader(structured=True)
        target = bytearray(100)
        reader.expect(1, Command.READ, 0, 100, memoryview(target))
        for machine in (RequestReader(), reader):
            try:
                machine.receive(server)
            except RemoteProtocolError:
                continue
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


class Disk(RuleBasedStateMachine):
    """Two clients of ours on one server of ours, against an array of bytes."""

    folder: Path
    size = MIB
    offsets = st.integers(0, MIB - 1)
    lengths = st.one_of(st.integers(1, 5000), st.integers(1, 400_000))

    @initialize(format=st.sampled_from(["raw", "qcow2"]))
    def start(self, format: str) -> None:
        from hostel.img import create

        path = str(self.folder / "disk")
        create.create(create.plan(path, format, self.size))
        self.node = graph.open(path, format, read_only=False)
        self.context = serving(self.folder, NbdExport(self.node, shared=True))
        server = self.context.__enter__()
        self.clients: list[BlockNode] = [graph.open(server.uri, "raw", read_only=False) for _ in range(2)]
        self.expected = bytearray(self.size)

    @rule(which=st.integers(0, 1), offset=offsets, length=lengths, seed=st.integers(0, 255))
    def write(self, which: int, offset: int, length: int, seed: int) -> None:
        length = min(length, self.size - offset)
        data = bytes([seed]) * length
        self.clients[which].pwrite(offset, data)
        self.expected[offset : offset + length] = data

    @rule(which=st.integers(0, 1), offset=offsets, length=lengths, unmap=st.booleans())
    def zero(self, which: int, offset: int, length: int, unmap: bool) -> None:
        length = min(length, self.size - offset)
        self.clients[which].write_zeroes(offset, length, unmap=unmap)
        self.expected[offset : offset + length] = bytes(length)

    @rule(which=st.integers(0, 1), offset=offsets, length=lengths)
    def read(self, which: int, offset: int, length: int) -> None:
        length = min(length, self.size - offset)
        assert self.clients[which].read(offset, length) == self.expected[offset : offset + length]

    @rule(which=st.integers(0, 1))
    def flush(self, which: int) -> None:
        self.clients[which].flush()

    @invariant()
    def what_is_said_to_be_zero_is(self) -> None:
        if not hasattr(self, "clients"):
            return
        position = 0
        for extent in self.clients[0].extents():
            assert extent.offset == position
            position = extent.end
            if extent.status & Status.ZERO:
                assert not any(self.expected[extent.offset : extent.end])
        assert position == self.size

    def teardown(self) -> None:
        if hasattr(self, "clients"):
            for client in self.clients:
                client.close()
            self.context.__exit__(None, None, None)
            self.node.close()


@pytest.mark.parametrize("steps", [12])
def test_clients_see_what_was_written(tmp_path: Path, steps: int) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    Disk.folder = tmp_path
    run_state_machine_as_test(
        Disk,
        settings=settings(
            max_examples=25, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
