"""The client's handshake machine: bytes of a server in, events and options out."""

from __future__ import annotations

import struct

import pytest

from hostel.errors import LocalProtocolError, RemoteProtocolError
from hostel.wire.nbd import client, protocol
from hostel.wire.nbd.client import ClientHandshake, Connected, Export, Listed, OptionRefused, StartTls, State
from hostel.wire.nbd.protocol import Answer, ExportFlag, HandshakeFlag, Info, Option
from support.nbd import FLAGS, answer, go, option, queries, text

GREETING = protocol.GREETING.pack(protocol.GREETING_MAGIC, protocol.OPTION_MAGIC, 3)
UNSUPPORTED = {
    number: answer(number, Answer.ERR_UNSUP) for number in (Option.EXTENDED_HEADERS, Option.STRUCTURED_REPLY, Option.GO)
}
STRUCTURED = answer(Option.STRUCTURED_REPLY, Answer.ACK)


def info(size: int = 1 << 30, flags: int = 1, *, number: int = Option.GO) -> bytes:
    data = struct.pack(">HQH", Info.EXPORT, size, flags)
    return answer(number, Answer.INFO, data) + answer(number, Answer.ACK)


def sizes(minimum: int, preferred: int, maximum: int, *, number: int = Option.GO) -> bytes:
    return answer(number, Answer.INFO, struct.pack(">HIII", Info.BLOCK_SIZE, minimum, preferred, maximum))


def run(made: ClientHandshake, *parts: bytes) -> list[object]:
    return [event for part in (GREETING, *parts) for event in made.receive(part)]


def plain(name: str = "", *, tls: bool = False) -> ClientHandshake:
    return ClientHandshake(name, structured=False, tls=tls)


def test_go_tells_all_that_a_client_needs() -> None:
    made = ClientHandshake("disk")
    contexts = answer(Option.SET_META_CONTEXT, Answer.META_CONTEXT, struct.pack(">I", 9) + b"base:allocation")
    contexts += answer(Option.SET_META_CONTEXT, Answer.ACK)
    events = run(made, STRUCTURED, contexts, sizes(512, 4096, 1 << 25) + info(flags=0x3FF))
    export = Export("disk", 1 << 30, 0x3FF, None, 512, 4096, 1 << 25, ((9, "base:allocation"),))
    assert events == [Connected(export, True, False)]
    assert b"".join(made.outgoing()) == (
        FLAGS
        + option(Option.STRUCTURED_REPLY)
        + option(Option.SET_META_CONTEXT, queries("disk", "base:allocation"))
        + option(Option.GO, go("disk", Info.BLOCK_SIZE))
    )
    assert made.state is State.TRANSMISSION


def test_what_follows_the_handshake_is_kept() -> None:
    made = plain()
    run(made, info() + b"replies")
    assert made.rest() == b"replies"


def test_extended_headers_are_used_where_the_server_has_them() -> None:
    made = ClientHandshake(extended=True, contexts=())
    events = run(made, answer(Option.EXTENDED_HEADERS, Answer.ACK), info())
    assert events == [Connected(Export("", 1 << 30, 1), True, True)]


def test_structured_replies_stand_in_for_extended_headers() -> None:
    made = ClientHandshake(extended=True, contexts=())
    events = run(made, UNSUPPORTED[Option.EXTENDED_HEADERS], STRUCTURED, info())
    assert events == [Connected(Export("", 1 << 30, 1), True, False)]


def test_a_server_without_structured_replies_is_asked_for_no_contexts() -> None:
    events = run(ClientHandshake(), UNSUPPORTED[Option.STRUCTURED_REPLY], info())
    assert events == [Connected(Export("", 1 << 30, 1), False, False)]


def test_a_server_without_go_is_asked_by_export_name() -> None:
    made = plain("disk")
    listed = answer(Option.LIST, Answer.SERVER, text("disk")) + answer(Option.LIST, Answer.ACK)
    events = run(made, UNSUPPORTED[Option.GO], listed, struct.pack(">QH", 512, 1))
    assert events == [Connected(Export("disk", 512, 1), False, False)]
    assert made.outgoing()[-1] == option(Option.EXPORT_NAME, b"disk")


