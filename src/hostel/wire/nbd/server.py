"""The server's side of the handshake: greeting, options, and what the client has chosen.

::

    OPTIONS --STARTTLS--> TLS --started_tls()--> OPTIONS --GO or EXPORT_NAME--> TRANSMISSION
    OPTIONS --ABORT--> CLOSED

Everything that a client says is bounded: an option's data, the number of options, what is kept of them. How long it
may take is the business of whoever runs the machine.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator, Iterable
from typing import Final, NamedTuple

from hostel.errors import LocalProtocolError, RemoteProtocolError
from hostel.wire.nbd import protocol
from hostel.wire.nbd.protocol import Answer, ExportFlag, HandshakeFlag, Info, Offer, Option
from hostel.wire.stream import Machine

MAX_OPTIONS: Final = 10_000  # of one client
_FLAGS: Final = int(HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES)
# A query for all contexts of one of these, when contexts are listed.
_NAMESPACES: Final = ("base:", "qemu:", protocol.DIRTY_BITMAP)
_WITHOUT_DATA: Final = (Option.LIST, Option.STARTTLS, Option.STRUCTURED_REPLY, Option.EXTENDED_HEADERS)


class State(enum.Enum):
    """Where the handshake is."""

    OPTIONS = "options"
    TLS = "tls"
    TRANSMISSION = "transmission"
    CLOSED = "closed"


class StartTls(NamedTuple):
    """The client was told to begin TLS: write what is outgoing, shake hands, then call ``started_tls()``."""


class Chosen(NamedTuple):
    """The handshake is over, and the client uses an export.

    Attributes:
        structured: replies are structured.
        extended: requests and replies have extended headers.
        contexts: ids of the meta contexts that BLOCK_STATUS reports.
    """

    offer: Offer
    structured: bool
    extended: bool
    contexts: tuple[int, ...]


class Aborted(NamedTuple):
    """The client ended the handshake as the protocol wants it."""


class _Refusal(Exception):
    """An option is answered with an error, and the client may go on."""

    def __init__(self, answer: Answer, message: str) -> None:
        super().__init__(message)
        self.answer = answer


class ServerHandshake(Machine[StartTls | Chosen | Aborted]):
    """One client's handshake.

    Args:
        offers: gives what is exported at this moment.
        tls: the client must start TLS before anything else.

    Attributes:
        state: where the handshake is.
    """

    def __init__(self, offers: Callable[[], Iterable[Offer]], *, tls: bool = False) -> None:
        super().__init__(protocol.MAX_OPTION_KEPT)
        self._offers = offers
        self._wants_tls = tls
        self._secure = False
        self._fixed = False
        self._no_zeroes = False
        self.state = State.OPTIONS
        self._forget()
        self.advance()

    def started_tls(self) -> None:
        """Go on inside TLS; what was negotiated before does not count any more.

        Raises:
            LocalProtocolError: TLS was not asked for.
        """
        if self.state is not State.TLS:
            raise LocalProtocolError("TLS was not asked for")
        self.state = State.OPTIONS
        self._secure = True
        self._forget()
        self.advance()

    def _forget(self) -> None:
        self._structured = False
        self._extended = False
        self._contexts: tuple[str, tuple[int, ...]] = ("", ())

    def _parse(self) -> Generator[None, None, None]:
        self.out.append(protocol.GREETING.pack(protocol.GREETING_MAGIC, protocol.OPTION_MAGIC, _FLAGS))
        (answer,) = protocol.U32.unpack((yield from self.stream.exact(4, "flags")))
        if answer & ~_FLAGS:
            raise RemoteProtocolError(f"Unknown client flags 0x{answer & ~_FLAGS:x} received")
        self._fixed = bool(answer & HandshakeFlag.FIXED_NEWSTYLE)
        self._no_zeroes = bool(answer & HandshakeFlag.NO_ZEROES)
        for _ in range(MAX_OPTIONS):
            yield from self._option()
            while self.state is State.TLS:
                if len(self.stream):
                    raise RemoteProtocolError("Plain text follows the request for TLS")
                yield
            if self.state is not State.OPTIONS:
                return
        raise RemoteProtocolError(f"The client sent more than {MAX_OPTIONS} options")

    def _option(self) -> Generator[None, None, None]:
        """Read one option and answer it."""
        header = yield from self.stream.exact(protocol.OPTION.size, "opts magic")
        magic, option, length = protocol.OPTION.unpack(header)
        if magic != protocol.OPTION_MAGIC:
            raise RemoteProtocolError("Bad magic received")
        if length > protocol.MAX_OPTION:
            raise RemoteProtocolError(f"len ({length}) is larger than max len ({protocol.MAX_OPTION})")
        if option == Option.EXPORT_NAME:
            yield from self._export_name(length)
            return
        if not self._fixed:
            raise RemoteProtocolError(f"Unsupported option {protocol.option_text(option)}")
        data = b""
        try:
            if length <= protocol.MAX_OPTION_KEPT:
                data = yield from self.stream.exact(length, "option data")
            else:
                yield from self.stream.skip(length, "option data")
                if option in protocol.OPTION_TEXTS:
                    raise _Refusal(Answer.ERR_TOO_BIG, f"{length} bytes of data are too many")
            self._answer_option(option, data)
        except _Refusal as refusal:
            self._answer(option, refusal.answer, str(refusal).encode("utf-8", "surrogateescape"))
            if option == Option.STARTTLS and length and self._wants_tls and not self._secure:
                raise RemoteProtocolError(str(refusal)) from None

    def _answer_option(self, option: int, data: bytes) -> None:
        if self._wants_tls and not self._secure and option != Option.STARTTLS:
            if option == Option.ABORT:
                self._end(option)
                return
            raise _Refusal(Answer.ERR_TLS_REQD, f"Option 0x{option:x} not permitted before TLS")
        if data and option in _WITHOUT_DATA:
            raise _Refusal(Answer.ERR_INVALID, f"option '{protocol.OPTION_TEXTS[option]}' has unexpected length")
        match option:
            case Option.ABORT:
                self._end(option)
            case Option.LIST:
                self._list()
            case Option.STARTTLS:
                self._start_tls()
            case Option.INFO | Option.GO:
                self._info(option, _Fields(option, data))
            case Option.STRUCTURED_REPLY | Option.EXTENDED_HEADERS:
                self._structure(option)
            case Option.LIST_META_CONTEXT | Option.SET_META_CONTEXT:
                self._meta_context(option, _Fields(option, data))
            case _:
                raise _Refusal(Answer.ERR_UNSUP, f"Unsupported option {protocol.option_text(option)}")

    def _answer(self, option: int, answer: Answer, data: bytes = b"") -> None:
        header = protocol.OPTION_REPLY.pack(protocol.OPTION_REPLY_MAGIC, option, answer, len(data))
        self.out.append(header + data)

    def _end(self, option: int) -> None:
        self._answer(option, Answer.ACK)
        self.state = State.CLOSED
        self.events.append(Aborted())

    def _find(self, name: bytes) -> Offer:
        wanted = name.decode("utf-8", "surrogateescape")
        for offer in self._offers():
            if offer.name == wanted:
                return offer
        shown = wanted if len(name) < 80 else f"{wanted[:80]}..."
        raise _Refusal(Answer.ERR_UNKNOWN, f"export '{shown}' not present")

    def _flags(self, offer: Offer) -> ExportFlag:
        return offer.flags | ExportFlag.SEND_DF if self._structured else offer.flags

    def _choose(self, offer: Offer) -> None:
        name, contexts = self._contexts
        self.state = State.TRANSMISSION
        self.events.append(Chosen(offer, self._structured, self._extended, contexts if name == offer.name else ()))

    def _export_name(self, length: int) -> Generator[None, None, None]:
        """EXPORT_NAME: an error cannot be answered, only the connection be closed."""
        if self._wants_tls and not self._secure:
            raise RemoteProtocolError(f"Option 0x{Option.EXPORT_NAME:x} not permitted before TLS")
        if length > protocol.MAX_STRING:
            raise RemoteProtocolError("Bad length received")
        name = yield from self.stream.exact(length, "export name")
        if self._extended:
            raise RemoteProtocolError("extended headers were negotiated; the export must be chosen with GO")
        try:
            offer = self._find(name)
        except _Refusal:
            raise RemoteProtocolError("export not found") from None
        self.out.append(protocol.EXPORT.pack(offer.size, self._flags(offer)))
        if not self._no_zeroes:
            self.out.append(bytes(protocol.RESERVED))
        self._choose(offer)

    def _list(self) -> None:
        for offer in self._offers():
            name = offer.name.encode("utf-8", "surrogateescape")
            description = (offer.description or "").encode("utf-8", "surrogateescape")
            self._answer(Option.LIST, Answer.SERVER, protocol.U32.pack(len(name)) + name + description)
        self._answer(Option.LIST, Answer.ACK)

    def _start_tls(self) -> None:
        if self._secure:
            raise _Refusal(Answer.ERR_INVALID, "TLS already enabled")
        if not self._wants_tls:
            raise _Refusal(Answer.ERR_POLICY, "TLS not configured")
        self._answer(Option.STARTTLS, Answer.ACK)
        self.state = State.TLS
        self.events.append(StartTls())

    def _structure(self, option: int) -> None:
        if self._extended:
            raise _Refusal(Answer.ERR_INVALID, "extended headers already negotiated")
        if self._structured and option == Option.STRUCTURED_REPLY:
            raise _Refusal(Answer.ERR_INVALID, "structured reply already negotiated")
        self._structured = True
        self._extended = option == Option.EXTENDED_HEADERS
        self._answer(option, Answer.ACK)

    def _info(self, option: int, fields: _Fields) -> None:
        name = fields.string()
        wanted = {fields.number(protocol.U16) for _ in range(fields.number(protocol.U16))}
        fields.end()
        offer = self._find(name)
        if Info.NAME in wanted:
            self._send_info(option, Info.NAME, name)
        if offer.description is not None:
            self._send_info(option, Info.DESCRIPTION, offer.description.encode("utf-8", "surrogateescape"))
        # A client that did not ask for the sizes need not keep to them, and is served all the same.
        minimum = offer.minimum if option == Option.INFO or Info.BLOCK_SIZE in wanted else 1
        sizes = protocol.BLOCK_SIZES.pack(minimum, offer.preferred, offer.maximum)
        self._send_info(option, Info.BLOCK_SIZE, sizes)
        self._send_info(option, Info.EXPORT, protocol.EXPORT.pack(offer.size, self._flags(offer)))
        if option == Option.INFO and Info.BLOCK_SIZE not in wanted and offer.minimum > 1:
            raise _Refusal(Answer.ERR_BLOCK_SIZE_REQD, "request NBD_INFO_BLOCK_SIZE to use this export")
        self._answer(option, Answer.ACK)
        if option == Option.GO:
            self._choose(offer)

    def _send_info(self, option: int, info: Info, data: bytes) -> None:
        self._answer(option, Answer.INFO, protocol.U16.pack(info) + data)

    def _meta_context(self, option: int, fields: _Fields) -> None:
        setting = option == Option.SET_META_CONTEXT
        if setting:
            self._contexts = ("", ())
            if not self._structured:
                raise _Refusal(
                    Answer.ERR_INVALID,
                    f"request option '{protocol.OPTION_TEXTS[option]}' when structured reply is not negotiated",
                )
        offer = self._find(fields.string())
        count = fields.number(protocol.U32)
        queries = fields.strings(count)
        fields.end()
        everything = not setting and not count
        chosen = tuple(
            index
            for index, context in enumerate(offer.contexts)
            if everything or any(_matches(query, context, listing=not setting) for query in queries)
        )
        for index in chosen:
            name = offer.contexts[index].encode("utf-8", "surrogateescape")
            self._answer(option, Answer.META_CONTEXT, protocol.U32.pack(index if setting else 0) + name)
        self._answer(option, Answer.ACK)
        if setting:
            self._contexts = (offer.name, chosen)


def _matches(query: str, context: str, *, listing: bool) -> bool:
    return query == context or (listing and query in _NAMESPACES and context.startswith(query))


class _Fields:
    """The data of an option, read field by field."""

    def __init__(self, option: int, data: bytes) -> None:
        self._name = protocol.OPTION_TEXTS[option]
        self._data = data
        self._position = 0

    def take(self, length: int) -> bytes:
        """The next bytes."""
        if length > len(self._data) - self._position:
            raise _Refusal(Answer.ERR_INVALID, f"Inconsistent lengths in option {self._name}")
        start = self._position
        self._position += length
        return self._data[start : self._position]

    def number(self, kind: protocol.Struct) -> int:
        """The next number."""
        value: int = kind.unpack(self.take(kind.size))[0]
        return value

    def string(self) -> bytes:
        """The next string, which has its length before it."""
        length = self.number(protocol.U32)
        if length > protocol.MAX_STRING:
            raise _Refusal(Answer.ERR_INVALID, f"Invalid name length: {length}")
        text = self.take(length)
        if b"\0" in text:
            raise _Refusal(Answer.ERR_INVALID, f"Unexpected embedded NUL in option {self._name}")
        return text

    def strings(self, count: int) -> set[str]:
        """The next queries; one that is too long for a name matches nothing."""
        found = set()
        for _ in range(count):
            length = self.number(protocol.U32)
            text = self.take(length)
            if length <= protocol.MAX_STRING:
                if b"\0" in text:
                    raise _Refusal(Answer.ERR_INVALID, f"Unexpected embedded NUL in option {self._name}")
                found.add(text.decode("utf-8", "surrogateescape"))
        return found

    def end(self) -> None:
        """Refuse data beyond the last field."""
        if self._position != len(self._data):
            raise _Refusal(Answer.ERR_INVALID, f"option '{self._name}' has unexpected length")
