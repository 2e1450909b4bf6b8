"""The client's side of the handshake: choosing an export, or listing what there is.

Nothing goes on in plain text when TLS was asked for: a server that does not start it is given up (CVE-2019-14842 was a
client that went on). What a server says is bounded, like what a client says.
"""

from __future__ import annotations

import enum
from collections.abc import Generator
from typing import Final, NamedTuple

from hostel.errors import LocalProtocolError, RemoteProtocolError
from hostel.units import INT64_MAX, KiB, MiB
from hostel.wire.nbd import protocol
from hostel.wire.nbd.protocol import Answer, HandshakeFlag, Info, Option
from hostel.wire.stream import Machine

MAX_ANSWERS: Final = 10_000  # to one option
MAX_EXPORTS: Final = 10_000  # of a list
_MAX_KEPT: Final = 16 * KiB  # bytes of an answer that are looked at: two strings and a number, with room
_MAX_LIST: Final = 8 * MiB  # bytes of all names and descriptions of a list
_MAX_CONTEXTS: Final = 1000  # of one export


class State(enum.Enum):
    """Where the handshake is."""

    OPTIONS = "options"
    TLS = "tls"
    TRANSMISSION = "transmission"
    CLOSED = "closed"


class StartTls(NamedTuple):
    """The server waits for TLS: shake hands, then call ``started_tls()``."""


class Export(NamedTuple):
    """An export, as far as the server has told.

    Attributes:
        size: bytes.
        flags: of :class:`protocol.ExportFlag`, and unknown ones; 0 where the server told nothing but the name.
        minimum: bytes; 0 where the server did not tell.
        preferred: bytes; 0 likewise.
        maximum: bytes of one read or write; 0 likewise.
        contexts: the meta contexts that were found, with the ids that replies use.
    """

    name: str
    size: int = 0
    flags: int = 0
    description: str | None = None
    minimum: int = 0
    preferred: int = 0
    maximum: int = 0
    contexts: tuple[tuple[int, str], ...] = ()


class Connected(NamedTuple):
    """The export is ours to use.

    Attributes:
        structured: replies are structured.
        extended: requests and replies have extended headers.
    """

    export: Export
    structured: bool
    extended: bool


class Listed(NamedTuple):
    """What the server offers; the connection is of no use any more."""

    exports: tuple[Export, ...]


