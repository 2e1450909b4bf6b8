"""``--location``: an installation tree, and the kernel that starts the installation from it.

A tree is a directory, a CD-ROM image or an address; what a ``.treeinfo`` names is taken, or what is where the usual
distributions have it. Nothing outside of the tree is read, whatever it says.
"""

from __future__ import annotations

import configparser
import gzip
import os
import shutil
import stat
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, BinaryIO, Final, NamedTuple, Protocol
from urllib.error import URLError

from hostel.cli.virt_install.database import TreeNote
from hostel.cli.virt_install.storage import is_url
from hostel.cli.virt_install.suboption import Sub, SubOptions
from hostel.errors import UsageError
from hostel.units import GiB, MiB

_TIMEOUT: Final = 30.0  # seconds without a byte
_LONGEST: Final = 3600.0  # seconds for one file
_LARGEST: Final = 4 * GiB
_LARGEST_NOTE: Final = MiB  # of a .treeinfo
_PIECE: Final = MiB
_SCHEMES: Final = ("http", "https", "ftp")
_DEBIAN: Final = {"x86_64": "amd64", "i686": "i386", "aarch64": "arm64"}
_ARCHES: Final = {"i686": ("i386", "i686"), "x86_64": ("x86_64",)}

LOCATION: Final = SubOptions(
    "--location",
    (Sub("location", comma=True), Sub("kernel", comma=True), Sub("initrd", comma=True)),
    ("location",),
    clears=False,
)


class Kernel(NamedTuple):
    """What starts an installation: paths in the tree, and the option by which it finds the tree again."""

    kernel: str
    initrd: str
    repository: str = ""  # such as "inst.repo="
    system: str | None = None  # the name of the system, where the tree tells
    note: TreeNote | None = None  # what else it tells


class Tree(Protocol):
    """An installation tree."""

    def read(self, path: str) -> bytes | None:
        """The bytes of a small file; None where there is none."""

    def has(self, path: str) -> bool:
        """Whether there is such a file."""

    def fetch(self, path: str, target: Path) -> None:
        """Copy a file to ``target``."""


class _OpenedTree(ABC):
    """A tree whose files can be read from an open stream."""

    @abstractmethod
    def _open(self, path: str) -> IO[bytes] | None:
        """The file; None where there is none.

        Raises:
            UsageError: it cannot be told, or is outside the tree.
        """

    def read(self, path: str) -> bytes | None:
        """See :class:`Tree`."""
        stream = self._open(path)
        if stream is None:
            return None
        with stream:
            return stream.read(_LARGEST_NOTE)

    def has(self, path: str) -> bool:
        """See :class:`Tree`."""
        stream = self._open(path)
        if stream is not None:
            stream.close()
        return stream is not None


class DirectoryTree(_OpenedTree):
    """A directory of this host."""

    def __init__(self, root: str) -> None:
        self._root = os.path.realpath(root)

    def _open(self, path: str) -> IO[bytes] | None:
        found = os.path.realpath(os.path.join(self._root, path))
        if os.path.commonpath([found, self._root]) != self._root:
            raise UsageError(f"the tree's '{path}' is outside of it")
        try:
            stream = open(found, "rb")  # noqa: SIM115  # closed by who reads it
        except OSError:
            return None
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            stream.close()
            return None
        return stream

    def fetch(self, path: str, target: Path) -> None:
        """See :class:`Tree`."""
        stream = self._open(path)
        if stream is None:
            raise UsageError(f"the tree has no '{path}'")
        with stream, target.open("xb") as copy:
            shutil.copyfileobj(stream, copy)


