"""Procedures that move a domain to another host."""

from __future__ import annotations

from typing import Final

ROWS: Final = """
 61 domain_migrate_prepare | uri_in:str? flags:u64 dname:str? resource:u64 | cookie:bytes<4194304> uri_out:str? |
      domain.migrate domain.start domain.write
 62 domain_migrate_perform | dom:domain cookie:bytes<4194304> uri:str flags:u64 dname:str? resource:u64 | |
      domain.migrate
 63 domain_migrate_finish | dname:str cookie:bytes<4194304> uri:str flags:u64 | ddom:domain | domain.migrate
108 domain_migrate_prepare2 | uri_in:str? flags:u64 dname:str? resource:u64 dom_xml:str | cookie:bytes<4194304>
      uri_out:str? | domain.migrate domain.start domain.write
109 domain_migrate_finish2 | dname:str cookie:bytes<4194304> uri:str flags:u64 retcode:i32 | ddom:domain |
      domain.migrate
148 domain_migrate_prepare_tunnel | flags:u64 dname:str? resource:u64 dom_xml:str | | domain.migrate domain.start
      domain.write | upload
166 domain_migrate_set_max_downtime | dom:domain downtime:u64 flags:u32 | | domain.migrate
207 domain_migrate_set_max_speed | dom:domain bandwidth:u64 flags:u32 | | domain.migrate
213 domain_migrate_begin3 | dom:domain xmlin:str? flags:u64 dname:str? resource:u64 | cookie_out:bytes<4194304>
      xml:str | domain.migrate
214 domain_migrate_prepare3 | cookie_in:bytes<4194304> uri_in:str? flags:u64 dname:str? resource:u64 dom_xml:str |
      cookie_out:bytes<4194304> uri_out:str? | domain.migrate domain.start domain.write
215 domain_migrate_prepare_tunnel3 | cookie_in:bytes<4194304> flags:u64 dname:str? resource:u64 dom_xml:str |
      cookie_out:bytes<4194304> | domain.migrate domain.start domain.write | upload
216 domain_migrate_perform3 | dom:domain xmlin:str? cookie_in:bytes<4194304> dconnuri:str? uri:str? flags:u64
      dname:str? resource:u64 | cookie_out:bytes<4194304> | domain.migrate
217 domain_migrate_finish3 | dname:str cookie_in:bytes<4194304> dconnuri:str? uri:str? flags:u64 cancelled:i32 |
      dom:domain cookie_out:bytes<4194304> | domain.migrate
218 domain_migrate_confirm3 | dom:domain cookie_in:bytes<4194304> flags:u64 cancelled:i32 | | domain.migrate
242 domain_migrate_get_max_speed | dom:domain flags:u32 | bandwidth:u64 | domain.migrate
299 domain_migrate_get_compression_cache | dom:domain flags:u32 | cache_size:u64 | domain.migrate
300 domain_migrate_set_compression_cache | dom:domain cache_size:u64 flags:u32 | | domain.migrate
302 domain_migrate_begin3_params | dom:domain params:param<64> flags:u32 | cookie_out:bytes<4194304> xml:str |
      domain.migrate
303 domain_migrate_prepare3_params | params:param<64> cookie_in:bytes<4194304> flags:u32 | cookie_out:bytes<4194304>
      uri_out:str? | domain.migrate domain.start domain.write
304 domain_migrate_prepare_tunnel3_params | params:param<64> cookie_in:bytes<4194304> flags:u32 |
      cookie_out:bytes<4194304> | domain.migrate domain.start domain.write
305 domain_migrate_perform3_params | dom:domain dconnuri:str? params:param<64> cookie_in:bytes<4194304> flags:u32 |
      cookie_out:bytes<4194304> | domain.migrate
306 domain_migrate_finish3_params | params:param<64> cookie_in:bytes<4194304> flags:u32 cancelled:i32 | dom:domain
      cookie_out:bytes<4194304> | domain.migrate
307 domain_migrate_confirm3_params | dom:domain params:param<64> cookie_in:bytes<4194304> flags:u32 cancelled:i32 | |
      domain.migrate
364 domain_migrate_start_post_copy | dom:domain flags:u32 | | domain.migrate
387 domain_migrate_get_max_downtime | dom:domain flags:u32 | downtime:u64 | domain.migrate
"""
