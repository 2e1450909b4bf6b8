"""Procedures of virtual networks and their ports."""

from __future__ import annotations

from typing import Final

ROWS: Final = """
 39 network_create | net:network | | network.start
 40 network_create_xml | xml:str | net:network | network.write network.start
 41 network_define_xml | xml:str | net:network | network.write network.save | high
 42 network_destroy | net:network | | network.stop | high
 43 network_get_xml_desc | net:network flags:u32 | xml:str | network.read | high
 44 network_get_autostart | net:network | autostart:i32 | network.read | high
 45 network_get_bridge_name | net:network | name:str | network.read | high
 46 network_lookup_by_name | name:str | net:network | network.getattr | high
 47 network_lookup_by_uuid | uuid:uuid | net:network | network.getattr | high
 48 network_set_autostart | net:network autostart:i32 | | network.write | high
 49 network_undefine | net:network | | network.delete | high
152 network_is_active | net:network | active:i32 | network.read | high
153 network_is_persistent | net:network | persistent:i32 | network.read | high
291 network_update | net:network command:u32 section:u32 parent_index:i32 xml:str flags:u32 | | network.write
      network.save!3 network.save&2 | high
341 network_get_dhcp_leases | net:network mac:str? need_results:i32 flags:u32 | leases:network_dhcp_lease<65536>
      ret:u32 | network.read
404 network_list_all_ports | network:network need_results:i32 flags:u32 | ports:network_port<16384> ret:u32 |
      network.search_ports ~network_port.getattr | high
405 network_port_lookup_by_uuid | network:network uuid:uuid | port:network_port | network_port.getattr | high
406 network_port_create_xml | network:network xml:str flags:u32 | port:network_port | network_port.create
407 network_port_get_parameters | port:network_port nparams:i32 flags:u32 | params:param<16> nparams:i32 |
      network_port.read
408 network_port_set_parameters | port:network_port params:param<16> flags:u32 | | network_port.write
409 network_port_get_xml_desc | port:network_port flags:u32 | xml:str | network_port.read
410 network_port_delete | port:network_port flags:u32 | | network_port.delete
432 network_define_xml_flags | xml:str flags:u32 | net:network | network.write network.save | high
437 network_create_xml_flags | xml:str flags:u32 | net:network | network.write network.start | high
"""
