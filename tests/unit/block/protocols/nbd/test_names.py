"""The NBD client driver: names and options, and what is refused of them."""

from __future__ import annotations

import pytest

from hostel.block import graph, objects
from hostel.block.blockdev import from_options
from hostel.block.options import OptionError
from hostel.block.protocols.nbd import address
from hostel.block.protocols.nbd import driver as nbd
from hostel.errors import BlockError


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("nbd:host:10809", {"server.type": "inet", "server.host": "host", "server.port": "10809"}),
        ("nbd:host:1:exportname=a:b", {"server.host": "host", "server.port": "1", "export": "a:b"}),
        ("nbd:[::1]:1", {"server.host": "::1", "server.port": "1"}),
        ("nbd:host:1,ipv4=on", {"server.host": "host", "server.port": "1"}),
        ("nbd:unix:/a/b", {"server.type": "unix", "server.path": "/a/b"}),
        ("nbd:unix:/a:exportname=x", {"server.type": "unix", "server.path": "/a", "export": "x"}),
        ("nbd://host", {"server.type": "inet", "server.host": "host", "server.port": "10809"}),
        ("nbd+tcp://[::1]:7/a%20b/c", {"server.host": "::1", "server.port": "7", "export": "a b/c"}),
        ("nbd+unix:///x?socket=/a%20b", {"server.type": "unix", "server.path": "/a b", "export": "x"}),
        ("nbd+unix://?socket=/a", {"server.type": "unix", "server.path": "/a"}),
        ("nbds://host/x?tls-certificates=/d", {"server.host": "host", "export": "x", "tls-certificates": "/d"}),
    ],
)
def test_names_stand_for_options(name: str, options: dict[str, str]) -> None:
    found = address.parse_filename(name)
    assert options.items() <= found.items()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nbd:host", "error parsing address 'host'"),
        ("nbd:host:", "error parsing address 'host:'"),
        ("nbd:[::1", r"error parsing address '\[::1'"),
        ("nbd:", "NBD server address missing"),
        ("nbd://", "No valid URL specified"),
        ("nbd://host?x=y", "No valid URL specified"),
        ("nbd://host:port", "No valid URL specified"),
        ("nbd://host?socket=/x", "No valid URL specified"),
        ("nbd+unix:///x", "No valid URL specified"),
        ("nbd+unix://host/x?socket=/a", "No valid URL specified"),
        ("nbd+unix:///x?socket=/a&socket=/b", "No valid URL specified"),
        ("nbds://host", "TLS needs certificates: 'nbds://host' names none"),
    ],
)
def test_wrong_names_are_refused_in_qemus_words(name: str, message: str) -> None:
    with pytest.raises(BlockError, match=message):
        graph.open(name, "raw")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "NBD server address missing"),
        ("port=1", "NBD server address missing"),
        ("host=h,path=p", "path and host may not be used at the same time"),
        ("path=p,port=1", "port may not be used without host"),
        ("path=p,server.type=unix", "Cannot use 'server' and path/host/port at the same time"),
        ("server.type=unix", "Parameter 'path' is missing"),
        ("server.type=inet,server.host=h", "Parameter 'port' is missing"),
        ("server.path=p", "Parameter 'type' is missing"),
        ("server.type=foo", "Parameter 'type' does not accept value 'foo'"),
        ("server.type=vsock", "Parameter 'cid' is missing"),
        ("server.type=fd", "'fd' are not supported"),
        ("path=p,server.foo=1", "Parameter 'foo' is unexpected"),
        ("path=p,foo=1", "doesn't support the option 'foo'"),
        ("path=p,reconnect-delay=x", "Parameter 'reconnect-delay' expects a number"),
        ("path=p,tls-creds=x", "No TLS credentials with id 'x'"),
        ("path=p,export=" + "x" * 5000, "export name too long"),
    ],
)
def test_wrong_options_are_refused_in_qemus_words(options: str, message: str) -> None:
    given = dict(item.split("=") for item in f"driver=nbd,{options}".rstrip(",").split(","))
    with pytest.raises(BlockError, match=message):
        graph.open(from_options(given))


def test_objects_that_are_no_credentials_are_refused() -> None:
    objects.clear()
    objects.add("s", objects.Secret(b"x"))
    with pytest.raises(BlockError, match="is not TLS credentials"):
        graph.open(from_options({"driver": "nbd", "path": "p", "tls-creds": "s"}))
    objects.clear()


def test_options_beside_a_name_are_refused() -> None:
    with pytest.raises(OptionError, match="'export' cannot be used with a file name"):
        from_options({"driver": "nbd", "filename": "nbd://host/x", "export": "y"})


def test_the_driver_is_registered_under_its_name() -> None:
    assert nbd.NbdDriver.name == "nbd"
