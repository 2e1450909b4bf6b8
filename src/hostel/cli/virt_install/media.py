"""What an installation starts from, fetched and made ready in a directory of its own that is gone when it is over."""

from __future__ import annotations

import os
import shutil
import tempfile
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from hostel.cli.output import Output
from hostel.cli.virt_install import location, osinfo
from hostel.cli.virt_install.arguments import BARE
from hostel.cli.virt_install.console import warn
from hostel.cli.virt_install.database import Database, TreeNote, name_of
from hostel.cli.virt_install.seed import Seed, write_disc
from hostel.cli.virt_install.storage import Medium, Storage, is_url
from hostel.cli.virt_install.suboption import Given, Refusal, Sub, SubOptions, on_off
from hostel.cli.virt_install.unattended import Answers, Unattended
from hostel.errors import UsageError

INSTALL: Final = SubOptions(
    "--install",
    (
        *(Sub(name, comma=True) for name in ("bootdev", "kernel", "initrd", "kernel_args")),
        Sub("kernel_args_overwrite"),
        Sub("os"),
        Sub("no_install"),
    ),
    ("os",),
    clears=False,
)
_PREFIX: Final = "virtinst-"
_ANSWERS: Final = "CDROM"  # the label of a CD-ROM with answers, of which nobody asks


class Start(NamedTuple):
    """A kernel that is booted for the installation, and what it is told."""

    kernel: str
    initrd: str | None
    arguments: str
    system: str | None = None
    medium: Medium | None = None  # the CD-ROM that it came from, which it goes on reading
    tree: str | None = None  # the address or directory that it came from
    note: TreeNote | None = None  # what that says of itself
    overwrites: bool = False  # whether what it is told is the user's alone