def test_a_missing_export_is_found_by_the_list_before_export_name() -> None:
    listed = answer(Option.LIST, Answer.SERVER, text("disk")) + answer(Option.LIST, Answer.ACK)
    with pytest.raises(RemoteProtocolError, match="No export with name 'other' available"):
        run(plain("other"), UNSUPPORTED[Option.GO], listed)


def test_export_name_may_come_with_zeroes() -> None:
    made = plain()
    greeting = protocol.GREETING.pack(protocol.GREETING_MAGIC, protocol.OPTION_MAGIC, HandshakeFlag.FIXED_NEWSTYLE)
    assert made.receive(greeting + UNSUPPORTED[Option.GO] + answer(Option.LIST, Answer.ACK)) == []
    assert made.receive(struct.pack(">QH", 512, 1) + bytes(123)) == []
    assert made.receive(bytes(1)) == [Connected(Export("", 512, 1), False, False)]


def test_a_plain_newstyle_server_is_asked_by_export_name_alone() -> None:
    made = ClientHandshake("disk")
    greeting = protocol.GREETING.pack(protocol.GREETING_MAGIC, protocol.OPTION_MAGIC, 0)
    made.receive(greeting)
    assert b"".join(made.outgoing()) == bytes(4) + option(Option.EXPORT_NAME, b"disk")


def test_an_oldstyle_server_has_one_export() -> None:
    greeting = struct.pack(">QQQI", protocol.GREETING_MAGIC, protocol.OLDSTYLE_MAGIC, 4096, 3) + bytes(124)
    assert ClientHandshake().receive(greeting) == [Connected(Export("", 4096, 3), False, False)]
    with pytest.raises(RemoteProtocolError, match="does not support non-empty export names"):
        ClientHandshake("disk").receive(greeting)


def test_all_exports_are_listed_with_what_can_be_known() -> None:
    made = ClientHandshake(listing=True)
    listed = answer(Option.LIST, Answer.SERVER, text("a") + b"first") + answer(Option.LIST, Answer.SERVER, text("b"))
    context = answer(Option.LIST_META_CONTEXT, Answer.META_CONTEXT, bytes(4) + b"qemu:allocation-depth")
    context += answer(Option.LIST_META_CONTEXT, Answer.ACK)
    about = info(512, number=Option.INFO)
    events = run(made, STRUCTURED, listed + answer(Option.LIST, Answer.ACK), about, context, about, context)
    contexts = ((0, "qemu:allocation-depth"),)
    first = Export("a", 512, 1, "first", contexts=contexts)
    assert events == [Listed((first, Export("b", 512, 1, contexts=contexts)))]
    assert made.outgoing()[-1] == option(Option.ABORT)


def test_a_server_without_info_lists_names() -> None:
    listed = answer(Option.LIST, Answer.SERVER, text("a")) + answer(Option.LIST, Answer.ACK)
    made = ClientHandshake(listing=True, structured=False)
    assert run(made, listed, answer(Option.INFO, Answer.ERR_UNSUP)) == [Listed((Export("a"),))]


def test_qemu_3_is_asked_again_for_its_own_contexts() -> None:
    made = ClientHandshake(listing=True)
    listed = answer(Option.LIST, Answer.SERVER, text("a")) + answer(Option.LIST, Answer.ACK)
    base = answer(Option.LIST_META_CONTEXT, Answer.META_CONTEXT, bytes(4) + b"base:allocation")
    own = answer(Option.LIST_META_CONTEXT, Answer.META_CONTEXT, bytes(4) + b"qemu:dirty-bitmap:b")
    end = answer(Option.LIST_META_CONTEXT, Answer.ACK)
    (event,) = run(made, STRUCTURED, listed, info(number=Option.INFO), base + end, own + end)
    assert isinstance(event, Listed)
    assert [name for _, name in event.exports[0].contexts] == ["base:allocation", "qemu:dirty-bitmap:b"]


