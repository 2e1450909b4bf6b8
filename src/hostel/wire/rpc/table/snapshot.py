"""Procedures of snapshots and checkpoints of a domain."""

from __future__ import annotations

from typing import Final

ROWS: Final = """
185 domain_snapshot_create_xml | dom:domain xml_desc:str flags:u32 | snap:snapshot | domain.snapshot
      domain.fs_freeze&64
186 domain_snapshot_get_xml_desc | snap:snapshot flags:u32 | xml:str | domain.read domain.read_secure&1 | high
187 domain_snapshot_num | dom:domain flags:u32 | num:i32 | domain.read | high
188 domain_snapshot_list_names | dom:domain maxnames:i32 flags:u32 | names:str<16384> | domain.read | high
189 domain_snapshot_lookup_by_name | dom:domain name:str flags:u32 | snap:snapshot | domain.read | high
190 domain_has_current_snapshot | dom:domain flags:u32 | result:i32 | domain.read
191 domain_snapshot_current | dom:domain flags:u32 | snap:snapshot | domain.read
192 domain_revert_to_snapshot | snap:snapshot flags:u32 | | domain.snapshot
193 domain_snapshot_delete | snap:snapshot flags:u32 | | domain.snapshot
244 domain_snapshot_get_parent | snap:snapshot flags:u32 | snap:snapshot | domain.read | high
246 domain_snapshot_num_children | snap:snapshot flags:u32 | num:i32 | domain.read | high
247 domain_snapshot_list_children_names | snap:snapshot maxnames:i32 flags:u32 | names:str<16384> | domain.read | high
271 domain_snapshot_is_current | snap:snapshot flags:u32 | current:i32 | domain.read
272 domain_snapshot_has_metadata | snap:snapshot flags:u32 | metadata:i32 | domain.read
274 domain_list_all_snapshots | dom:domain need_results:i32 flags:u32 | snapshots:snapshot<16384> ret:i32 |
      domain.read | high
275 domain_snapshot_list_all_children | snapshot:snapshot need_results:i32 flags:u32 | snapshots:snapshot<16384>
      ret:i32 | domain.read | high
411 domain_checkpoint_create_xml | dom:domain xml_desc:str flags:u32 | checkpoint:checkpoint | domain.checkpoint
      domain.fs_freeze&2
412 domain_checkpoint_get_xml_desc | checkpoint:checkpoint flags:u32 | xml:str | domain.read domain.read_secure&1
413 domain_list_all_checkpoints | dom:domain need_results:i32 flags:u32 | checkpoints:checkpoint<16384> ret:i32 |
      domain.read | high
414 domain_checkpoint_list_all_children | checkpoint:checkpoint need_results:i32 flags:u32 |
      checkpoints:checkpoint<16384> ret:i32 | domain.read | high
415 domain_checkpoint_lookup_by_name | dom:domain name:str flags:u32 | checkpoint:checkpoint | domain.read | high
416 domain_checkpoint_get_parent | checkpoint:checkpoint flags:u32 | parent:checkpoint | domain.read | high
417 domain_checkpoint_delete | checkpoint:checkpoint flags:u32 | | domain.checkpoint
"""