class Media:
    """The files of one installation; :meth:`close` removes them."""

    def __init__(
        self,
        scratch: Path,
        storage: Storage,
        options: Namespace,
        database: Database,
        unattended: Unattended | None,
        output: Output,
        *,
        is_remote: bool,
    ) -> None:
        self._output = output
        self._parent = scratch
        self._storage = storage
        self._options = options
        self._database = database
        self._unattended = unattended
        self._is_remote = is_remote
        self._directory: Path | None = None

    def __enter__(self) -> Media:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove what was fetched and made."""
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def _place(self, name: str) -> Path:
        if self._directory is None:
            self._parent.mkdir(parents=True, exist_ok=True)
            self._directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._parent))
        return self._directory / name

    def install(self) -> Given:
        """What ``--install`` says."""
        given = INSTALL.read(self._options.install or "")
        unknown = [name for name in given if INSTALL.find(name) is None]
        if unknown:
            raise Refusal(f"Unknown --install options: {unknown}")
        return given

    def location_of(self, name: str, arch: str) -> str:
        """Where the tree of a system is.

        Raises:
            UsageError: that is not known.
        """
        if not osinfo.find(name).is_known:
            raise UsageError(f"Unknown OS name '{name}'. See `--osinfo list` for valid values.")
        system = self._database.system(name)
        if system is None or not system.has_trees:
            raise UsageError(f"OS '{name}' does not have a URL location: name its tree with --location URL")
        found = system.location(arch, self._unattended.profile if self._unattended is not None else None)
        if found is None:
            raise UsageError(f"OS '{name}' does not have a URL location for the architecture '{arch}'")
        return found

    def start(self, arch: str) -> Start | None:
        """The kernel of ``--location`` or ``--install``; None where there is none.

        Raises:
            UsageError: there is no tree, or it cannot be fetched.
        """
        given, extra = self.install(), list(self._options.extra_args or [])
        arguments = given.get("kernel_args")
        overwrites = on_off("kernel_args_overwrite", given.get("kernel_args_overwrite") or "no")
        if arguments and not overwrites:
            extra = [arguments]
        if name := given.get("os"):
            place = self.location_of(name, arch)
            self._output.note(f"Using {name} --location {place}")
            start = self._from_tree(arch, extra, {"location": place})
        elif given.get("kernel") and not self._options.cdrom:
            start = self._from_files(given, extra)
        elif self._options.location:
            start = self._from_tree(arch, extra, location.LOCATION.read(self._options.location))
        else:
            self._refuse_needless(extra)
            return None
        return start._replace(arguments=arguments, overwrites=True) if arguments and overwrites else start

    def _refuse_needless(self, extra: list[str]) -> None:
        if extra:
            raise UsageError("Kernel arguments are only supported with location or kernel installs.")
        if self._options.initrd_inject:
            raise UsageError("Install method does not support initrd injections.")

    def _from_tree(self, arch: str, extra: list[str], given: Given) -> Start:
        unknown = [name for name in given if location.LOCATION.find(name) is None]
        if unknown:
            raise Refusal(f"Unknown --location options: {unknown}")
        place, kernel, initrd = (given.get(name) for name in ("location", "kernel", "initrd"))
        if not place:
            raise UsageError("location kernel/initrd may only be specified with a location URL/path")
        if bool(kernel) != bool(initrd):
            raise UsageError("location kernel/initrd must be be specified as a pair")
        if self._is_remote and not is_url(place):
            raise UsageError(f"Cannot access install tree on remote connection: {place}")
        place = place if is_url(place) else os.path.abspath(place)
        try:
            tree = location.open_tree(place)
        except UsageError as error:
            raise UsageError(f"Error validating install location: {error}") from error
        try:
            found = location.Kernel(kernel, initrd) if kernel and initrd else location.detect(tree, place, arch)
            system = self._system(found, tree)
            paths = [self._fetch(tree, path) for path in (found.kernel, found.initrd)]
        finally:
            if isinstance(tree, location.IsoTree):
                tree.close()
        if self._options.initrd_inject:
            location.inject(paths[1], location.contents(self._options.initrd_inject))
        if found.repository and is_url(place) and self._unattended is None:
            extra.append(f"{found.repository}{place}")
        medium = self._storage.locate(place) if isinstance(tree, location.IsoTree) else None
        tells = " ".join(extra)
        if isinstance(tree, location.DirectoryTree) and not tells and self._unattended is None:
            warn(
                self._output,
                "Directory tree installs typically do not work unless extra kernel args are passed to point the "
                "installer at a network accessible install tree.",
            )
        origin = None if medium else place
        return Start(str(paths[0]), str(paths[1]), tells, system, medium, origin, found.note)

    def _system(self, found: location.Kernel, tree: location.Tree) -> str | None:
        """The name of the system that a tree holds, which libosinfo's database knows best."""
        note = found.note or location.told(tree)
        element = self._database.identify_tree(note) if note is not None else None
        return (name_of(element) if element is not None else None) or found.system

    def _fetch(self, tree: location.Tree, path: str) -> Path:
        target = self._place(os.path.basename(path))
        tree.fetch(path, target)
        return target

    def _from_files(self, given: Given, extra: list[str]) -> Start:
        paths: list[str | None] = []
        for name in ("kernel", "initrd"):
            path = given.get(name)
            if not path:
                paths.append(None)
                continue
            if not is_url(path) and not os.path.isfile(path):
                raise UsageError(f"Couldn't acquire file {path}: there is no such file")
            directory, base = os.path.split(path if is_url(path) else os.path.abspath(path))
            tree = location.UrlTree(directory) if is_url(path) else location.DirectoryTree(directory)
            paths.append(str(self._fetch(tree, base)))
        kernel, initrd = paths
        assert kernel is not None
        if self._options.initrd_inject:
            if initrd is None:
                raise UsageError("Install method does not support initrd injections.")
            location.inject(Path(initrd), location.contents(self._options.initrd_inject))
        return Start(kernel, initrd, " ".join(extra))

    def answered(self, start: Start, answers: Answers) -> Start:
        """Put what answers the installer where it starts from, and tell it.

        Raises:
            UsageError: there is nothing to put it into.
        """
        if start.initrd is None:
            raise UsageError("Install method does not support initrd injections.")
        location.inject(Path(start.initrd), answers.files)
        if start.overwrites:
            return start
        return start._replace(arguments=" ".join(filter(None, (start.arguments, answers.arguments))))

    def disc(self, files: Mapping[str, bytes], drivers: list[tuple[str, str]]) -> str:
        """A CD-ROM with what answers the installer, and drivers for it.

        Args:
            files: the answers.
            drivers: the address of a directory and the name of a file in it, for each.

        Raises:
            UsageError: a driver cannot be fetched.
        """
        fetched: dict[str, bytes] = {}
        for place, name in drivers:
            base = os.path.basename(name)
            target = self._place(f"driver-{len(fetched)}")
            location.UrlTree(place).fetch(name, target)
            fetched[base] = target.read_bytes()
            target.unlink()
        path = self._place("unattended.iso")
        write_disc(path, _ANSWERS, {**fetched, **files}, "--unattended")
        return str(path)

    def seed(self) -> tuple[Seed, str] | None:
        """What ``--cloud-init`` says, and the CD-ROM with it; None where it is not given.

        Raises:
            UsageError: a file that it names cannot be read.
        """
        if not self._options.cloud_init or self._options.cloud_init == "none":
            return None
        seed = Seed(None if self._options.cloud_init is BARE else self._options.cloud_init)
        path = self._place("cloudinit.iso")
        seed.write(path)
        return seed, str(path)
