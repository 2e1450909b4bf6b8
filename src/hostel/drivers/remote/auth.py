"""Showing a daemon who we are, where it asks for more than who we are on this host."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

from hostel.drivers.remote.client import RpcClient
from hostel.drivers.remote.uri import RemoteUri
from hostel.errors import ErrorCode, ErrorDomain, RemoteProtocolError, VirtError
from hostel.wire.rpc.scram import MECHANISM, ScramClient

_NONE: Final = 0
_SASL: Final = 1
_POLKIT: Final = 2


class Credentials(NamedTuple):
    """A user and a password."""

    user: str
    password: str


def authenticate(client: RpcClient, uri: RemoteUri) -> None:
    """Do what the daemon asks for.

    Raises:
        VirtError: ``AUTH_FAILED``: it asks for what we do not have or know.
    """
    (kinds,) = client.call("auth_list")
    if not kinds or _NONE in kinds:
        return
    if _POLKIT in kinds:
        client.call("auth_polkit")
    elif _SASL in kinds:
        _scram(client, find_credentials(uri))
    else:
        raise _failed(f"unsupported authentication type {kinds[0]}")


def _scram(client: RpcClient, credentials: Credentials | None) -> None:
    (mechanisms,) = client.call("auth_sasl_init")
    if MECHANISM not in mechanisms.replace(",", " ").split():
        raise _failed(f"the daemon has {mechanisms}, and we {MECHANISM}")
    if credentials is None:
        raise _failed(
            "the daemon asks for a password: put it into an auth.conf "
            "(https://libvirt.org/auth.html), or name one with ?authfile=PATH"
        )
    scram = ScramClient(credentials.user, credentials.password)
    try:
        complete, _, answer = client.call("auth_sasl_start", MECHANISM, 0, scram.start() + b"\0")
        if not complete:
            complete, _, answer = client.call("auth_sasl_step", 0, scram.prove(answer.rstrip(b"\0")) + b"\0")
    except RemoteProtocolError as error:
        raise _failed(str(error)) from None
    if not scram.verify(answer.rstrip(b"\0")):
        raise _failed("the daemon does not know the password")
    if not complete:
        client.call("auth_sasl_step", 0, b"\0")


def find_credentials(uri: RemoteUri) -> Credentials | None:
    """The credentials that libvirt's ``auth.conf`` has for a daemon; None where it has none.

    Raises:
        VirtError: the file is none.
    """
    import configparser

    path = _file(uri)
    if path is None:
        return None
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read(path, encoding="utf-8")
        for section in (f"auth-libvirt-{uri.host or 'localhost'}", "auth-libvirt-default"):
            if parser.has_section(section):
                found = parser[f"credentials-{parser[section]['credentials']}"]
                return Credentials(found.get("authname") or found["username"], found["password"])
    except (configparser.Error, KeyError, UnicodeDecodeError) as error:
        raise _failed(f"'{path}' is not usable: {error}") from None
    return None


def _file(uri: RemoteUri) -> Path | None:
    if "authfile" in uri.settings:
        return Path(uri.settings["authfile"])
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    candidates = (os.environ.get("LIBVIRT_AUTH_FILE"), home / "libvirt" / "auth.conf", "/etc/libvirt/auth.conf")
    return next((Path(path) for path in candidates if path and Path(path).is_file()), None)


def _failed(reason: str) -> VirtError:
    return VirtError(ErrorCode.AUTH_FAILED, f"authentication failed: {reason}", domain=ErrorDomain.REMOTE)
