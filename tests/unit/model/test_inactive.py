"""A live document that is defined loses what its run brought, and nothing else."""

from __future__ import annotations

from hostel.model.domain.domain import Domain
from hostel.model.domain.inactive import forget_run

LIVE = """<domain type='qemu' id='7'>
  <name>g</name>
  <memory unit='KiB'>65536</memory>
  <os>
    <type>hvm</type>
  </os>
  <devices>
    <disk type='file' device='disk'>
      <source file='/top' index='2'/>
      <backingStore type='file' index='1'>
        <format type='raw'/>
        <source file='/base'/>
        <backingStore/>
      </backingStore>
      <target dev='vda' bus='virtio'/>
      <alias name='virtio-disk0'/>
    </disk>
    <disk type='file' device='disk'>
      <source file='/other'/>
      <target dev='vdb' bus='virtio'/>
      <alias name='ua-mine'/>
    </disk>
    <interface type='network'>
      <source network='default' portid='11111111-2222-3333-4444-555555555555' bridge='virbr0'/>
      <target dev='vnet3'/>
      <alias name='net0'/>
    </interface>
    <interface type='bridge'>
      <source bridge='br0'/>
      <target dev='mine0'/>
      <alias name='net1'/>
    </interface>
    <serial type='pty'>
      <source path='/dev/pts/3'/>
      <target port='0'/>
      <alias name='serial0'/>
    </serial>
    <serial type='file'>
      <source path='/log'/>
      <target port='1'/>
      <alias name='serial1'/>
    </serial>
    <console type='pty' tty='/dev/pts/3'>
      <source path='/dev/pts/3'/>
      <target type='serial' port='0'/>
      <alias name='serial0'/>
    </console>
    <channel type='unix'>
      <target type='virtio' name='c' state='connected'/>
      <alias name='channel0'/>
    </channel>
    <graphics type='vnc' port='5903' autoport='yes'/>
    <graphics type='vnc' port='5907' autoport='no'/>
  </devices>
</domain>
"""
GOES = (
    "id='7'",
    "index=",
    "virtio-disk0",
    "vnet3",
    "portid",
    "virbr0",
    "/dev/pts/3",
    "connected",
    "5903",
)
STAYS = ("ua-mine", "mine0", "br0", "/log", "/base", "5907", "network='default'")


def test_what_the_run_brought_is_left_out() -> None:
    domain = Domain.parse(LIVE)
    assert domain.format() == LIVE
    forget_run(domain)
    text = domain.format()
    assert [word for word in GOES if word in text] == []
    assert [word for word in STAYS if word not in text] == []


def test_forgetting_twice_changes_nothing() -> None:
    domain = Domain.parse(LIVE)
    forget_run(domain)
    text = domain.format()
    forget_run(domain)
    assert domain.format() == text
