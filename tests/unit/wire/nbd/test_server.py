"""The server's handshake machine: bytes of a client in, events and answers out."""

from __future__ import annotations

import struct

import pytest

from hostel.errors import LocalProtocolError, RemoteProtocolError
from hostel.wire.nbd import protocol, server
from hostel.wire.nbd.protocol import Answer, ExportFlag, Info, Offer, Option
from hostel.wire.nbd.server import Aborted, Chosen, ServerHandshake, StartTls, State
from support.nbd import FLAGS, go, option, queries, text

DISK = Offer(
    "disk",
    1 << 30,
    ExportFlag.HAS_FLAGS | ExportFlag.SEND_FLUSH,
    "my disk",
    contexts=("base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:b0", "qemu:dirty-bitmap:b1"),
)
OTHER = Offer("other", 512, ExportFlag.HAS_FLAGS | ExportFlag.READ_ONLY, minimum=512)


def machine(*, tls: bool = False, flags: bytes = FLAGS) -> ServerHandshake:
    made = ServerHandshake(lambda: [DISK, OTHER], tls=tls)
    assert made.outgoing() == [protocol.GREETING.pack(protocol.GREETING_MAGIC, protocol.OPTION_MAGIC, 3)]
    assert made.receive(flags) == []
    return made


def ask(made: ServerHandshake, number: int, data: bytes = b"") -> list[tuple[int, bytes]]:
    made.receive(option(number, data))
    answers = []
    for sent in made.outgoing():
        magic, answered, kind, length = protocol.OPTION_REPLY.unpack_from(sent)
        assert (magic, answered, length) == (protocol.OPTION_REPLY_MAGIC, number, len(sent) - 20)
        answers.append((kind, sent[20:]))
    return answers


def test_go_tells_size_flags_blocks_and_description() -> None:
    made = machine()
    made.receive(option(Option.GO, go("disk", Info.NAME, Info.BLOCK_SIZE, 77)))
    sent = b"".join(made.outgoing())
    assert struct.pack(">H", Info.NAME) + b"disk" in sent
    assert struct.pack(">H", Info.DESCRIPTION) + b"my disk" in sent
    assert struct.pack(">HIII", Info.BLOCK_SIZE, 1, 4096, 32 << 20) in sent
    assert struct.pack(">HQH", Info.EXPORT, 1 << 30, 5) in sent
    assert made.state is State.TRANSMISSION


def test_go_ends_with_the_export_that_was_chosen() -> None:
    made = machine()
    events = made.receive(option(Option.GO, go("disk")) + b"requests")
    assert events == [Chosen(DISK, False, False, ())]
    assert made.rest() == b"requests"


def test_info_tells_the_same_and_goes_on() -> None:
    made = machine()
    assert ask(made, Option.INFO, go("disk", Info.BLOCK_SIZE))[-1] == (Answer.ACK, b"")
    assert made.state is State.OPTIONS
    assert ask(made, Option.INFO, go("other"))[-1][0] == Answer.ERR_BLOCK_SIZE_REQD


def test_go_serves_a_client_that_knows_no_block_sizes() -> None:
    made = machine()
    made.receive(option(Option.GO, go("other")))
    assert struct.pack(">HIII", Info.BLOCK_SIZE, 1, 4096, 32 << 20) in b"".join(made.outgoing())
    assert made.state is State.TRANSMISSION


@pytest.mark.parametrize("zeroes", [True, False])
def test_export_name_is_answered_without_a_header(zeroes: bool) -> None:
    made = machine(flags=struct.pack(">I", 1 if zeroes else 3))
    (event,) = made.receive(option(Option.EXPORT_NAME, b"disk"))
    assert event == Chosen(DISK, False, False, ())
    assert b"".join(made.outgoing()) == struct.pack(">QH", 1 << 30, 5) + bytes(124 if zeroes else 0)


def test_export_name_of_nothing_ends_the_connection() -> None:
    with pytest.raises(RemoteProtocolError, match="export not found"):
        machine().receive(option(Option.EXPORT_NAME, b"nothing"))


def test_unknown_export_is_refused_with_its_name() -> None:
    made = machine()
    assert ask(made, Option.GO, go("nothing")) == [(Answer.ERR_UNKNOWN, b"export 'nothing' not present")]
    assert ask(made, Option.GO, go("x" * 4000)) == [(Answer.ERR_UNKNOWN, b"export '" + b"x" * 80 + b"...' not present")]
    assert made.state is State.OPTIONS


def test_list_names_all_exports() -> None:
    assert ask(machine(), Option.LIST) == [
        (Answer.SERVER, text("disk") + b"my disk"),
        (Answer.SERVER, text("other")),
        (Answer.ACK, b""),
    ]


