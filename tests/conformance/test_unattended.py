"""Scripts that answer installers against libosinfo's own, byte for byte, and virt-install's command lines with them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

from hostel.cli.main import main
from hostel.cli.virt_install import location
from hostel.cli.virt_install.answers import ARGUMENTS, SCRIPT, Known, Script
from hostel.cli.virt_install.database import Database

pytestmark = [pytest.mark.requires_tool("virt-install"), pytest.mark.requires_tool("cpio")]
SYSTEMS = (
    "debian11", "debian9", "fedora36", "fedora17", "silverblue31", "ubuntu20.04", "rhel6.9", "rhel8.6", "centos7.0",
    "centos-stream9", "opensuse15.4", "winxp", "win7", "win10", "win2k8",
)  # fmt: skip
CONFIG = {
    "user-login": "anna", "user-realname": "anna", "user-password": "u<&p ä", "admin-password": "r'oot",
    "target-disk": "/dev/vda", "hardware-arch": "x86_64", "hostname": "box", "l10n-timezone": "Europe/Berlin",
    "l10n-language": "de_DE", "l10n-keyboard": "de_DE", "installation-url": "http://host/tree", "reg-login": "me",
    "reg-product-key": "KEY",
}  # fmt: skip
# In the interpreter that has libosinfo's bindings: every script of the systems, from the first two media and none.
_PEER: Final = """
import json, sys, gi
gi.require_version("Libosinfo", "1.0")
from gi.repository import Libosinfo as L

names, config = json.loads(sys.argv[1])
loader = L.Loader()
loader.process_default_path()
oses = loader.get_db().get_os_list()
given = L.InstallConfig()
for key, value in config.items():
    given.set_param(key, value)
made = []
for system in (oses.get_nth(i) for i in range(oses.get_length())):
    if system.get_short_id() not in names:
        continue
    media, scripts = system.get_media_list(), system.get_install_script_list()
    for script in (scripts.get_nth(i) for i in range(scripts.get_length())):
        for method in ("initrd", "cdrom"):
            flag = getattr(L.InstallScriptInjectionMethod, method.upper())
            if not script.get_injection_methods() & flag:
                continue
            script.set_preferred_injection_method(flag)
            for number in range(-1, min(2, media.get_length())):
                source = "NETWORK" if number < 0 else "MEDIA"
                script.set_installation_source(getattr(L.InstallScriptInstallationSource, source))
                if number < 0:
                    texts = script.generate(system, given), script.generate_command_line(system, given)
                else:
                    medium = media.get_nth(number)
                    texts = (script.generate_for_media(medium, given),
                             script.generate_command_line_for_media(medium, given))
                made.append([system.get_short_id(), script.get_id(), method, number, *texts])
