"""``--unattended``: an installation that asks nothing, because libosinfo's scripts answer the installer."""

from __future__ import annotations

import copy
import getpass
import locale
import os
import pwd
import re
from pathlib import Path
from typing import Any, Final, NamedTuple

from lxml import etree

from hostel.cli.virt_install import answers, osinfo
from hostel.cli.virt_install.answers import Known, Script
from hostel.cli.virt_install.database import PACKAGE, Database, System, TreeNote
from hostel.cli.virt_install.guest import Guest
from hostel.cli.virt_install.storage import is_url
from hostel.cli.virt_install.suboption import Refusal, Sub, SubOptions
from hostel.cli.virt_install.tree import Node
from hostel.errors import UsageError

UNATTENDED: Final = SubOptions(
    "--unattended",
    tuple(
        Sub(name)
        for name in (
            "profile", "admin-password-file", "user-login", "user-password-file", "product-key", "reg-login"
        )
    ),
    clears=False,
)  # fmt: skip
_FILES: Final = ("admin-password-file", "user-password-file")
_PREFERRED: Final = "desktop"  # of the profiles, where none is named
_UNSAFE: Final = "root"  # no name for a user
_NO_HOST_NAME: Final = re.compile(r"[{|}~\[\]^':; <=>?@!\"#$%`()+/.,*&\\]")  # installers refuse such a computer's name
_ZONE: Final = Path("/etc/localtime")
_INSTEAD: Final = (
    "answer its installer by a script of your own: "
    "--location TREE --initrd-inject ks.cfg --extra-args inst.ks=file:/ks.cfg (Fedora, RHEL), "
    "--location TREE --initrd-inject preseed.cfg --extra-args auto (Debian); "
    "or boot an image of the distribution: --import --cloud-init"
)
# What a driver for one of libosinfo's devices adds to the hardware that a system has drivers for.
_DRIVEN: Final = {
    "1000": "net", "1041": "net", "1001": "disk", "1042": "disk", "1004": "scsi", "1048": "scsi",
    "1003": "serial", "1043": "serial", "1005": "rng", "1044": "rng", "1002": "balloon", "1045": "balloon",
}  # fmt: skip
_VIRTIO: Final = "http://pcisig.com/pci/1af4/"


class Source(NamedTuple):
    """What a system is installed from.

    Attributes:
        method: how files reach the installer from it: ``initrd`` or ``cdrom``.
        tree: the address or directory of a tree.
        medium: a CD-ROM image.
        note: what a tree says of itself.
    """

    method: str
    tree: str | None = None
    medium: str | None = None
    note: TreeNote | None = None

    @property
    def url(self) -> str | None:
        """The address of a tree on a network."""
        return self.tree if self.tree is not None and is_url(self.tree) else None


class Answers(NamedTuple):
    """What an installer is given: files by name, and what its kernel is told."""

    files: dict[str, bytes]
    arguments: str
    warnings: list[str]


