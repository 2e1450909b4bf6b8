"""hostel.libvirt beside libvirt-python: the same names, numbers and signatures, and what they answer."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import hostel.libvirt as ours

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


def run(interpreter: str, module: str) -> list[str]:
    answer = subprocess.run(
        [interpreter, str(PROGRAM), module], capture_output=True, text=True, timeout=120, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.splitlines()


def test_a_program_gets_the_same_answers() -> None:
    assert run(sys.executable, "hostel.libvirt") == run(SYSTEM_PYTHON, "libvirt")