class OptionRefused(RemoteProtocolError):
    """The server refused an option.

    Attributes:
        hint: lines that say more: what to do, what the server reported.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class ClientHandshake(Machine[StartTls | Connected | Listed]):
    """One handshake, to use an export or, with ``listing``, to see all of them.

    Args:
        name: the export's name.
        tls: start TLS first, or give up.
        structured: ask for structured replies, which block status needs.
        extended: ask for extended headers, and for structured replies where the server has none.
        contexts: the meta contexts that are wanted; used where the server has them.

    Attributes:
        state: where the handshake is.
    """

    def __init__(
        self,
        name: str = "",
        *,
        listing: bool = False,
        tls: bool = False,
        structured: bool = True,
        extended: bool = False,
        contexts: tuple[str, ...] = (protocol.BASE_ALLOCATION,),
    ) -> None:
        super().__init__(_MAX_KEPT)
        if len(_encode(name)) > protocol.MAX_STRING:
            raise LocalProtocolError("export name too long to send to server")
        if any(len(_encode(context)) > protocol.MAX_STRING for context in contexts):
            raise LocalProtocolError("meta context name too long to send to server")
        self._name = name
        self._listing = listing
        self._wants_tls = tls
        self._wants_structured = structured
        self._wants_extended = extended
        self._wants_contexts = contexts
        self._structured = False
        self._extended = False
        self.state = State.OPTIONS

    def started_tls(self) -> None:
        """Go on inside TLS.

        Raises:
            LocalProtocolError: the server does not wait for it.
        """
        if self.state is not State.TLS:
            raise LocalProtocolError("the server does not wait for TLS")
        self.state = State.OPTIONS
        self.advance()

    def _parse(self) -> Generator[None, None, None]:
        header = yield from self.stream.exact(16, "initial magic")
        magic, kind = protocol.U64.unpack(header[:8])[0], protocol.U64.unpack(header[8:])[0]
        if magic != protocol.GREETING_MAGIC:
            raise RemoteProtocolError(f"Bad initial magic received: 0x{magic:x}")
        if kind == protocol.OLDSTYLE_MAGIC:
            yield from self._oldstyle()
            return
        if kind != protocol.OPTION_MAGIC:
            raise RemoteProtocolError(f"Bad server magic received: 0x{kind:x}")
        (given,) = protocol.U16.unpack((yield from self.stream.exact(2, "server flags")))
        flags = given & (HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES)
        self.out.append(protocol.U32.pack(flags))
        fixed = bool(flags & HandshakeFlag.FIXED_NEWSTYLE)
        if self._wants_tls:
            yield from self._start_tls(fixed)
        zeroes = not flags & HandshakeFlag.NO_ZEROES
        if self._listing:
            yield from self._list(fixed)
        elif not fixed or not (yield from self._connect()):
            yield from self._export_name(zeroes=zeroes)

    def _oldstyle(self) -> Generator[None, None, None]:
        """A server of before 2011: it tells the size of its one export, and that is all."""
        if self._wants_tls:
            raise RemoteProtocolError("Server does not support STARTTLS")
        if self._name and not self._listing:
            raise RemoteProtocolError("Server does not support non-empty export names")
        (size,) = protocol.U64.unpack((yield from self.stream.exact(8, "export length")))
        (flags,) = protocol.U32.unpack((yield from self.stream.exact(4, "export flags")))
        if flags > 0xFFFF:
            raise RemoteProtocolError(f"Unexpected export flags {flags:x}")
        yield from self.stream.skip(protocol.RESERVED, "reserved block")
        export = Export("", _size(size), flags)
        if self._listing:
            self.out.append(format_disconnect())
            self._finish_list([export])
        else:
            self._finish(export)

    def _start_tls(self, fixed: bool) -> Generator[None, None, None]:
        if not fixed:
            raise RemoteProtocolError("Server does not support STARTTLS")
        self._send(Option.STARTTLS)
        accepted = yield from self._acknowledged(Option.STARTTLS, strict=True)
        if not accepted:
            raise self._give_up("Server don't support STARTTLS option")
        self.state = State.TLS
        self.events.append(StartTls())
        while self.state is State.TLS:
            if len(self.stream):
                raise RemoteProtocolError("Plain text follows the start of TLS")
            yield

    def _connect(self) -> Generator[None, None, bool]:
        """Negotiate by options; False where the server knows no GO, so that EXPORT_NAME is left."""
        yield from self._negotiate_structure()
        contexts: list[tuple[int, str]] = []
        if self._structured and self._wants_contexts:
            contexts = yield from self._set_contexts()
        export = yield from self._info(Option.GO, self._name)
        if export is not None:
            self._finish(export._replace(contexts=tuple(contexts)))
            return True
        # EXPORT_NAME has no answer for a name that does not exist; the list may tell.
        exports = yield from self._receive_list()
        if exports and self._name not in (found.name for found in exports):
            raise self._give_up(f"No export with name '{self._name}' available")
        return False

    def _negotiate_structure(self) -> Generator[None, None, None]:
        if self._wants_extended:
            self._send(Option.EXTENDED_HEADERS)
            self._extended = yield from self._acknowledged(Option.EXTENDED_HEADERS, strict=False)
            self._structured = self._extended
        if self._wants_structured and not self._structured:
            self._send(Option.STRUCTURED_REPLY)
            self._structured = yield from self._acknowledged(Option.STRUCTURED_REPLY, strict=False)

    def _export_name(self, *, zeroes: bool) -> Generator[None, None, None]:
        if self._extended:
            raise self._give_up("Server has extended headers without NBD_OPT_GO")
        self._send(Option.EXPORT_NAME, _encode(self._name))
        (size,) = protocol.U64.unpack((yield from self.stream.exact(8, "export length")))
        (flags,) = protocol.U16.unpack((yield from self.stream.exact(2, "export flags")))
        if zeroes:
            yield from self.stream.skip(protocol.RESERVED, "reserved block")
        self._finish(Export(self._name, _size(size), flags))

    def _finish(self, export: Export) -> None:
        self.state = State.TRANSMISSION
        self.events.append(Connected(export, self._structured, self._extended))

    def _list(self, fixed: bool) -> Generator[None, None, None]:
        if not fixed:
            raise RemoteProtocolError("Server does not support export lists")
        yield from self._negotiate_structure()
        exports = yield from self._receive_list()
        for index, listed in enumerate(exports):
            export = yield from self._info(Option.INFO, listed.name)
            if export is None:
                break
            contexts: tuple[tuple[int, str], ...] = ()
            if self._structured:
                contexts = yield from self._list_contexts(listed.name)
            exports[index] = export._replace(description=listed.description or export.description, contexts=contexts)
        self._send(Option.ABORT)
        self._finish_list(exports)

    def _finish_list(self, exports: list[Export]) -> None:
        self.state = State.CLOSED
        self.events.append(Listed(tuple(exports)))

    def _receive_list(self) -> Generator[None, None, list[Export]]:
        """Ask for the list; empty also where the server has none to show."""
        self._send(Option.LIST)
        exports: list[Export] = []
        room = _MAX_LIST
        while True:
            answer, data = yield from self._answer(Option.LIST, strict=True)
            if answer in (None, Answer.ACK):
                return exports
            self._expect(answer, Answer.SERVER)
            room -= len(data)
            if len(exports) == MAX_EXPORTS or room < 0:
                raise self._give_up(f"server lists more than {MAX_EXPORTS} exports or {_MAX_LIST} bytes")
            exports.append(self._listed(data))

    def _listed(self, data: bytes) -> Export:
        if len(data) < 4:
            raise self._give_up(f"incorrect option length {len(data)}")
        (length,) = protocol.U32.unpack_from(data)
        description = data[4 + length :]
        if length > min(len(data) - 4, protocol.MAX_STRING):
            raise self._give_up("incorrect name length in server's list response")
        if len(description) > protocol.MAX_STRING:
            raise self._give_up("incorrect description length in server's list response")
        return Export(_decode(data[4 : 4 + length]), description=_decode(description) or None)

    def _info(self, option: Option, name: str) -> Generator[None, None, Export | None]:
        """Ask about an export with INFO, or choose it with GO; None where the server knows no such option."""
        encoded = _encode(name)
        self._send(
            option,
            protocol.U32.pack(len(encoded)) + encoded + protocol.U16.pack(1) + protocol.U16.pack(Info.BLOCK_SIZE),
        )
        export = Export(name)
        for _ in range(MAX_ANSWERS):
            answer, data = yield from self._answer(option, strict=True)
            if answer is None:
                return None
            if answer == Answer.ACK:
                if not export.flags:
                    raise RemoteProtocolError("broken server omitted NBD_INFO_EXPORT")
                if export.minimum and export.size % export.minimum:
                    raise self._give_up(
                        f"export size {export.size} is not multiple of minimum block size {export.minimum}"
                    )
                return export
            if answer != Answer.INFO:
                raise self._give_up(
                    f"unexpected reply type {protocol.answer_text(answer)}, expected "
                    f"{protocol.answer_text(Answer.INFO)}"
                )
            export = self._learn(export, data)
        raise self._give_up(f"server sends more than {MAX_ANSWERS} answers to one option")

    def _learn(self, export: Export, data: bytes) -> Export:
        if len(data) < 2:
            raise self._give_up(f"NBD_REP_INFO length {len(data)} is too short")
        (kind,) = protocol.U16.unpack_from(data)
        value = data[2:]
        match kind:
            case Info.EXPORT:
                if len(value) != protocol.EXPORT.size:
                    raise self._give_up(f"remaining export info len {len(value)} is unexpected size")
                size, flags = protocol.EXPORT.unpack(value)
                return export._replace(size=_size(size), flags=flags)
            case Info.BLOCK_SIZE:
                if len(value) != protocol.BLOCK_SIZES.size:
                    raise self._give_up(f"remaining export info len {len(value)} is unexpected size")
                return self._learn_sizes(export, *protocol.BLOCK_SIZES.unpack(value))
            case Info.DESCRIPTION:
                return export._replace(description=_decode(value[: protocol.MAX_STRING]))
        return export

    def _learn_sizes(self, export: Export, minimum: int, preferred: int, maximum: int) -> Export:
        if not _is_power_of_two(minimum):
            raise self._give_up(f"server minimum block size {minimum} is not a power of two")
        if not _is_power_of_two(preferred) or preferred < minimum:
            raise self._give_up(f"server preferred block size {preferred} is not valid")
        if maximum < minimum:
            raise self._give_up(f"server maximum block size {maximum} is not valid")
        return export._replace(minimum=minimum, preferred=preferred, maximum=maximum)

    def _set_contexts(self) -> Generator[None, None, list[tuple[int, str]]]:
        """Ask for our contexts; those that the server has."""
        found = yield from self._contexts(Option.SET_META_CONTEXT, self._name, self._wants_contexts)
        for _, name in found:
            if name not in self._wants_contexts:
                wanted = ", ".join(self._wants_contexts)
                raise self._give_up(
                    f"Failed to negotiate meta context '{wanted}', server answered with different context '{name}'"
                )
        if len({name for _, name in found}) != len(found) or len({number for number, _ in found}) != len(found):
            raise self._give_up("Server answered with more than one context")
        return found

    def _list_contexts(self, name: str) -> Generator[None, None, tuple[tuple[int, str], ...]]:
        found = yield from self._contexts(Option.LIST_META_CONTEXT, name, ())
        if found and not any(context.startswith("qemu:") for _, context in found):
            # QEMU 3.0 forgets its own contexts in the answer to no query.
            found += yield from self._contexts(Option.LIST_META_CONTEXT, name, ("qemu:",))
        return tuple(found)

    def _contexts(
        self, option: Option, name: str, queries: tuple[str, ...]
    ) -> Generator[None, None, list[tuple[int, str]]]:
        data = [name, *queries]
        encoded = [protocol.U32.pack(len(_encode(text))) + _encode(text) for text in data]
        self._send(option, encoded[0] + protocol.U32.pack(len(queries)) + b"".join(encoded[1:]))
        found: list[tuple[int, str]] = []
        while True:
            answer, value = yield from self._answer(option, strict=False)
            if answer is None:
                return []
            if answer == Answer.ACK:
                if value:
                    raise self._give_up("Unexpected length to ACK response")
                return found
            self._expect(answer, Answer.META_CONTEXT)
            if not 4 < len(value) <= 4 + protocol.MAX_STRING:
                raise self._give_up(
                    f"Failed to negotiate meta context, server answered with unexpected length {len(value)}"
                )
            if len(found) == _MAX_CONTEXTS:
                raise self._give_up(f"server has more than {_MAX_CONTEXTS} meta contexts")
            found.append((protocol.U32.unpack_from(value)[0], _decode(value[4:])))

    def _send(self, option: Option, data: bytes = b"") -> None:
        self.out.append(protocol.OPTION.pack(protocol.OPTION_MAGIC, option, len(data)) + data)

    def _give_up(self, message: str, hint: str = "") -> RemoteProtocolError:
        """The error to raise; the server is told that we go, as a courtesy."""
        self._send(Option.ABORT)
        return OptionRefused(message, hint) if hint else RemoteProtocolError(message)

    def _expect(self, answer: int | None, wanted: Answer) -> None:
        if answer != wanted:
            raise self._give_up(
                f"Unexpected reply type {protocol.answer_text(answer or 0)}, expected {protocol.answer_text(wanted)}"
            )

    def _acknowledged(self, option: Option, *, strict: bool) -> Generator[None, None, bool]:
        """Read the one answer to an option; False where the server does not support it."""
        answer, data = yield from self._answer(option, strict=strict)
        if answer is None:
            return False
        if answer != Answer.ACK:
            raise self._give_up(
                f"Server answered option {protocol.option_text(option)} with unexpected reply "
                f"{protocol.answer_text(answer)}"
            )
        if data:
            raise self._give_up(
                f"Option {option.value} ('{protocol.OPTION_TEXTS[option]}') response length is {len(data)} "
                "(it should be zero)"
            )
        return True

    def _answer(self, option: Option, *, strict: bool) -> Generator[None, None, tuple[int | None, bytes]]:
        """Read one answer to an option: its type, None where that says that the option is not supported, and data.

        With ``strict`` every error but ERR_UNSUP is raised; otherwise all of them mean not supported.
        """
        header = yield from self.stream.exact(protocol.OPTION_REPLY.size, "option reply")
        magic, answered, answer, length = protocol.OPTION_REPLY.unpack(header)
        if magic != protocol.OPTION_REPLY_MAGIC:
            raise self._give_up("Unexpected option reply magic")
        if answered != option:
            raise self._give_up(
                f"Unexpected option type {protocol.option_text(answered)}, expected {protocol.option_text(option)}"
            )
        if length > protocol.MAX_OPTION:
            raise self._give_up(f"incorrect option length {length}")
        data = yield from self.stream.exact(min(length, _MAX_KEPT), "option reply data")
        yield from self.stream.skip(length - len(data), "option reply data")
        if not answer & protocol.ANSWER_IS_ERROR:
            return answer, data
        if answer == Answer.ERR_UNSUP or not strict:
            return None, data
        raise self._refused(option, answer, data)

    def _refused(self, option: Option, answer: int, data: bytes) -> RemoteProtocolError:
        message, hint = _REFUSALS.get(answer, ("Unknown error code when asking for option {}", ""))
        if data:
            hint += f"server reported: {_printable(data)}\n"
        return self._give_up(message.format(protocol.option_text(option)), hint.rstrip("\n"))


_REFUSALS: Final[dict[int, tuple[str, str]]] = {
    Answer.ERR_POLICY: ("Denied by server for option {}", ""),
    Answer.ERR_INVALID: ("Invalid parameters for option {}", ""),
    Answer.ERR_PLATFORM: ("Server lacks support for option {}", ""),
    Answer.ERR_TLS_REQD: ("TLS negotiation required before option {}", "Did you forget a valid tls-creds?\n"),
    Answer.ERR_UNKNOWN: ("Requested export not available", ""),
    Answer.ERR_SHUTDOWN: ("Server shutting down before option {}", ""),
    Answer.ERR_BLOCK_SIZE_REQD: ("Server requires INFO_BLOCK_SIZE for option {}", ""),
}


def format_disconnect() -> bytes:
    """The request that ends the transmission phase; there is no reply."""
    return protocol.REQUEST.pack(protocol.REQUEST_MAGIC, 0, protocol.Command.DISC, 0, 0, 0)


def _size(size: int) -> int:
    if size > INT64_MAX:
        raise RemoteProtocolError(f"export size {size} is larger than any file")
    return size


def _is_power_of_two(number: int) -> bool:
    return number > 0 and not number & (number - 1)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _printable(data: bytes) -> str:
    """What a server says, without what would move a terminal's cursor."""
    text = data[: protocol.MAX_STRING].decode("utf-8", "replace")
    return "".join(char if char.isprintable() else "?" for char in text)
