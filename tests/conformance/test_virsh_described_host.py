"""``test:///FILE``: the same lines to real virsh and to ours, on a host that a file describes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from hostel.cli.main import main

pytestmark = pytest.mark.requires_tool("virsh")

FILES = {
    "node.xml": """
<node>
  <domain file="running.xml"/>
  <domain type='test'>
    <name>off</name><uuid>00000000-0000-4000-8000-000000000001</uuid><memory>4096</memory>
    <os><type arch='i686'>hvm</type></os>
    <test:runstate xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>5</test:runstate>
  </domain>
  <domain type='test'>
    <name>still</name><uuid>00000000-0000-4000-8000-000000000002</uuid><memory>4096</memory>
    <os><type arch='i686'>hvm</type></os>
    <test:runstate xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>3</test:runstate>
    <test:transient xmlns:test='http://libvirt.org/schemas/domain/test/1.0'/>
  </domain>
  <domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>
    <name>saved</name><uuid>00000000-0000-4000-8000-000000000007</uuid><memory>4096</memory>
    <os><type arch='i686'>hvm</type></os><test:runstate>5</test:runstate><test:hasmanagedsave/>
  </domain>
  <domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>
    <name>past</name><uuid>00000000-0000-4000-8000-000000000008</uuid><memory>4096</memory>
    <os><type arch='i686'>hvm</type></os><test:runstate>7</test:runstate>
    <test:domainsnapshot><name>two</name><parent><name>one</name></parent><creationTime>1300000001</creationTime>
      <state>running</state><active>1</active></test:domainsnapshot>
    <test:domainsnapshot><name>one</name><creationTime>1300000000</creationTime><state>shutoff</state>
      <active>0</active></test:domainsnapshot>
  </domain>
  <device file="device.xml"/>
  <network><name>net</name><uuid>00000000-0000-4000-8000-000000000003</uuid><bridge name='b'/></network>
  <pool file="folder/pool.xml"/>
  <pool type='logical'>
    <name>vg</name><uuid>00000000-0000-4000-8000-000000000004</uuid>
    <source><device path='/dev/x'/><name>vg</name></source>
    <volume file="folder/volume.xml"/>
    <volume><name>b</name><capacity>2000</capacity><target><path>/elsewhere/b</path></target></volume>
  </pool>
  <cpu><mhz>6000</mhz><model>i986</model><active>50</active><nodes>4</nodes><sockets>4</sockets><cores>4</cores>
    <threads>2</threads></cpu>
  <memory>8192000</memory>
</node>
""",
    "running.xml": """
<domain type='test'><name>running</name><uuid>00000000-0000-4000-8000-000000000005</uuid><memory>8192</memory>
  <os><type arch='i686'>hvm</type></os></domain>
""",
    "device.xml": "<device><name>computer</name><capability type='system'><hardware><vendor>V</vendor>"
    "<serial>1</serial><uuid>11111111-2222-3333-4444-555555555555</uuid></hardware></capability></device>",
    "folder/pool.xml": """
<pool type='dir'><name>p</name><uuid>00000000-0000-4000-8000-000000000006</uuid><target><path>/p</path></target>
  <volume><name>inside</name><capacity>1000</capacity><allocation>50</allocation></volume></pool>
""",
    "folder/volume.xml": "<volume><name>a</name><capacity unit='M'>3</capacity><allocation>0</allocation></volume>",
    "empty.xml": "<node/>",
    "wrong.xml": "<nodes/>",
    "twice.xml": "<node><pool type='dir'><name>p</name><target><path>/p</path></target>"
    "<volume><name>a</name><capacity>1</capacity></volume></pool></node>",
    "moments.xml": "<node><domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'><name>d</name>"
    "<memory>1</memory><os><type>hvm</type></os><test:domainsnapshot><name>a</name><parent><name>b</name></parent>"
    "<creationTime>1</creationTime><state>running</state></test:domainsnapshot></domain></node>",
    "saved.xml": "<node><domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'><name>d</name>"
    "<memory>1</memory><os><type>hvm</type></os><test:hasmanagedsave/></domain></node>",
    "number.xml": "<node><memory>x</memory></node>",
    "state.xml": "<node><domain type='test'><name>d</name><memory>1</memory><os><type>hvm</type></os>"
    "<test:runstate xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>77</test:runstate></domain></node>",
}
LINES = [
    "node.xml list --all",
    "node.xml dominfo still",
    "node.xml list --all --managed-save",
    "node.xml domstate running --reason",
    "node.xml domstate past --reason",
    "node.xml snapshot-list past --tree",
    "node.xml snapshot-current past --name",
    "node.xml snapshot-dumpxml past two",
    "node.xml undefine saved",
    "node.xml undefine saved --managed-save",
    "node.xml nodedev-dumpxml computer",
    "node.xml net-list --all",
    "node.xml pool-list --all --details",
    "node.xml vol-list p",
    "node.xml vol-list vg --details",
    "node.xml vol-dumpxml a vg",
    "node.xml vol-path b --pool vg",
    "node.xml pool-dumpxml vg",
    "node.xml nodeinfo",
    "node.xml pool-define-as other fs --source-dev /dev/x --target /y",
    "empty.xml list --all",
    "empty.xml pool-list --all",
    "empty.xml nodeinfo",
]
CPU_TIME = re.compile(r"(?<=CPU time:)\s+[0-9.]+s")
REFUSED = ["moments.xml", "saved.xml", "wrong.xml", "number.xml", "state.xml", "nosuch.xml"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.strip())
    return tmp_path


def both(folder: Path, line: str, capsys: pytest.CaptureFixture[str]) -> tuple[tuple[int, str], tuple[int, str]]:
    name, *words = line.split()
    command = ["virsh", "-c", f"test://{folder}/{name}", *words]
    real = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    code = main(["hostel", *command])
    return (real.returncode, real.stdout), (code, capsys.readouterr().out)


@pytest.mark.parametrize("line", LINES)
def test_the_lines_give_what_virsh_gives(line: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected, found = both(folder, line, capsys)
    # The test driver takes the time of day for the time that a processor has worked.
    (code, text), (our_code, our_text) = expected, found
    assert (our_code, CPU_TIME.sub("", our_text)) == (code, CPU_TIME.sub("", text))


@pytest.mark.parametrize("name", REFUSED)
def test_what_virsh_refuses_is_refused(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected, found = both(folder, f"{name} list", capsys)
    assert expected[0] == found[0] == 1