class Unattended:
    """What ``--unattended`` says.

    Attributes:
        profile: what is to be installed; None where the user leaves it open.

    Raises:
        UsageError: it says something else, or a file that it names cannot be read.
    """

    def __init__(self, text: str, database: Database) -> None:
        given = UNATTENDED.read(text)
        unknown = [name for name in given if UNATTENDED.find(name) is None]
        if unknown:
            raise Refusal(f"Unknown --unattended options: {unknown}")
        self._given: dict[str, str] = {}
        for name, value in given.items():
            if value is None:
                raise UsageError(f"Error: --unattended {text}: Option '{name}' had no value set.")
            self._given[name] = _first_line(name, value) if name in _FILES else value
        self.profile = self._given.get("profile")
        self._database = database

    def add_drivers(self, guest: Guest) -> None:
        """Let the machine have the devices that its installer gets drivers for."""
        found = self._database.system(guest.system.name) if guest.hardware.windows else None
        if found is None:
            return
        devices = [device.get("id", "") for driver in found.drivers(guest.arch) for device in driver.iterfind("device")]
        driven = {_DRIVEN.get(device.removeprefix(_VIRTIO)) for device in devices if device.startswith(_VIRTIO)}
        added: dict[str, Any] = {name: True for name in driven if name is not None}
        guest.system = guest.system._replace(hardware=guest.hardware._replace(**added))

    def drivers(self, guest: Guest) -> list[tuple[str, str]]:
        """The addresses of directories, and in each the name of a file, that the installer gets besides the answers."""
        found = self._database.system(guest.system.name)
        if found is None:
            return []
        return [
            (driver.get("location", ""), file.text or "")
            for driver in found.drivers(guest.arch)
            for file in driver.iterfind("file")
        ]

    def answers(self, guest: Guest, source: Source) -> Answers:
        """Make what answers the installer.

        Raises:
            UsageError: there is nothing for this system, or something is missing that it needs.
        """
        system = self._system(guest.system)
        medium = None
        if source.medium is not None and (told := osinfo.describe(source.medium)) is not None:
            medium = self._database.identify(told)
        tree = self._tree(source)
        warnings: list[str] = []
        if source.method == "cdrom" and not guest.hardware.windows:
            warnings.append(
                "Attempting unattended method=cdrom injection for a non-windows OS. If this doesn't work, try passing "
                "install media to --location"
            )
        scripts = self._scripts(guest.system.name, system, medium, warnings)
        files: dict[str, bytes] = {}
        arguments: list[str] = []
        for script in scripts:
            if source.method not in script.methods:
                raise UsageError(
                    f"OS '{guest.system.name}' does not support required injection method '{source.method}'"
                )
            known = Known(system, medium, source.method, self._config(guest, script, source.url), tree)
            files[os.path.basename(script.filename)] = script.render(answers.SCRIPT, known).encode()
            if source.method == "initrd":
                arguments.append(script.render(answers.ARGUMENTS, known))
        return Answers(files, " ".join(filter(None, arguments)), warnings)

    def _tree(self, source: Source) -> Node | None:
        """The database's tree, with the address where it is found unless the database knows a better one."""
        found = self._database.identify_tree(source.note) if source.note is not None else None
        if found is None or found.find("url") is not None or source.tree is None:
            return found
        tree = copy.deepcopy(found)
        etree.SubElement(tree, "url").text = source.url or f"file://{source.tree}"
        return tree

    def _system(self, known: osinfo.System) -> System:
        found = self._database.system(known.name)
        if found is not None and found.scripts():
            return found
        why = f"OS '{known.name}' does not support unattended installation."
        if not self._database.is_there:
            raise UsageError(f"{why} The scripts for it come with {PACKAGE}, which is not installed.")
        raise UsageError(f"{why} {_INSTEAD[0].upper()}{_INSTEAD[1:]}")

    def _scripts(self, name: str, system: System, medium: Node | None, warnings: list[str]) -> list[Script]:
        """The scripts of the profile."""
        identifiers = system.scripts()
        if medium is not None:
            if medium.get("installer-script", "true") != "true":
                raise UsageError(f"OS '{name}' media does not support unattended installation")
            own = [script.get("id", "") for script in medium.iterfind("installer/script")]
            identifiers = own or identifiers
        elements = [self._database.script(identifier) for identifier in identifiers]
        scripts = [Script(self._database, element) for element in elements if element is not None]
        profiles = sorted({script.profile for script in scripts})
        if not profiles:
            raise UsageError(f"OS '{name}' does not support unattended installation.")
        profile = self.profile
        if profile is None:
            profile = _PREFERRED if _PREFERRED in profiles else profiles[0]
            warnings.append(f"Using unattended profile '{profile}'")
        if profile not in profiles:
            raise UsageError(
                f"OS '{name}' does not support unattended installation for the '{profile}' profile. "
                f"Available profiles: {', '.join(profiles)}"
            )
        return [script for script in scripts if script.profile == profile]

    def _config(self, guest: Guest, script: Script, url: str | None) -> dict[str, str]:
        """The configuration, by libosinfo's names."""
        name = guest.system.name
        config: dict[str, str] = {}
        login, real_name = self._given.get("user-login"), self._given.get("user-login")
        if not login:
            login, real_name = _of_host()
        if login and real_name is not None:
            if login.lower() == _UNSAFE:
                raise UsageError(f"{name} cannot use '{login.lower()}' as user-login.")
            config |= {"user-login": login.lower(), "user-realname": real_name}
        for who in ("user", "admin"):
            password = self._given.get(f"{who}-password-file", "")
            if script.requires(f"{who}-password") and not password:
                raise UsageError(
                    f"{name} requires the {who}-password to be set. "
                    f"Name a file with it: --unattended {who}-password-file=FILE"
                )
            config[f"{who}-password"] = password
        is_windows = guest.hardware.windows
        config |= {
            "target-disk": "C" if is_windows else "/dev/vda" if guest.hardware.disk else "/dev/sda",
            "hardware-arch": guest.arch,
            "hostname": _NO_HOST_NAME.sub("-", guest.name),
        }
        optional = {
            "l10n-timezone": _time_zone(),
            "l10n-language": (language := locale.getlocale()[0]),
            "l10n-keyboard": language,
            "installation-url": url,
            "reg-login": self._given.get("reg-login"),
            "reg-product-key": self._given.get("product-key"),
        }
        return config | {key: value for key, value in optional.items() if value}


def _first_line(name: str, path: str) -> str:
    """The password in a file."""
    try:
        with Path(path).open() as file:
            return file.readline().rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise UsageError(f"--unattended {name}={path}: {getattr(error, 'strerror', None) or error}") from None


def _of_host() -> tuple[str | None, str | None]:
    """The user of this host, who is one of the new system's, too."""
    try:
        name = getpass.getuser()
        return (None, None) if name == _UNSAFE else (name, pwd.getpwnam(name).pw_gecos)
    except (KeyError, OSError):
        return None, None


def _time_zone() -> str | None:
    return os.path.realpath(_ZONE).partition("zoneinfo/")[2] or None