def test_abort_is_acknowledged() -> None:
    made = machine()
    assert made.receive(option(Option.ABORT)) == [Aborted()]
    assert made.state is State.CLOSED
    assert made.outgoing()


def test_structured_replies_are_negotiated_once_and_allow_df() -> None:
    made = machine()
    assert ask(made, Option.STRUCTURED_REPLY) == [(Answer.ACK, b"")]
    assert ask(made, Option.STRUCTURED_REPLY)[0][0] == Answer.ERR_INVALID
    (event,) = made.receive(option(Option.GO, go("disk")))
    assert event == Chosen(DISK, True, False, ())
    assert struct.pack(">HQH", Info.EXPORT, 1 << 30, 5 | ExportFlag.SEND_DF) in b"".join(made.outgoing())


def test_extended_headers_bring_structured_replies() -> None:
    made = machine()
    assert ask(made, Option.EXTENDED_HEADERS) == [(Answer.ACK, b"")]
    assert ask(made, Option.EXTENDED_HEADERS)[0][0] == Answer.ERR_INVALID
    assert ask(made, Option.STRUCTURED_REPLY)[0][0] == Answer.ERR_INVALID
    assert made.receive(option(Option.GO, go("disk"))) == [Chosen(DISK, True, True, ())]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ((), DISK.contexts),
        (("base:",), DISK.contexts[:1]),
        (("qemu:",), DISK.contexts[1:]),
        (("qemu:dirty-bitmap:",), DISK.contexts[2:]),
        (("qemu:dirty-bitmap:b1", "base:allocation"), (DISK.contexts[0], DISK.contexts[3])),
        (("nobody:knows", "base", "qemu:dirty-bitmap", ""), ()),
        (("x" * 5000, "base:allocation"), DISK.contexts[:1]),
    ],
)
def test_contexts_are_listed_by_name_and_namespace(wanted: tuple[str, ...], found: tuple[str, ...]) -> None:
    answers = ask(machine(), Option.LIST_META_CONTEXT, queries("disk", *wanted))
    assert [data[4:].decode() for kind, data in answers if kind == Answer.META_CONTEXT] == list(found)
    assert answers[-1] == (Answer.ACK, b"")


def test_contexts_are_set_by_their_whole_names_only() -> None:
    made = machine()
    ask(made, Option.STRUCTURED_REPLY)
    wanted = queries("disk", "qemu:", "qemu:dirty-bitmap:b1", "base:allocation")
    answers = ask(made, Option.SET_META_CONTEXT, wanted)
    assert answers[:-1] == [
        (Answer.META_CONTEXT, struct.pack(">I", 0) + b"base:allocation"),
        (Answer.META_CONTEXT, struct.pack(">I", 3) + b"qemu:dirty-bitmap:b1"),
    ]
    assert made.receive(option(Option.GO, go("disk"))) == [Chosen(DISK, True, False, (0, 3))]


def test_contexts_need_structured_replies() -> None:
    made = machine()
    assert ask(made, Option.SET_META_CONTEXT, queries("disk", "base:allocation"))[0][0] == Answer.ERR_INVALID


def test_contexts_that_were_set_for_another_export_do_not_count() -> None:
    made = machine()
    ask(made, Option.STRUCTURED_REPLY)
    ask(made, Option.SET_META_CONTEXT, queries("disk", "base:allocation"))
    assert made.receive(option(Option.GO, go("other"))) == [Chosen(OTHER, True, False, ())]


def test_a_second_set_of_contexts_replaces_the_first_even_when_it_fails() -> None:
    made = machine()
    ask(made, Option.STRUCTURED_REPLY)
    ask(made, Option.SET_META_CONTEXT, queries("disk", "base:allocation"))
    assert ask(made, Option.SET_META_CONTEXT, b"\0\0")[0][0] == Answer.ERR_INVALID
    assert made.receive(option(Option.GO, go("disk"))) == [Chosen(DISK, True, False, ())]


