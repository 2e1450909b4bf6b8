"""Names and options of images of Gluster volumes; no server is asked."""

from __future__ import annotations

import pytest

from hostel.block import filename
from hostel.block.driver import OpenMode
from hostel.block.options import OptionError
from hostel.block.protocols.gluster.driver import GlusterDriver


@pytest.mark.parametrize(
    "name",
    [
        "gluster+tls://host/volume/path",
        "gluster://host/volume",
        "gluster://host/volume/",
        "gluster://host",
        "gluster://host:x/volume/path",
        "gluster://host:70000/volume/path",
        "gluster://host/volume/path?socket=/a",
        "gluster+unix:///volume/path",
        "gluster+unix:///volume/path?socket=",
        "gluster+unix:///volume/path?colour=red",
        "gluster+unix:///volume/path?socket=/a&socket=/b",
        "gluster+unix://host/volume/path?socket=/a",
    ],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match="invalid URI gluster") as caught:
        GlusterDriver.open(GlusterDriver.parse_filename(name), OpenMode())
    assert str(caught.value.hint).startswith("Usage: file=gluster[+transport]://")


def test_a_server_of_a_list_that_is_wrong_is_named() -> None:
    options = {"volume": "v", "path": "p", "server.0.type": "unix", "server.0.path": "/a", "server.1.type": "inet"}
    with pytest.raises(OptionError, match="Parameter 'host' is missing") as caught:
        GlusterDriver.open(options, OpenMode())
    assert "'server' array index '1'" in str(caught.value.hint)


def test_servers_are_counted_without_a_gap() -> None:
    options = {"volume": "v", "path": "p", "server.1.type": "unix", "server.1.path": "/a"}
    with pytest.raises(OptionError, match="List indices are not contiguous"):
        GlusterDriver.open(options, OpenMode())


def test_names_are_relative_to_an_image_of_a_volume() -> None:
    assert filename.resolve("base", "gluster://host:1/volume/a/top") == "gluster://host:1/volume/a/base"
    assert filename.resolve("base", "gluster+unix:///volume/top?socket=/s") == "gluster+unix:///volume/base?socket=/s"
