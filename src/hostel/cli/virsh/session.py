"""What a virsh command works with: the connection, where it prints, and how it finds the objects that are named."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol, TypeVar

from hostel.cli.options import Args, data, flag
from hostel.cli.output import Output
from hostel.drivers.base import (
    DomainRef,
    HypervisorDriver,
    NetworkDriver,
    NetworkRef,
    PoolRef,
    StorageDriver,
    VolumeRef,
)
from hostel.drivers.base.host import HostDriver
from hostel.drivers.base.interface import InterfaceDriver
from hostel.drivers.base.nodedev import NodeDeviceDriver
from hostel.drivers.base.nwfilter import NwfilterDriver
from hostel.drivers.base.secret import SecretDriver
from hostel.errors import HostelError, VirtError

Ref = TypeVar("Ref")
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

    def close(self) -> None:
        """Release the drivers."""


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
    """

    def __init__(
        self, output: Output, uri: str, opener: Opener, *, read_only: bool = False, escape: str = DEFAULT_ESCAPE
    ) -> None:
        self.output = output
        self.uri = uri
        self.read_only = read_only
        self.escape = escape
        self.timing = False
        self.interactive = False
        self.finished = False
        self._opener = opener
        self._connection: Connection | None = None

    @property
    def connection(self) -> Connection:
        """The open connection.

        Raises:
            CommandError: it cannot be opened.
        """
        if self._connection is None:
            with failing("failed to connect to the hypervisor"):
                self._connection = self._opener(self.uri, read_only=self.read_only)
        return self._connection

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
            return self._opener(uri, read_only=False)

    def reconnect(self, uri: str | None, *, read_only: bool) -> None:
        """Close, and open again: the same URI, or another."""
        self.close()
        self.uri = uri or self.uri
        self.read_only = read_only
        _ = self.connection

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def domain(self, args: Args, *, by_id: bool = True, by_uuid: bool = True, by_name: bool = True) -> DomainRef:
        """The domain that ``--domain`` names: by id, then UUID, then name."""
        word = args["domain"]
        if by_id and word.isascii() and word.isdecimal() and int(word) <= _MAX_ID:
            with contextlib.suppress(VirtError):
                return self.hypervisor.domain_lookup_by_id(int(word))
        if by_uuid and len(word) == _UUID_LENGTH:
            with contextlib.suppress(VirtError):
                return self.hypervisor.domain_lookup_by_uuid(word)
        if by_name:
            with contextlib.suppress(VirtError):
                return self.hypervisor.domain_lookup_by_name(word)
        raise CommandError(f"failed to get domain '{word}'")

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
        raise CommandError(tried, OSError(f"{error.filename or ''}: {error.strerror}".lstrip(": "))) from error


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
        raise CommandError(f"Failed to {verb} file '{path}': {error.strerror}") from error
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
