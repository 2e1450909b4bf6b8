"""Procedures of secrets."""

from __future__ import annotations

from typing import Final

ROWS: Final = """
141 secret_lookup_by_uuid | uuid:uuid | secret:secret | secret.getattr | high
142 secret_define_xml | xml:str flags:u32 | secret:secret | secret.write secret.save | high
143 secret_get_xml_desc | secret:secret flags:u32 | xml:str | secret.read | high
144 secret_set_value | secret:secret value:bytes<65536> flags:u32 | | secret.write | high
145 secret_get_value | secret:secret flags:u32 | value:bytes<65536> | secret.read_secure | high
146 secret_undefine | secret:secret | | secret.delete | high
147 secret_lookup_by_usage | usage_type:i32 usage_id:str | secret:secret | secret.getattr | high
"""
