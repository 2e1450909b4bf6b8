"""Interfaces, controllers and I/O threads on a command line."""

from __future__ import annotations

from typing import Any

import pytest

from support.arguments import CONTEXT, Q35, said, spec, specs


def card(kind: str, source: str = "", *, driver: str = "", more: str = "") -> str:
    model = "<model type='virtio'/>"
    return f"<interface type='{kind}'><mac address='52:54:00:00:00:01'/>{source}{model}{driver}{more}</interface>"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (card("bridge", "<source bridge='b'/>"), {"type": "bridge", "br": "b"}),
        (card("user", "<ip family='ipv4' address='10.1.0.0' prefix='16'/>"), {"type": "user", "net": "10.1.0.0/16"}),
        (card("client", "<source address='192.0.2.1' port='5558'/>"),
         {"type": "socket", "connect": "192.0.2.1:5558"}),
        (card("udp", "<source address='192.0.2.1' port='5'><local address='192.0.2.2' port='6'/></source>"),
         {"type": "socket", "udp": "192.0.2.1:5", "localaddr": "192.0.2.2:6"}),
    ],
)  # fmt: skip
def test_the_host_end_is_what_the_type_says(text: str, told: dict[str, Any]) -> None:
    assert spec(said(text), "-netdev", id="hostnet0") == {**told, "id": "hostnet0"}


def test_a_vhost_user_card_has_a_socket_and_its_queues() -> None:
    argv = said(card("vhostuser", "<source type='unix' path='/s,1' mode='client'/>", driver="<driver queues='4'/>"))
    assert "socket,id=charnet0,path=/s,,1" in argv
    assert spec(argv, "-netdev", type="vhost-user")["queues"] == 4
    found = spec(argv, "-device", id="net0")
    assert (found["mq"], found["vectors"]) == (True, 10)


def test_a_tap_that_is_handed_over_is_named_by_its_descriptors() -> None:
    context = CONTEXT._replace(hands_over=True)
    one = spec(said(card("bridge", "<source bridge='b'/>"), context=context), "-netdev", type="tap")
    assert (one["fd"], one["vhost"], one["vhostfd"]) == ("3", True, "4")
    argv = said(card("direct", "<source dev='eth0'/>", driver="<driver name='qemu' queues='2'/>"), context=context)
    two = spec(argv, "-netdev", type="tap")
    assert two["fds"] == "3:4"
    assert "vhost" not in two


def test_offloads_and_queue_sizes_are_properties_of_the_card() -> None:
    driver = "<driver rx_queue_size='512' txmode='iothread'><host csum='off' tso4='off'/><guest ufo='off'/></driver>"
    found = spec(
        said(card("bridge", "<source bridge='b'/>", driver=driver, more="<mtu size='1400'/>")), "-device", id="net0"
    )
    assert (found["csum"], found["host_tso4"], found["guest_ufo"]) == (False, False, False)
    assert (found["rx_queue_size"], found["tx"], found["host_mtu"]) == (512, "bh", 1400)


def test_the_window_and_the_hotplug_of_the_root_are_globals() -> None:
    root = "<controller type='pci' index='0' model='pci-root'><pcihole64 unit='KiB'>1048576</pcihole64>"
    argv = said(f"{root}<target hotplug='off'/></controller>")
    assert "i440FX-pcihost.pci-hole64-size=1048576K" in argv
    assert "PIIX4_PM.acpi-root-pci-hotplug=off" in argv


def test_a_controller_is_told_what_its_model_knows() -> None:
    text = "<controller type='pci' index='1' model='pcie-root-port'><target chassis='7' port='0x9' hotplug='off'/>"
    found = spec(said(f"{text}</controller>", type=Q35), "-device", id="pci.1")
    assert (found["driver"], found["chassis"], found["port"], found["hotplug"]) == ("pcie-root-port", 7, 9, False)
    assert not {"index", "numa_node", "chassis_nr", "bus_nr"} & found.keys()


def test_io_threads_have_the_sizes_of_their_pools() -> None:
    head = (
        "<iothreads>3</iothreads><iothreadids><iothread id='2' thread_pool_min='1' thread_pool_max='8'/></iothreadids>"
    )
    objects = specs(said("", head=head + "<defaultiothread thread_pool_max='4'/>"), "-object")
    found = [item for item in objects if item["qom-type"] in ("iothread", "main-loop")]
    assert {item["id"]: item.get("thread-pool-max") for item in found} == {
        "iothread2": 8, "iothread1": None, "iothread3": None, "main-loop": 4,
    }  # fmt: skip
