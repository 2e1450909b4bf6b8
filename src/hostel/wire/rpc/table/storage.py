"""Procedures of storage pools and volumes."""

from __future__ import annotations

from typing import Final

ROWS: Final = """
 76 storage_pool_create_xml | xml:str flags:u32 | pool:pool | storage_pool.start storage_pool.write
 77 storage_pool_define_xml | xml:str flags:u32 | pool:pool | storage_pool.write storage_pool.save | high
 78 storage_pool_create | pool:pool flags:u32 | | storage_pool.start
 79 storage_pool_build | pool:pool flags:u32 | | storage_pool.format
 80 storage_pool_destroy | pool:pool | | storage_pool.stop | high
 81 storage_pool_delete | pool:pool flags:u32 | | storage_pool.format
 82 storage_pool_undefine | pool:pool | | storage_pool.delete | high
 83 storage_pool_refresh | pool:pool flags:u32 | | storage_pool.refresh
 84 storage_pool_lookup_by_name | name:str | pool:pool | storage_pool.getattr | high
 85 storage_pool_lookup_by_uuid | uuid:uuid | pool:pool | storage_pool.getattr | high
 86 storage_pool_lookup_by_volume | vol:volume | pool:pool | storage_pool.getattr | high
 87 storage_pool_get_info | pool:pool | state:u8 capacity:u64 allocation:u64 available:u64 | storage_pool.read | high
 88 storage_pool_get_xml_desc | pool:pool flags:u32 | xml:str | storage_pool.read | high
 89 storage_pool_get_autostart | pool:pool | autostart:i32 | storage_pool.read | high
 90 storage_pool_set_autostart | pool:pool autostart:i32 | | storage_pool.write | high
 91 storage_pool_num_of_volumes | pool:pool | num:i32 | storage_pool.search_storage_vols ~storage_vol.getattr | high
 92 storage_pool_list_volumes | pool:pool maxnames:i32 | names:str<16384> | storage_pool.search_storage_vols
      ~storage_vol.getattr | high
 93 storage_vol_create_xml | pool:pool xml:str flags:u32 | vol:volume | storage_vol.create
 94 storage_vol_delete | vol:volume flags:u32 | | storage_vol.delete
 95 storage_vol_lookup_by_name | pool:pool name:str | vol:volume | storage_vol.getattr | high
 96 storage_vol_lookup_by_key | key:str | vol:volume | storage_vol.getattr | high
 97 storage_vol_lookup_by_path | path:str | vol:volume | storage_vol.getattr | high
 98 storage_vol_get_info | vol:volume | type:i8 capacity:u64 allocation:u64 | storage_vol.read | high
 99 storage_vol_get_xml_desc | vol:volume flags:u32 | xml:str | storage_vol.read | high
100 storage_vol_get_path | vol:volume | name:str | storage_vol.read | high
125 storage_vol_create_xml_from | pool:pool xml:str clonevol:volume flags:u32 | vol:volume | storage_vol.create
154 storage_pool_is_active | pool:pool | active:i32 | storage_pool.read | high
155 storage_pool_is_persistent | pool:pool | persistent:i32 | storage_pool.read | high
165 storage_vol_wipe | vol:volume flags:u32 | | storage_vol.format
208 storage_vol_upload | vol:volume offset:u64 length:u64 flags:u32 | | storage_vol.data_write | upload sparse
209 storage_vol_download | vol:volume offset:u64 length:u64 flags:u32 | | storage_vol.data_read | download sparse
259 storage_vol_wipe_pattern | vol:volume algorithm:u32 flags:u32 | | storage_vol.format
260 storage_vol_resize | vol:volume capacity:u64 flags:u32 | | storage_vol.resize
282 storage_pool_list_all_volumes | pool:pool need_results:i32 flags:u32 | vols:volume<16384> ret:u32 |
      storage_pool.search_storage_vols ~storage_vol.getattr | high
378 storage_vol_get_info_flags | vol:volume flags:u32 | type:i8 capacity:u64 allocation:u64 | storage_vol.read | high
391 storage_pool_lookup_by_target_path | path:str | pool:pool | storage_pool.getattr | high
"""
