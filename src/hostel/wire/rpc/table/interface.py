"""Procedures of the host's network interfaces."""

from __future__ import annotations

from typing import Final

ROWS: Final = """
128 interface_lookup_by_name | name:str | iface:interface | interface.getattr | high
129 interface_lookup_by_mac_string | mac:str | iface:interface | interface.getattr | high
130 interface_get_xml_desc | iface:interface flags:u32 | xml:str | interface.read
131 interface_define_xml | xml:str flags:u32 | iface:interface | interface.write interface.save | high
132 interface_undefine | iface:interface | | interface.delete | high
133 interface_create | iface:interface flags:u32 | | interface.start
134 interface_destroy | iface:interface flags:u32 | | interface.stop | high
156 interface_is_active | iface:interface | active:i32 | interface.read | high
220 interface_change_begin | flags:u32 | | connect.interface_transaction
221 interface_change_commit | flags:u32 | | connect.interface_transaction
222 interface_change_rollback | flags:u32 | | connect.interface_transaction
"""
