"""hostel.libvirt beside libvirt-python: the same names, numbers and signatures, and what they answer."""

from __future__ import annotations

import inspect
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hostel.libvirt as ours
from support import libvirtd

# virtinst depends on python3-libvirt.
pytestmark = pytest.mark.requires_tool("virt-install")

SYSTEM_PYTHON = "/usr/bin/python3"
DESCRIBE = """
import inspect, json, libvirt
def parameters(function):
    try:
        known = inspect.signature(function).parameters.values()
        return [[each.name, repr(each.default) if each.default is not each.empty else None] for each in known]
    except (TypeError, ValueError):
        return None
found = {"constants": {}, "functions": {}, "classes": {}}
for name, value in vars(libvirt).items():
    if name.startswith("VIR_"):
        found["constants"][name] = value
    elif inspect.isfunction(value) and name != "overload":
        found["functions"][name] = parameters(value)
    elif inspect.isclass(value) and value.__module__ == "libvirt":
        methods = {key: each for key, each in vars(value).items() if inspect.isfunction(each)}
        found["classes"][name] = {key: parameters(each) for key, each in methods.items()}
print(json.dumps(found))
"""
# What a class has for itself: how its C object is held, and how C's events reach Python.
OWN = ("_dispatch", "__")


@pytest.fixture(scope="module")
def theirs() -> Any:
    answer = subprocess.run([SYSTEM_PYTHON, "-c", DESCRIBE], capture_output=True, text=True, check=True, timeout=60)
    return json.loads(answer.stdout)


def test_every_constant_has_its_value(theirs: Any) -> None:
    constants = theirs["constants"]
    assert len(constants) > 1000
    assert {name: getattr(ours, name, None) for name in constants} == constants


def parameters(function: Any) -> list[list[str | None]]:
    return [
        [each.name, repr(each.default) if each.default is not each.empty else None]
        for each in inspect.signature(function).parameters.values()
    ]


def test_every_function_takes_the_same(theirs: Any) -> None:
    wanted = theirs["functions"]
    assert {name: parameters(getattr(ours, name)) for name in wanted} == wanted


def test_every_method_takes_the_same(theirs: Any) -> None:
    different = []
    for name, methods in theirs["classes"].items():
        for method, wanted in methods.items():
            if method.startswith(OWN) or method == "c_pointer":
                continue
            found = getattr(getattr(ours, name), method, None)
            if found is None or parameters(found) != wanted:
                different.append((name, method, wanted, found and parameters(found)))
    assert not different


def test_an_error_has_the_same_methods(theirs: Any) -> None:
    wanted = {name for name in theirs["classes"]["libvirtError"] if not name.startswith("__")}
    assert wanted <= set(dir(ours.libvirtError))


PROGRAM = Path(__file__).with_name("libvirt_program.py")


def run(interpreter: str, module: str, uri: str = "test:///default") -> list[str]:
    command = [interpreter, str(PROGRAM), module, uri]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.splitlines()


def test_a_program_gets_the_same_answers() -> None:
    assert run(sys.executable, "hostel.libvirt") == run(SYSTEM_PYTHON, "libvirt")


@pytest.fixture(scope="module")
def daemon() -> Iterator[str]:
    """The URI of the invented host of a real libvirtd."""
    with libvirtd.running() as found:
        found.skip_unless_recorded()
        yield found.uri.replace("qemu+unix:///session", "test+unix:///default")


@pytest.mark.requires_tool("libvirtd")
def test_a_program_gets_the_same_answers_from_a_real_daemon(daemon: str) -> None:
    found = run(sys.executable, "hostel.libvirt", daemon)
    assert found == run(SYSTEM_PYTHON, "libvirt", daemon)
    assert len(found) > 30


ASYNC = """
import asyncio, sys
from hostel.libvirt.replace import replace_libvirt
replace_libvirt()
sys.path.append("/usr/lib/python3/dist-packages")
import libvirt, libvirtaio
async def main():
    libvirtaio.virEventRegisterAsyncIOImpl()
    connection = libvirt.open(sys.argv[1])
    heard = asyncio.Queue()
    def told(connection, domain, event, detail, opaque):
        heard.put_nowait((domain.name(), event, detail, opaque))
    number = connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, told, "x")
    domain = connection.lookupByName("test")
    domain.destroy()
    domain.create()
    print([await asyncio.wait_for(heard.get(), 20) for _ in range(2)])
    connection.domainEventDeregisterAny(number)
    connection.close()
asyncio.run(main())
"""


@pytest.mark.requires_tool("libvirtd")
@pytest.mark.parametrize("here", [True, False], ids=["in process", "real daemon"])
def test_libvirts_own_asyncio_loop_runs_it(daemon: str, here: bool) -> None:
    command = [sys.executable, "-c", ASYNC, "test:///default" if here else daemon]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (answer.stdout, answer.stderr) == ("[('test', 5, 1, 'x'), ('test', 2, 0, 'x')]\n", "")


@pytest.mark.requires_tool("libvirtd")
def test_a_stream_of_a_real_daemon_brings_what_was_sent(daemon: str) -> None:
    content = bytes(range(256)) * 5000
    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o777)
    with ours.open(daemon.replace("test+unix:///default", "qemu+unix:///session")) as connection:
        document = f"<pool type='dir'><name>p</name><target><path>{folder}</path></target></pool>"
        pool = connection.storagePoolCreateXML(document)
        try:
            volume = pool.createXML(f"<volume><name>a</name><capacity>{len(content)}</capacity></volume>")
            stream = connection.newStream()
            volume.upload(stream, 0, 0)
            stream.sendAll(lambda stream, length, source: source.read(length), io.BytesIO(content))
            stream.finish()
            stream = connection.newStream()
            volume.download(stream, 0, 0)
            got: list[bytes] = []
            stream.recvAll(lambda stream, data, kept: kept.append(data), got)
            stream.finish()
        finally:
            pool.destroy()
            shutil.rmtree(folder)
    assert b"".join(got) == content
