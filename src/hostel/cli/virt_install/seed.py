"""``--cloud-init``: a CD-ROM with what cloud-init does at the first boot, which it knows by its label (NoCloud)."""

from __future__ import annotations

import io
import secrets
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hostel.cli.virt_install.suboption import Sub, SubOptions, on_off
from hostel.errors import UsageError

_LABEL: Final = "cidata"
_LENGTH: Final = 16  # characters of a generated password
_LETTERS: Final = string.ascii_letters + string.digits

CLOUD_INIT: Final = SubOptions(
    "--cloud-init",
    (
        Sub("root-password-generate"),
        Sub("root-password-file"),
        Sub("disable"),
        Sub("root-ssh-key", aliases=("ssh-key",)),
        Sub("clouduser-ssh-key"),
        Sub("user-data"),
        Sub("meta-data"),
        Sub("network-config"),
    ),
    clears=False,
)


class Seed:
    """What cloud-init is told.

    Attributes:
        password: the password that was generated for root; None where none was.
    """

    def __init__(self, text: str | None) -> None:
        given = {"root-password-generate": "yes", "disable": "yes"} if text is None else CLOUD_INIT.read(text)
        self._values: dict[str, str] = {}
        for name, value in given.items():
            sub = CLOUD_INIT.find(name)
            if sub is None:
                raise UsageError(f"Unknown --cloud-init options: ['{name}']")
            if value is None:
                raise UsageError(f"Error: --cloud-init {text}: Option '{name}' had no value set.")
            self._values[sub.name] = value
        generates = self._is_on("root-password-generate")
        self.password = "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH)) if generates else None

    def _is_on(self, name: str) -> bool:
        return name in self._values and on_off(name, self._values[name])

    def _read(self, name: str) -> str | None:
        """The content of a file that was named; None where none was."""
        path = self._values.get(name)
        if path is None:
            return None
        try:
            return Path(path).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--cloud-init {name}={path}: {getattr(error, 'strerror', None) or error}") from None

    def _line(self, name: str) -> str | None:
        """The first line of a file that was named."""
        text = self._read(name)
        return None if text is None else text.partition("\n")[0].rstrip("\r")

    def user_data(self) -> str:
        """The document that says what is done.

        Raises:
            UsageError: a file that is named cannot be read.
        """
        text = self._read("user-data")
        if text is not None:
            return text
        lines = ["#cloud-config"]
        password = self._line("root-password-file") or self.password
        if password is not None:
            lines += ["chpasswd:", "  list: |", f"    root:{password}", f"  expire: {bool(self.password)}"]
        root, user = self._line("root-ssh-key"), self._line("clouduser-ssh-key")
        if root or user:
            lines.append("users:")
        if root:
            lines += ["  - name: root", "    ssh-authorized-keys:", f"      - {root}"]
        if user:
            lines.append(f"  - ssh-authorized-keys: {user}")
        if self._is_on("disable"):
            lines += ["runcmd:", '- echo "Disabled by virt-install" > /etc/cloud/cloud-init.disabled']
        return "\n".join(lines) + "\n"

    def write(self, path: Path) -> None:
        """Write the CD-ROM's image, a new file that only its owner reads.

        Raises:
            UsageError: a file that is named cannot be read, or what writes images is not installed.
        """
        files = {"meta-data": self._read("meta-data") or "", "user-data": self.user_data()}
        if (network := self._read("network-config")) is not None:
            files["network-config"] = network
        write_disc(path, _LABEL, {name: content.encode() for name, content in files.items()}, "--cloud-init")


def write_disc(path: Path, label: str, files: Mapping[str, bytes], option: str) -> None:
    """Write a CD-ROM's image, a new file that only its owner reads.

    Args:
        path: the image.
        label: the name of its volume.
        files: what is in its root.
        option: the option of the command line that wants it.

    Raises:
        UsageError: what writes images is not installed.
    """
    try:
        import pycdlib
    except ImportError:
        raise UsageError(f"{option} writes a CD-ROM by pycdlib: pip install 'hostel[iso]'") from None
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, vol_ident=label, joliet=3, rock_ridge="1.09")
    for number, (name, data) in enumerate(files.items()):
        iso.add_fp(io.BytesIO(data), len(data), f"/FILE{number}.;1", rr_name=name, joliet_path=f"/{name}")
    path.touch(0o600, exist_ok=False)
    iso.write(str(path))
    iso.close()
