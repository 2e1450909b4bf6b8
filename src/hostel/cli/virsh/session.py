"""What a virsh command works with: the connection, where it prints, and how it finds the objects that are named."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from hostel.cli.options import Args
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
from hostel.errors import HostelError, VirtError


class Connection(Protocol):
    """The drivers behind one URI."""

    uri: str
    hypervisor: HypervisorDriver
    storage: StorageDriver
    network: NetworkDriver

    def close(self) -> None:
        """Release the drivers."""


class CommandError(HostelError):
    """A command failed: what was tried, and why where that is known; each is a line of its own."""

    def __init__(self, tried: str, cause: Exception | None = None) -> None:
        super().__init__(tried if cause is None else f"{tried}\n{cause}")
        self.tried = tried


class Session:
    """One run of virsh; the connection is opened by the first command that needs it."""

    def __init__(self, output: Output, uri: str, opener: Callable[[str], Connection]) -> None:
        self.output = output
        self.uri = uri
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
                self._connection = self._opener(self.uri)
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

    def reconnect(self, uri: str | None) -> None:
        """Close, and open again: the same URI, or another."""
        self.close()
        self.uri = uri or self.uri
        _ = self.connection

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def domain(self, args: Args, *, by_id: bool = True) -> DomainRef:
        """The domain that ``--domain`` names: by id, then UUID, then name."""
        word = args["domain"]
        if by_id and word.isdecimal() and int(word) < 2**31:
            with contextlib.suppress(VirtError):
                return self.hypervisor.domain_lookup_by_id(int(word))
        if len(word) == 36:
            with contextlib.suppress(VirtError):
                return self.hypervisor.domain_lookup_by_uuid(word)
        try:
            return self.hypervisor.domain_lookup_by_name(word)
        except VirtError:
            raise CommandError(f"failed to get domain '{word}'") from None

    def pool(self, word: str) -> PoolRef:
        """The pool that a word names: by UUID, then name."""
        if len(word) == 36:
            with contextlib.suppress(VirtError):
                return self.storage.storage_pool_lookup_by_uuid(word)
        with failing(f"failed to get pool '{word}'"):
            return self.storage.storage_pool_lookup_by_name(word)

    def volume(self, args: Args, *, option: str = "vol", pool_option: str = "pool") -> VolumeRef:
        """The volume that an option names: by name in ``--pool``, then key, then path."""
        word = args[option]
        pool = args.get(pool_option)
        if pool is not None:
            found = self.pool(pool)
            if not self.storage.storage_pool_is_active(found):
                raise CommandError(f"pool '{pool}' is not active")
            with contextlib.suppress(VirtError):
                return self.storage.storage_vol_lookup_by_name(found, word)
        with contextlib.suppress(VirtError):
            return self.storage.storage_vol_lookup_by_key(word)
        hint = "" if pool is not None else ", specifying --pool might help"
        with failing(f"failed to get vol '{word}'{hint}"):
            return self.storage.storage_vol_lookup_by_path(word)

    def find_network(self, word: str) -> NetworkRef:
        """The network that a word names: by UUID, then name."""
        if len(word) == 36:
            with contextlib.suppress(VirtError):
                return self.network.network_lookup_by_uuid(word)
        with failing(f"failed to get network '{word}'"):
            return self.network.network_lookup_by_name(word)


@contextlib.contextmanager
def failing(tried: str) -> Iterator[None]:
    """Say what was tried when libvirt's error, or the host's, ends a command."""
    try:
        yield
    except CommandError:
        raise
    except HostelError as error:
        raise CommandError(tried, error) from error
    except OSError as error:
        raise CommandError(tried, OSError(f"{error.filename or ''}: {error.strerror}".lstrip(": "))) from error


def read_document(path: str) -> str:
    """Read the XML document that a command was given.

    Raises:
        CommandError: it cannot be read; in virsh's words.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise CommandError(f"Failed to open file '{path}': {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CommandError(f"Failed to read file '{path}': byte {error.start} is not UTF-8") from error


def yes_no(value: bool) -> str:
    """A truth as virsh prints it."""
    return "yes" if value else "no"