print(json.dumps(made))
"""


@cache
def theirs() -> list[list[Any]]:
    words = ["/usr/bin/python3", "-c", _PEER, json.dumps([SYSTEMS, CONFIG])]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    found: list[list[Any]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", SYSTEMS)
def test_scripts_are_libosinfos_byte_for_byte(name: str) -> None:
    database = Database.of_host({})
    system = database.system(name)
    assert system is not None
    made = [each for each in theirs() if each[0] == name]
    assert {each[1] for each in made} | _without_a_method(database, system.scripts()) == set(system.scripts())
    assert made or name == "winxp"
    for _, identifier, method, number, text, arguments in made:
        element = database.script(identifier)
        assert element is not None
        script = Script(database, element)
        known = Known(system, None if number < 0 else system.children("media")[number], method, CONFIG)
        assert script.render(SCRIPT, known) == text
        if method == "initrd":
            assert script.render(ARGUMENTS, known) == arguments


def _without_a_method(database: Database, identifiers: list[str]) -> set[str]:
    """Those that no installation can use, such as what needs a floppy."""
    elements = [database.script(identifier) for identifier in identifiers]
    scripts = [Script(database, element) for element in elements if element is not None]
    return {script.identifier for script in scripts if not script.methods & {"initrd", "cdrom"}}


@pytest.mark.parametrize(
    ("name", "arch", "profile"),
    [("fedora26", "x86_64", None), ("fedora36", "x86_64", "desktop"), ("debian11", "i686", None), ("win10", "x", None)],
)
def test_a_tree_by_the_name_of_its_system_is_where_virt_install_has_it(
    name: str, arch: str, profile: str | None
) -> None:
    code = (
        "import sys; sys.path.insert(0, '/usr/share/virt-manager'); from virtinst import OSDB; "
        f"print(OSDB.lookup_os({name!r}).get_location({arch!r}, {profile!r}))"
    )
    done = subprocess.run(["/usr/bin/python3", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    system = Database.of_host({}).system(name)
    assert system is not None
    assert system.location(arch, profile) == (done.stdout.strip() or None)


TREE = {
    "fedora": "[general]\nfamily = Fedora\nvariant = Fedora\nversion = 17\narch = x86_64\n"
    "[images-i686]\nkernel = vmlinuz\ninitrd = initrd\n[images-x86_64]\nkernel = vmlinuz\ninitrd = initrd\n",
    "rhel": "[general]\nfamily = Red Hat Enterprise Linux\nversion = 8.6\narch = x86_64\n"
    "[images-i686]\nkernel = vmlinuz\ninitrd = initrd\n[images-x86_64]\nkernel = vmlinuz\ninitrd = initrd\n",
}


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("fedora", "user-login=anna,user-password-file=secret,admin-password-file=secret"),
        ("fedora", "profile=jeos,user-login=Anna,user-password-file=secret,admin-password-file=secret"),
        ("rhel", "profile=desktop,user-login=a,user-password-file=secret,admin-password-file=secret,reg-login=x"),
        ("rhel", "profile=nosuch"),
        ("rhel", "profile=jeos"),
        ("fedora", "profile=jeos,user-login=root"),
    ],
)
def test_a_tree_is_installed_with_what_virt_install_injects(
    family: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / ".treeinfo").write_text(TREE[family])
    for name in ("vmlinuz", "initrd"):
        (tree / name).write_bytes(bytes(16))
    (tmp_path / "secret").write_text("[SCRUBBLED]\n")  # what virt-install shows of a password
    injected: dict[str, bytes] = {}
    real_inject = location.inject

    def note(initrd: Path, files: Mapping[str, bytes]) -> None:
        real_inject(initrd, files)
        injected.update(files)

    monkeypatch.setattr(location, "inject", note)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOSTEL_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("locale.getlocale", lambda: ("en_US", "UTF-8"))
    argv = ["--connect", "test:///default", "--name", "a b", "--memory", "2048", "--disk", "none", "--graphics", "none"]
    argv += ["--location", str(tree), "--unattended", words, "--print-xml", "1"]
    code = main(["virt-install", *argv])
    printed = capsys.readouterr()
    environment = {**os.environ, "HOME": str(tmp_path), "LC_ALL": "en_US.UTF-8"}
    done = subprocess.run(
        ["virt-install", *argv], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert code == done.returncode
    assert _same(printed.out) == _same(done.stdout)
    log = (tmp_path / ".cache/virt-manager/virt-install.log").read_text()
    scripts = re.findall(r"Generated script contents:\n(.*?)\n?\n\[\w+, [^\n]* DEBUG ", log, re.DOTALL)
    for ours, theirs_ in zip(injected.values(), scripts, strict=True):
        assert ours.decode().strip().splitlines() == theirs_.strip().splitlines()
    if code:
        first = done.stderr.splitlines()[-1 if "Available" in done.stderr else 0].removeprefix("ERROR    ")
        assert first.rstrip(".") in printed.err


def _same(xml: str) -> str:
    """Without what is random, and without where the kernel lies."""
    xml = re.sub(r"<(kernel|initrd)>[^<]*", r"<\1>", xml)
    return re.sub(r"<uuid>[^<]*|address=\"52:54[^\"]*\"|mac address=\"[^\"]*\"", "", xml)