@pytest.mark.parametrize(
    ("number", "data", "message"),
    [
        (Option.LIST, b"x", "option 'list' has unexpected length"),
        (Option.STRUCTURED_REPLY, b"x", "option 'structured reply' has unexpected length"),
        (Option.STARTTLS, b"", "TLS not configured"),
        (Option.GO, b"", "Inconsistent lengths in option go"),
        (Option.GO, struct.pack(">I", 5) + b"disk", "Inconsistent lengths in option go"),
        (Option.GO, struct.pack(">I", 5000) + bytes(5002), "Invalid name length: 5000"),
        (Option.GO, go("disk") + b"x", "option 'go' has unexpected length"),
        (Option.GO, text("di\0sk") + bytes(2), "Unexpected embedded NUL in option go"),
        (Option.INFO, text("disk") + struct.pack(">H", 3) + bytes(4), "Inconsistent lengths in option info"),
        (
            Option.LIST_META_CONTEXT,
            text("disk") + b"\xff\xff\xff\xff",
            "Inconsistent lengths in option list meta context",
        ),
        (99, b"whatever", "Unsupported option 99 (<unknown>)"),
        (Option.GO, bytes(protocol.MAX_OPTION_KEPT + 1), f"{protocol.MAX_OPTION_KEPT + 1} bytes of data are too many"),
    ],
)
def test_a_wrong_option_is_refused_and_the_client_may_go_on(number: int, data: bytes, message: str) -> None:
    made = machine()
    ((kind, said),) = ask(made, number, data)
    assert kind & protocol.ANSWER_IS_ERROR
    assert said.decode() == message
    assert ask(made, Option.LIST)[-1] == (Answer.ACK, b"")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xff\xff\xff", "Unknown client flags 0xfffffffc received"),
        (FLAGS + b"GET / HTTP/1.1\r\n", "Bad magic received"),
        (FLAGS + struct.pack(">QII", protocol.OPTION_MAGIC, 7, 33 << 20), "is larger than max len"),
        (FLAGS + option(Option.EXPORT_NAME, bytes(4097)), "Bad length received"),
        (bytes(4) + option(Option.LIST), "Unsupported option 3"),
    ],
)
def test_a_broken_client_is_dropped(data: bytes, message: str) -> None:
    with pytest.raises(RemoteProtocolError, match=message):
        ServerHandshake(lambda: [DISK]).receive(data)


def test_a_client_that_only_knows_plain_newstyle_may_use_export_name() -> None:
    made = machine(flags=bytes(4))
    assert made.receive(option(Option.EXPORT_NAME, b"disk")) == [Chosen(DISK, False, False, ())]


def test_a_client_that_asks_without_end_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_OPTIONS", 10)
    with pytest.raises(RemoteProtocolError, match="more than 10 options"):
        machine().receive(option(Option.LIST) * 11)


# ---- TLS


def test_nothing_is_told_before_tls() -> None:
    made = machine(tls=True)
    for number, data in ((Option.LIST, b""), (Option.GO, go("disk")), (Option.STRUCTURED_REPLY, b"")):
        ((kind, said),) = ask(made, number, data)
        assert kind == Answer.ERR_TLS_REQD
        assert said.decode() == f"Option 0x{number:x} not permitted before TLS"
    with pytest.raises(RemoteProtocolError, match="Option 0x1 not permitted before TLS"):
        made.receive(option(Option.EXPORT_NAME, b"disk"))


def test_tls_starts_when_it_is_asked_for() -> None:
    made = machine(tls=True)
    assert made.receive(option(Option.STARTTLS)) == [StartTls()]
    assert made.state is State.TLS
    made.outgoing()
    made.started_tls()
    assert ask(made, Option.STARTTLS) == [(Answer.ERR_INVALID, b"TLS already enabled")]
    assert made.receive(option(Option.GO, go("disk"))) == [Chosen(DISK, False, False, ())]


def test_what_was_asked_for_in_plain_text_does_not_count_inside_tls() -> None:
    # CVE-2021-3716: a server kept it, and answered otherwise than its client understood.
    made = machine(tls=True)
    ask(made, Option.STRUCTURED_REPLY)
    made.receive(option(Option.STARTTLS))
    made.started_tls()
    assert made.receive(option(Option.GO, go("disk"))) == [Chosen(DISK, False, False, ())]


def test_starttls_with_data_ends_the_connection() -> None:
    made = machine(tls=True)
    with pytest.raises(RemoteProtocolError, match="unexpected length"):
        made.receive(option(Option.STARTTLS, b"x"))
    assert made.outgoing()


def test_plain_text_behind_starttls_is_not_taken_for_what_came_inside_tls() -> None:
    made = machine(tls=True)
    with pytest.raises(RemoteProtocolError, match="Plain text follows"):
        made.receive(option(Option.STARTTLS) + option(Option.GO, go("disk")))


def test_plain_text_in_place_of_tls_is_refused() -> None:
    made = machine(tls=True)
    made.receive(option(Option.STARTTLS))
    with pytest.raises(RemoteProtocolError, match="Plain text follows"):
        made.receive(option(Option.LIST))


def test_tls_that_was_not_asked_for_is_our_mistake() -> None:
    with pytest.raises(LocalProtocolError):
        machine(tls=True).started_tls()


def test_abort_before_tls_is_acknowledged() -> None:
    made = machine(tls=True)
    assert made.receive(option(Option.ABORT)) == [Aborted()]
