"""What a virsh command works with: the connection, where it prints, and how it finds the objects that are named."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, Protocol, TypeVar

from hostel.cause import sentence
from hostel.cli.options import Args, data, flag
from hostel.cli.output import Output
from hostel.cli.virsh.trace import Level, Trace
from hostel.drivers.autodestroy import end_all
from hostel.drivers.base import (
    DomainRef,
    HypervisorDriver,
    NetworkDriver,
    NetworkRef,
    PoolRef,
    StorageDriver,
    VolumeRef,
)
from hostel.drivers.base.closing import CloseReason
from hostel.drivers.base.host import HostDriver
from hostel.drivers.base.interface import InterfaceDriver
from hostel.drivers.base.nodedev import NodeDeviceDriver
from hostel.drivers.base.nwfilter import NwfilterDriver
from hostel.drivers.base.secret import SecretDriver
from hostel.errors import HostelError, VirtError

Ref = TypeVar("Ref")
_LOST: Final = {
    CloseReason.ERROR: "I/O error",
    CloseReason.EOF: "end of file",
    CloseReason.KEEPALIVE: "keepalive timeout",
}
_INTERVAL: Final = 5  # seconds, and questions, where only the other one is named
_QUESTIONS: Final = 6
_UUID_LENGTH: Final = 36  # characters: what virsh takes for a UUID
_MAX_ID: Final = 2**31 - 1
MAX_DOCUMENT: Final = 10 * 1024 * 1024  # bytes: virsh's VSH_MAX_XML_FILE
DEFAULT_ESCAPE: Final = "^]"
DOMAIN: Final = data("domain", "domain name, id or uuid")  # as Session.domain finds it


class Connection(Protocol):
    """The drivers behind one URI."""

    uri: str
    hypervisor: HypervisorDriver
    storage: StorageDriver
    network: NetworkDriver
    secret: SecretDriver
    node_device: NodeDeviceDriver
    interface: InterfaceDriver
    nwfilter: NwfilterDriver
    host: HostDriver

    def set_keepalive(self, interval: int, count: int) -> bool:
        """Ask a silent daemon every ``interval`` seconds, ``count`` times; ``NO_SUPPORT`` where there is none."""

    def on_close(self, closed: Callable[[CloseReason], None]) -> None:
        """Have ``closed`` told why the connection to a daemon is over."""

    def close(self) -> None:
        """Release the drivers."""


class KeepAlive(NamedTuple):
    """How a silent daemon is asked whether it is there.

    Attributes:
        interval: seconds of silence before a question; 0: it is not asked, None: as usual.
        questions: how many remain without an answer until it counts as gone; None: as usual.
    """

    interval: int | None = None
    questions: int | None = None


class Opener(Protocol):
    """Opens a connection."""

    def __call__(self, uri: str, *, read_only: bool) -> Connection:
        """Open ``uri``."""


class CommandError(HostelError):
    """A command failed: what was tried, and why where that is known; each is a line of its own."""

    def __init__(self, tried: str, cause: Exception | None = None) -> None:
        super().__init__(tried if cause is None else f"{tried}\n{cause}")
        self.tried = tried


class Session:
    """One run of virsh; the connection is opened by the first command that needs it.

    Attributes:
        escape: the console's escape sequence, as ``-e`` takes it.
        timing: whether to say how long each command took.
        trace: where virsh says what it does itself.
        keepalive: how connections are to be looked after.
        is_named: whether its user has named the URI, and so wants it whatever the command is.
        command: the name of the command that runs.
        autodestroys: machines that end with the connection; a daemon ends them by itself.
    """

    def __init__(
        self, output: Output, uri: str, opener: Opener, *, read_only: bool = False, escape: str = DEFAULT_ESCAPE
    ) -> None:
        self.output = output
        self.uri = uri
        self.read_only = read_only
        self.escape = escape
        self.timing = False
        self.trace = Trace()
        self.keepalive = KeepAlive()
        self.is_named = False
        self.command = ""
        self.autodestroys: list[DomainRef] = []
        self.interactive = False
        self.finished = False
        self._opener = opener
        self._connection: Connection | None = None
        self._is_lost = False

    @property
    def connection(self) -> Connection:
        """The open connection.

        Raises:
            CommandError: it cannot be opened.
        """
        if self._connection is None:
            with failing(f"{'Failed to reconnect' if self._is_lost else 'failed to connect'} to the hypervisor"):
                opened = self._open(self.uri, read_only=self.read_only)
            self._is_lost = False
            self._connection = opened
            opened.on_close(self._closed)
        return self._connection

    def _closed(self, reason: CloseReason) -> None:
        """Say that a daemon has gone; the next command connects again."""
        if reason in _LOST and self._connection is not None and not self._is_lost:
            self._is_lost = True
            self.output.error(f"Disconnected from {self._connection.uri} due to {_LOST[reason]}")

    def revive(self) -> None:
        """Open the connection, and open it again where the daemon has gone.

        Raises:
            CommandError: it cannot be opened.
        """
        had_one = self._connection is not None and self._is_lost
        if had_one:
            self._forget()
        _ = self.connection
        if had_one:
            self.output.error("Reconnected to the hypervisor")

    def _open(self, uri: str, *, read_only: bool) -> Connection:
        opened = self._opener(uri, read_only=read_only)
        interval = _INTERVAL if self.keepalive.interval is None else self.keepalive.interval
        questions = _QUESTIONS if self.keepalive.questions is None else self.keepalive.questions
        cause: VirtError | None = None
        try:
            is_kept = opened.set_keepalive(interval, questions)
        except VirtError as error:
            is_kept, cause = False, error
        if is_kept or interval == 0:
            return opened
        if self.keepalive == KeepAlive():
            self.trace.say(Level.INFO, "Failed to setup keepalive on connection")
            return opened
        opened.close()
        self.output.error("Cannot setup keepalive on connection as requested, disconnecting")
        raise cause or CommandError("")

    def greet(self) -> None:
        """Open the connection where that is wanted whatever is done.

        Raises:
            CommandError: it cannot be opened.
        """
        if self.is_named:
            _ = self.connection

    @property
    def hypervisor(self) -> HypervisorDriver:
        """The driver of domains."""
        return self.connection.hypervisor

    @property
    def storage(self) -> StorageDriver:
        """The driver of pools and volumes."""
        return self.connection.storage

    @property
    def network(self) -> NetworkDriver:
        """The driver of networks."""
        return self.connection.network

    @property
    def secret(self) -> SecretDriver:
        """The driver of secrets."""
        return self.connection.secret

    @property
    def node_device(self) -> NodeDeviceDriver:
        """The driver of the host's devices."""
        return self.connection.node_device

    @property
    def interface(self) -> InterfaceDriver:
        """The driver of the host's network interfaces."""
        return self.connection.interface

    @property
    def nwfilter(self) -> NwfilterDriver:
        """The driver of filters of packets."""
        return self.connection.nwfilter

    @property
    def host(self) -> HostDriver:
        """The driver of the host's processors and memory."""
        return self.connection.host

    def connect(self, uri: str) -> Connection:
        """Open another connection, which the caller closes.

        Raises:
            CommandError: it cannot be opened.
        """
        with failing("failed to connect to the hypervisor"):
            return self._open(uri, read_only=False)

    def reconnect(self, uri: str | None, *, read_only: bool) -> None:
        """Close, and open again: the same URI, which stays read-only, or another."""
        self.close()
        self.read_only = read_only or (uri is None and self.read_only)
        self.uri = uri or self.uri
        _ = self.connection

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None and self.autodestroys:
            end_all(self._connection.hypervisor, self.autodestroys)
        self._forget()

    def _forget(self) -> None:
        """Let go of the connection, and of what ends with it anyway."""
        self.autodestroys.clear()
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def domain(self, args: Args, *, by_id: bool = True, by_uuid: bool = True, by_name: bool = True) -> DomainRef:
        """The domain that ``--domain`` names: by id, then UUID, then name."""
        word = args["domain"]
        self._found_option("domain", word)
        if by_id and word.isascii() and word.isdecimal() and int(word) <= _MAX_ID:
            self._trying("<domain> looks like ID")
            with contextlib.suppress(VirtError):
                return self.hypervisor.domain_lookup_by_id(int(word))
        if by_uuid and len(word) == _UUID_LENGTH:
            self._trying("<domain> trying as domain UUID")
            with contextlib.suppress(VirtError):
                return self.hypervisor.domain_lookup_by_uuid(word)
        if by_name:
            self._trying("<domain> trying as domain NAME")
            with contextlib.suppress(VirtError):
                return self.hypervisor.domain_lookup_by_name(word)
        raise CommandError(f"failed to get domain '{word}'")

    def _found_option(self, option: str, word: str) -> None:
        self.trace.say(Level.INFO, f"{self.command}: found option <{option}>: {word}")

    def _trying(self, what: str) -> None:
        self.trace.say(Level.DEBUG, f"{self.command}: {what}")

    def pool(self, word: str, *, by_uuid: bool = True, by_name: bool = True) -> PoolRef:
        """The pool that a word names: by UUID, then name."""
        find = self.storage
        return _found(
            f"failed to get pool '{word}'",
            by_uuid and len(word) == _UUID_LENGTH and (lambda: find.storage_pool_lookup_by_uuid(word)),
            by_name and (lambda: find.storage_pool_lookup_by_name(word)),
        )

    def find_network(self, word: str, *, by_uuid: bool = True, by_name: bool = True) -> NetworkRef:
        """The network that a word names: by UUID, then name."""
        find = self.network
        return _found(
            f"failed to get network '{word}'",
            by_uuid and len(word) == _UUID_LENGTH and (lambda: find.network_lookup_by_uuid(word)),
            by_name and (lambda: find.network_lookup_by_name(word)),
        )

    def volume(self, args: Args, *, option: str = "vol", pool_option: str | None = "pool") -> VolumeRef:
        """The volume that an option names: by name in the pool that another names, then by key, then by path."""
        word = args[option]
        pool_word = args.get(pool_option) if pool_option else None
        pool = None
        if pool_word is not None:
            pool = self.pool(pool_word)
            if not self.storage.storage_pool_is_active(pool):
                raise CommandError(f"pool '{pool_word}' is not active")
        found = self._volume(word, pool, pool_option)
        if pool is not None and found.pool != pool.name:
            raise CommandError(f"Requested volume '{word}' is not in pool '{pool.name}'")
        return found

    def _volume(self, word: str, pool: PoolRef | None, pool_option: str | None) -> VolumeRef:
        find = self.storage
        hint = f", specifying --{pool_option} might help" if pool is None and pool_option else ""
        return _found(
            f"failed to get vol '{word}'{hint}",
            pool is not None and (lambda: find.storage_vol_lookup_by_name(pool, word)),
            lambda: find.storage_vol_lookup_by_key(word),
            lambda: find.storage_vol_lookup_by_path(word),
        )