class UrlTree(_OpenedTree):
    """A tree on a web or FTP server."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def _open(self, path: str) -> IO[bytes] | None:
        try:
            response: IO[bytes] = urllib.request.urlopen(f"{self._url}/{path}", timeout=_TIMEOUT)
        except (URLError, OSError, ValueError) as error:
            code = getattr(error, "code", None)
            if code in (403, 404, 410) or "550" in str(error):
                return None
            raise UsageError(f"{self._url}/{path}: {getattr(error, 'reason', None) or error}") from None
        return response

    def fetch(self, path: str, target: Path) -> None:
        """See :class:`Tree`."""
        response = self._open(path)
        if response is None:
            raise UsageError(f"{self._url} has no '{path}'")
        deadline, written = time.monotonic() + _LONGEST, 0
        with response, target.open("xb") as copy:
            while piece := response.read(_PIECE):
                written += len(piece)
                if written > _LARGEST or time.monotonic() > deadline:
                    raise UsageError(f"{self._url}/{path} does not end")
                copy.write(piece)


class IsoTree:
    """A CD-ROM image."""

    def __init__(self, path: str) -> None:
        try:
            import pycdlib
            from pycdlib.pycdlibexception import PyCdlibException
        except ImportError:
            raise UsageError(
                f"{path}: CD-ROM images are read by pycdlib: pip install 'hostel[iso]', or mount it and name the "
                "directory"
            ) from None
        self._error = PyCdlibException
        self._iso = pycdlib.PyCdlib()
        self._path = path
        try:
            self._iso.open(path)
        except (PyCdlibException, OSError) as error:
            raise UsageError(f"{path} is no CD-ROM image: {error}") from None
        self._kind = (
            "rr_path" if self._iso.has_rock_ridge() else "joliet_path" if self._iso.has_joliet() else "iso_path"
        )

    def _names(self, path: str) -> list[str]:
        plain = f"/{path.lstrip('/')}"
        return [plain] if self._kind != "iso_path" else [f"{plain.upper()};1", f"{plain.upper()}.;1"]

    def _copy(self, path: str, stream: BinaryIO) -> bool:
        for name in self._names(path):
            try:
                self._iso.get_file_from_iso_fp(stream, **{self._kind: name})
            except (self._error, ValueError, OSError):
                continue
            return True
        return False

    def read(self, path: str) -> bytes | None:
        """See :class:`Tree`."""
        import io

        stream = io.BytesIO()
        return stream.getvalue() if self.has(path) and self._copy(path, stream) else None

    def has(self, path: str) -> bool:
        """See :class:`Tree`."""
        for name in self._names(path):
            try:
                record = self._iso.get_record(**{self._kind: name})
            except (self._error, ValueError):
                continue
            return bool(record.is_file())
        return False

    def fetch(self, path: str, target: Path) -> None:
        """See :class:`Tree`."""
        with target.open("xb") as copy:
            if not self._copy(path, copy):
                raise UsageError(f"{self._path} has no '{path}'")

    def close(self) -> None:
        """Close the image."""
        self._iso.close()


def open_tree(place: str) -> Tree:
    """The tree at a place.

    Raises:
        UsageError: there can be none.
    """
    if place.startswith("nfs:"):
        raise UsageError(
            "NFS URL installs are no longer supported. Access your install media over an alternate transport like "
            "HTTP, or manually mount the NFS share and install from the local directory mount point."
        )
    if is_url(place):
        if place.partition("://")[0] not in _SCHEMES:
            raise UsageError(f"Unsupported location '{place}': write one with {', '.join(_SCHEMES)}, or a path")
        return UrlTree(place)
    if os.path.isdir(place):
        return DirectoryTree(place)
    if os.path.exists(place):
        return IsoTree(place)
    raise UsageError(f"'{place}' is not there")


def detect(tree: Tree, place: str, arch: str) -> Kernel:
    """Find what starts the installation.

    Raises:
        UsageError: it is no tree that we know.
    """
    return (
        _by_note(tree, arch)
        or _by_place(tree, arch)
        or _fail(
            f"Could not find an installable distribution at URL '{place}'\n\nThe location must be the root directory "
            "of an install tree.\nSee virt-install man page for various distro examples."
        )
    )


def _fail(message: str) -> Kernel:
    raise UsageError(f"Error validating install location: {message}")


def _by_note(tree: Tree, arch: str) -> Kernel | None:
    """What the tree itself says in its ``.treeinfo``."""
    note = _note(tree)
    if note is None:
        return None
    own = _general(note)
    sections = [f"images-{name}" for name in (*_ARCHES.get(arch, (arch,)), own.arch)]
    for section in sections:
        if note.has_option(section, "kernel") and note.has_option(section, "initrd"):
            system = _system(own.family, own.version)
            kernel, initrd = note[section]["kernel"], note[section]["initrd"]
            return Kernel(kernel, initrd, _repository(own.family, own.version), system, own)
    return None


def _note(tree: Tree) -> configparser.ConfigParser | None:
    text = tree.read(".treeinfo") or tree.read("treeinfo")
    if text is None:
        return None
    note = configparser.ConfigParser(interpolation=None)
    try:
        note.read_string(text.decode("utf-8", "replace"))
    except configparser.Error:
        return None
    return note


def _general(note: configparser.ConfigParser) -> TreeNote:
    told = note["general"] if note.has_section("general") else {}
    return TreeNote(*(told.get(name, "") for name in ("family", "variant", "version", "arch")))


def told(tree: Tree) -> TreeNote | None:
    """What a tree says of itself; None where it says nothing.

    Raises:
        UsageError: it cannot be read.
    """
    note = _note(tree)
    return None if note is None else _general(note)


def _system(family: str, version: str) -> str | None:
    """The short name of the system that a note names."""
    major = version.partition(".")[0]
    if family == "Fedora":
        return f"fedora{major}"
    if family == "CentOS":
        return f"centos{version}" if major in ("5", "6", "7") else f"centos-stream{major}"
    if family == "Red Hat Enterprise Linux":
        return f"rhel{version}"
    return None


def _repository(family: str, version: str) -> str:
    """The option by which an installer is told where its packages are."""
    if "SUSE" in family:
        return "install="
    major = version.partition(".")[0]
    is_old = major.isdigit() and int(major) < (19 if family == "Fedora" else 7)
    return "method=" if is_old or not family else "inst.repo="


def _by_place(tree: Tree, arch: str) -> Kernel | None:
    """What is where the usual distributions have it."""
    debian = _DEBIAN.get(arch, arch)
    short = debian.removesuffix("64") if debian == "amd64" else debian.removeprefix("i")
    candidates = [
        *(
            Kernel(f"{start}/{kind}-installer/{debian}/linux", f"{start}/{kind}-installer/{debian}/initrd.gz")
            for kind in ("debian", "ubuntu")
            for start in ("current/images/netboot", "current/legacy-images/netboot", ".", "netboot")
        ),
        Kernel(f"install.{short}/vmlinuz", f"install.{short}/initrd.gz"),
        Kernel("install/vmlinuz", "install/initrd.gz"),
        Kernel("casper/vmlinuz", "casper/initrd"),
        Kernel("casper/vmlinuz", "casper/initrd.lz"),
        Kernel(f"boot/{arch}/loader/linux", f"boot/{arch}/loader/initrd", "install="),
        Kernel("images/pxeboot/vmlinuz", "images/pxeboot/initrd.img", "inst.repo="),
        Kernel("isolinux/vmlinuz", "isolinux/initrd.img"),
    ]
    return next((found for found in candidates if tree.has(found.kernel) and tree.has(found.initrd)), None)


def contents(paths: list[str]) -> dict[str, bytes]:
    """The content of files that are to be injected, by their names.

    Raises:
        UsageError: one cannot be read.
    """
    found: dict[str, bytes] = {}
    for path in paths:
        try:
            found[os.path.basename(path)] = Path(path).read_bytes()
        except OSError as error:
            raise UsageError(f"--initrd-inject {path}: {error.strerror}") from None
    return found


def inject(initrd: Path, files: Mapping[str, bytes]) -> None:
    """Put files into the root of an initial RAM disk: one more archive behind those that it has.

    The kernel unpacks them in turn (its documentation, ``driver-api/early-userspace/buffer-format.rst``).
    """
    with initrd.open("ab") as target, gzip.GzipFile(fileobj=target, mode="wb", mtime=0) as archive:
        for number, (name, content) in enumerate(files.items(), 1):
            _add(archive.write, number, name, content, 0o100644)
        _add(archive.write, 0, "TRAILER!!!", b"", 0)


def _add(write: Callable[[bytes], int], inode: int, name: str, content: bytes, mode: int) -> None:
    """Write one entry of an archive as cpio's "new ASCII" format has it: thirteen numbers, the name, the content."""
    encoded = os.fsencode(name) + b"\0"
    fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields)
    for part in (header + encoded, content):
        write(part + bytes(-len(part) % 4))