# ---- refusals


@pytest.mark.parametrize(
    ("kind", "message", "hint"),
    [
        (Answer.ERR_POLICY, "Denied by server for option 7 (go)", "server reported: why"),
        (Answer.ERR_UNKNOWN, "Requested export not available", "server reported: why"),
        (
            Answer.ERR_TLS_REQD,
            "TLS negotiation required before option 7 (go)",
            "Did you forget a valid tls-creds?\nserver reported: why",
        ),
        (0x80000077, "Unknown error code when asking for option 7 (go)", "server reported: why"),
    ],
)
def test_refusal_is_told_in_words_and_with_what_the_server_says(kind: int, message: str, hint: str) -> None:
    made = plain()
    with pytest.raises(OptionRefused) as caught:
        run(made, answer(Option.GO, kind, b"why"))
    assert (str(caught.value), caught.value.hint) == (message, hint)
    assert made.outgoing()[-1] == option(Option.ABORT)


def test_what_a_server_says_does_not_move_the_cursor() -> None:
    with pytest.raises(OptionRefused) as caught:
        run(plain(), answer(Option.GO, Answer.ERR_POLICY, b"\x1b[2Jhello\xff\n"))
    assert caught.value.hint == "server reported: ?[2Jhello\N{REPLACEMENT CHARACTER}?"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([b"HTTP/1.1 400 Bad Request\r\n"], "Bad initial magic received: 0x485454502f312e31"),
        ([struct.pack(">QQ", protocol.GREETING_MAGIC, 7)], "Bad server magic received: 0x7"),
        ([GREETING, answer(Option.LIST, Answer.ACK)], r"Unexpected option type 3 \(list\), expected 7 \(go\)"),
        ([GREETING, bytes(20)], "Unexpected option reply magic"),
        ([GREETING, answer(Option.GO, Answer.ACK)], "broken server omitted NBD_INFO_EXPORT"),
        ([GREETING, answer(Option.GO, Answer.SERVER)], r"unexpected reply type 2 \(server\), expected 3 \(info\)"),
        ([GREETING, answer(Option.GO, Answer.INFO, b"x")], "NBD_REP_INFO length 1 is too short"),
        ([GREETING, answer(Option.GO, Answer.INFO, bytes(3))], "remaining export info len 1 is unexpected size"),
        ([GREETING, sizes(3, 4096, 4096)], "server minimum block size 3 is not a power of two"),
        ([GREETING, sizes(512, 256, 4096)], "server preferred block size 256 is not valid"),
        ([GREETING, sizes(512, 512, 256)], "server maximum block size 256 is not valid"),
        ([GREETING, sizes(512, 512, 512) + info(1000)], "export size 1000 is not multiple of minimum block size 512"),
        ([GREETING, info(1 << 63)], "is larger than any file"),
        ([GREETING, struct.pack(">QIII", protocol.OPTION_REPLY_MAGIC, 7, 3, 33 << 20)], "incorrect option length"),
    ],
)
def test_a_broken_server_is_given_up(parts: list[bytes], message: str) -> None:
    made = plain()
    with pytest.raises(RemoteProtocolError, match=message):
        for part in parts:
            made.receive(part)


def test_a_context_that_was_not_asked_for_is_refused() -> None:
    context = answer(Option.SET_META_CONTEXT, Answer.META_CONTEXT, bytes(4) + b"x:y") + answer(
        Option.SET_META_CONTEXT, Answer.ACK
    )
    with pytest.raises(RemoteProtocolError, match="answered with different context 'x:y'"):
        run(ClientHandshake(), STRUCTURED, context)


def test_a_context_that_comes_twice_is_refused() -> None:
    context = answer(Option.SET_META_CONTEXT, Answer.META_CONTEXT, bytes(4) + b"base:allocation")
    with pytest.raises(RemoteProtocolError, match="more than one context"):
        run(ClientHandshake(), STRUCTURED, context * 2 + answer(Option.SET_META_CONTEXT, Answer.ACK))