def _found(tried: str, *ways: Callable[[], Ref] | bool) -> Ref:
    """What the first of several ways of looking finds; the last one's error is why nothing was found."""
    cause: VirtError | None = None
    for way in ways:
        if callable(way):
            try:
                return way()
            except VirtError as error:
                cause = error
    raise CommandError(tried, cause)


@contextlib.contextmanager
def failing(tried: str) -> Iterator[None]:
    """Say what was tried when libvirt's error, or the host's, ends a command."""
    try:
        yield
    except CommandError:
        raise
    except HostelError as error:
        raise CommandError(tried, error) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandError(tried, OSError(f"{error.filename or ''}: {sentence(error)}".lstrip(": "))) from error


def read_document(path: str, *, errors: str = "strict") -> str:
    """Read the XML document that a command was given; ``errors`` as for decoding.

    Raises:
        CommandError: it cannot be read; in virsh's words.
    """
    try:
        with Path(path).open("rb") as stream:
            data = stream.read(MAX_DOCUMENT + 1)
        if len(data) > MAX_DOCUMENT:
            raise CommandError(f"Failed to read file '{path}': Value too large for defined data type")
        return data.decode(errors=errors)
    except OSError as error:
        verb = "read" if error.filename is None or error.errno == errno.EISDIR else "open"
        raise CommandError(f"Failed to {verb} file '{path}': {sentence(error)}") from error
    except UnicodeDecodeError as error:
        raise CommandError(f"Failed to read file '{path}': byte {error.start} is not UTF-8") from error


VALIDATE: Final = flag("validate", "refuse what the schema does not have")


def validated(args: Args, xml: str, kind: str) -> str:
    """A document, held against its schema where ``--validate`` asks for it.

    Raises:
        VirtError: ``XML_INVALID_SCHEMA``.
    """
    if args.has("validate"):
        from hostel.drivers.schema import check_schema

        check_schema(xml, kind)
    return xml


def yes_no(value: bool) -> str:
    """A truth as virsh prints it."""
    return "yes" if value else "no"
