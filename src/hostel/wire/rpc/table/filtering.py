"""Procedures of network filters and their bindings."""

from __future__ import annotations

from typing import Final

ROWS: Final = """
175 nwfilter_lookup_by_name | name:str | nwfilter:nwfilter | nwfilter.getattr | high
176 nwfilter_lookup_by_uuid | uuid:uuid | nwfilter:nwfilter | nwfilter.getattr | high
177 nwfilter_get_xml_desc | nwfilter:nwfilter flags:u32 | xml:str | nwfilter.read | high
180 nwfilter_define_xml | xml:str | nwfilter:nwfilter | nwfilter.write nwfilter.save | high
181 nwfilter_undefine | nwfilter:nwfilter | | nwfilter.delete | high
397 nwfilter_binding_lookup_by_port_dev | name:str | nwfilter:nwfilter_binding | nwfilter_binding.getattr | high
398 nwfilter_binding_get_xml_desc | nwfilter:nwfilter_binding flags:u32 | xml:str | nwfilter_binding.read | high
399 nwfilter_binding_create_xml | xml:str flags:u32 | nwfilter:nwfilter_binding | nwfilter_binding.create | high
400 nwfilter_binding_delete | nwfilter:nwfilter_binding | | nwfilter_binding.delete | high
431 nwfilter_define_xml_flags | xml:str flags:u32 | nwfilter:nwfilter | nwfilter.write nwfilter.save | high
"""