def test_end_in_the_middle_says_where() -> None:
    # CVE-2021-20286: a client fell over a server that went as it was asked for an export.
    made = plain()
    run(made)
    with pytest.raises(RemoteProtocolError, match="Failed to read option reply: Unexpected end-of-file"):
        made.receive_eof()


def test_names_that_the_protocol_has_no_room_for_are_our_mistake() -> None:
    with pytest.raises(LocalProtocolError, match="export name too long"):
        ClientHandshake("x" * 4097)
    with pytest.raises(LocalProtocolError, match="meta context name too long"):
        ClientHandshake(contexts=("x" * 4097,))


# ---- a server that wants to be listened to for ever


def test_a_list_without_end_is_given_up() -> None:
    made = ClientHandshake(listing=True, structured=False)
    run(made)
    with pytest.raises(RemoteProtocolError, match="server lists more than 10000 exports"):
        for _ in range(client.MAX_EXPORTS + 1):
            made.receive(answer(Option.LIST, Answer.SERVER, text("a")))


def test_a_list_of_long_names_is_given_up() -> None:
    made = ClientHandshake(listing=True, structured=False)
    run(made)
    with pytest.raises(RemoteProtocolError, match="bytes"):
        for _ in range(3000):
            made.receive(answer(Option.LIST, Answer.SERVER, text("a" * 4000) + bytes(4000)))


def test_information_without_end_is_given_up() -> None:
    made = plain()
    run(made)
    with pytest.raises(RemoteProtocolError, match="more than 10000 answers"):
        for _ in range(client.MAX_ANSWERS + 1):
            made.receive(answer(Option.GO, Answer.INFO, b"\0\1x"))


def test_a_long_answer_is_read_over() -> None:
    made = plain()
    assert run(made, answer(Option.GO, Answer.INFO, b"\0\1" + bytes(1 << 20)), info())


# ---- TLS


def test_tls_comes_first() -> None:
    made = plain("disk", tls=True)
    assert run(made, answer(Option.STARTTLS, Answer.ACK)) == [StartTls()]
    assert b"".join(made.outgoing()) == FLAGS + option(Option.STARTTLS)
    made.started_tls()
    assert made.receive(info()) == [Connected(Export("disk", 1 << 30, 1), False, False)]


@pytest.mark.parametrize("kind", [Answer.ERR_UNSUP, Answer.ERR_POLICY, Answer.ERR_INVALID, Answer.SERVER])
def test_a_server_that_does_not_start_tls_is_given_up(kind: int) -> None:
    made = plain("disk", tls=True)
    with pytest.raises(RemoteProtocolError):
        run(made, answer(Option.STARTTLS, kind))
    assert option(Option.GO, go("disk", Info.BLOCK_SIZE)) not in made.outgoing()


def test_a_server_of_before_tls_is_given_up() -> None:
    greetings = [
        protocol.GREETING.pack(protocol.GREETING_MAGIC, protocol.OPTION_MAGIC, 0),
        struct.pack(">QQQI", protocol.GREETING_MAGIC, protocol.OLDSTYLE_MAGIC, 4096, 3) + bytes(124),
    ]
    for greeting in greetings:
        with pytest.raises(RemoteProtocolError, match="Server does not support STARTTLS"):
            plain(tls=True).receive(greeting)


def test_plain_text_is_not_taken_for_what_came_inside_tls() -> None:
    with pytest.raises(RemoteProtocolError, match="Plain text follows"):
        run(plain(tls=True), answer(Option.STARTTLS, Answer.ACK) + info())


def test_tls_that_the_server_does_not_wait_for_is_our_mistake() -> None:
    with pytest.raises(LocalProtocolError):
        plain(tls=True).started_tls()


def test_flags_of_unknown_exports_do_not_matter() -> None:
    (event,) = run(plain(), info(flags=0xFFFF))
    assert isinstance(event, Connected)
    assert event.export.flags & ExportFlag.READ_ONLY
