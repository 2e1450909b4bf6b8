"""Who knows a user and a password: libvirt's ``auth.conf``, and else the program that connects is asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from hostel.errors import ErrorCode, ErrorDomain, VirtError

# virConnectCredentialType, as far as it is asked for.
AUTHNAME: Final = 2
PASSPHRASE: Final = 5
NOECHOPROMPT: Final = 7


class Question(NamedTuple):
    """What a program is asked: libvirt's ``virConnectCredential`` without its answer."""

    kind: int
    prompt: str
    challenge: str | None = None
    default: str | None = None


class Asking(NamedTuple):
    """A program that can be asked.

    Attributes:
        kinds: of the questions that it answers.
        ask: asks all of some questions; the answers in their order, or None where it will not answer.
    """

    kinds: Sequence[int]
    ask: Callable[[Sequence[Question]], Sequence[str | None] | None]


class Credentials(NamedTuple):
    """A user and a password, or what is known of them."""

    user: str | None
    password: str | None


def ask_user(asking: Asking | None, host: str) -> str:
    """Ask for a user's name.

    Raises:
        VirtError: nobody is there to be asked, or says it.
    """
    return _asked(asking, (AUTHNAME,), f"Enter username for {host}", host, "Username", "VIR_CRED_AUTHNAME")


def ask_password(asking: Asking | None, user: str, host: str) -> str:
    """Ask for a user's password.

    Raises:
        VirtError: nobody is there to be asked, or says it.
    """
    kinds = (PASSPHRASE, NOECHOPROMPT)
    named = "VIR_CRED_PASSPHRASE or VIR_CRED_NOECHOPROMPT"
    return _asked(asking, kinds, f"Enter {user}'s password for {host}", host, "Password", named)


def _asked(asking: Asking | None, kinds: Sequence[int], prompt: str, host: str, what: str, named: str) -> str:
    if asking is None:
        text = "invalid argument: Missing authentication credentials"
        raise VirtError(ErrorCode.INVALID_ARG, text, domain=ErrorDomain.AUTH)
    kind = next((kind for kind in asking.kinds if kind in kinds), None)
    if kind is None:
        raise _failed(f"Missing {named} credential type")
    answers = asking.ask([Question(kind, prompt, host)])
    if not answers or answers[0] is None:
        raise _failed(f"{what} request failed")
    return answers[0]


def find_credentials(service: str, host: str, settings: Mapping[str, str]) -> Credentials | None:
    """What libvirt's ``auth.conf`` has for a service of a host; None where it has nothing.

    Args:
        service: ``libvirt`` for daemons, and else the driver's.
        host: its name.
        settings: of the URI, which may name another file.

    Raises:
        VirtError: the file is none.
    """
    import configparser

    path = _file(settings)
    if path is None:
        return None
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read(path, encoding="utf-8")
        for section in (f"auth-{service}-{host}", f"auth-{service}-default"):
            if parser.has_section(section):
                found = parser[f"credentials-{parser[section]['credentials']}"]
                return Credentials(found.get("authname") or found.get("username"), found.get("password"))
    except (configparser.Error, KeyError, UnicodeDecodeError) as error:
        raise _failed(f"'{path}' is not usable: {error}", ErrorDomain.REMOTE) from None
    return None


def _file(settings: Mapping[str, str]) -> Path | None:
    if "authfile" in settings:
        return Path(settings["authfile"])
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    candidates = (os.environ.get("LIBVIRT_AUTH_FILE"), home / "libvirt" / "auth.conf", "/etc/libvirt/auth.conf")
    return next((Path(path) for path in candidates if path and Path(path).is_file()), None)


def _failed(reason: str, domain: ErrorDomain = ErrorDomain.AUTH) -> VirtError:
    return VirtError(ErrorCode.AUTH_FAILED, f"authentication failed: {reason}", domain=domain)
