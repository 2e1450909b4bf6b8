"""Procedures of one hypervisor only, which are programs of their own."""

from __future__ import annotations

from typing import Final

QEMU_ROWS: Final = """
  1 domain_monitor_command | dom:domain cmd:str flags:u32 | result:str | domain.write
  2 domain_attach | pid_value:u32 flags:u32 | dom:domain | domain.start domain.write
  3 domain_agent_command | dom:domain cmd:str timeout:i32 flags:u32 | result:str? | domain.write
  4 connect_domain_monitor_event_register | dom:domain? event:str? flags:u32 | callback_id:i32 |
      connect.search_domains connect.write ~domain.getattr | high
  5 connect_domain_monitor_event_deregister | callback_id:i32 | | connect.write | high
  6 domain_monitor_event | callback_id:i32 dom:domain event:str seconds:i64 micros:u32 details:str? | | | event
  7 domain_monitor_command_with_files | dom:domain cmd:str flags:u32 | result:str | domain.write
"""
LXC_ROWS: Final = """
  1 domain_open_namespace | dom:domain flags:u32 | | domain.open_namespace
"""
