"""``--unattended``: what it says is read, and refused: the scripts that would answer an installer are libosinfo's."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Final

from hostel.cli.virt_install.suboption import Refusal, Sub, SubOptions
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
_INSTEAD: Final = (
    "scripts for installers come with libosinfo, which is not read. Write one, and hand it over: "
    "--location TREE --initrd-inject ks.cfg --extra-args inst.ks=file:/ks.cfg (Fedora, RHEL), "
    "--location TREE --initrd-inject preseed.cfg --extra-args auto (Debian); "
    "or boot an image of the distribution: --import --cloud-init"
)


def refuse(options: Namespace, system: str) -> None:
    """Refuse an unattended installation of a system, where one is asked for; what is wrong with it is said first.

    Raises:
        UsageError: one is asked for.
    """
    text = options.unattended
    if text is None or text == "none":
        return
    given = UNATTENDED.read(text)
    unknown = [name for name in given if UNATTENDED.find(name) is None]
    if unknown:
        raise Refusal(f"Unknown --unattended options: {unknown}")
    for name, value in given.items():
        if value is None:
            raise UsageError(f"Error: --unattended {text}: Option '{name}' had no value set.")
        if name in _FILES:
            _check_readable(name, value)
    if (given.get("user-login") or "").lower() == "root":
        raise UsageError(f"{system} cannot use 'root' as user-login.")
    raise UsageError(f"OS '{system}' does not support unattended installation: {_INSTEAD}")


def _check_readable(name: str, path: str) -> None:
    try:
        with Path(path).open("rb") as file:
            file.read(1)
    except (OSError, ValueError) as error:
        raise UsageError(f"--unattended {name}={path}: {getattr(error, 'strerror', None) or error}") from None
