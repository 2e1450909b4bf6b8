"""Procedures of the host and its devices."""

from __future__ import annotations

from typing import Final

ROWS: Final = """
  6 node_get_info | | model:chars[32] memory:u64 cpus:i32 mhz:i32 nodes:i32 sockets:i32 cores:i32 threads:i32 |
      connect.read | high
101 node_get_cells_free_memory | start_cell:i32 maxcells:i32 | cells:u64<1024> | connect.read | high
102 node_get_free_memory | | free_mem:u64 | connect.read | high
111 node_num_of_devices | cap:str? flags:u32 | num:i32 | connect.search_node_devices ~node_device.getattr | high
112 node_list_devices | cap:str? maxnames:i32 flags:u32 | names:str<65536> | connect.search_node_devices
      ~node_device.getattr | high
113 node_device_lookup_by_name | name:str | dev:node_device | node_device.getattr | high
114 node_device_get_xml_desc | name:node_device flags:u32 | xml:str | node_device.read
115 node_device_get_parent | name:node_device | parent_name:str? | node_device.read | high
116 node_device_num_of_caps | name:node_device | num:i32 | node_device.read | high
117 node_device_list_caps | name:node_device maxnames:i32 | names:str<65536> | node_device.read | high
118 node_device_dettach | name:node_device | | node_device.detach
119 node_device_re_attach | name:node_device | | node_device.detach
120 node_device_reset | name:node_device | | node_device.detach
122 node_get_security_model | | model:chars<257> doi:chars<257> | connect.read | high
123 node_device_create_xml | xml_desc:str flags:u32 | dev:node_device | node_device.write node_device.start
124 node_device_destroy | name:node_device | | node_device.stop | high
227 node_get_cpu_stats | cpu_num:i32 nparams:i32 flags:u32 | params:node_stat<16> nparams:i32 | connect.read | high
228 node_get_memory_stats | nparams:i32 cell_num:i32 flags:u32 | params:node_stat<16> nparams:i32 | connect.read |
      high
250 node_suspend_for_duration | target:u32 duration:u64 flags:u32 | | connect.pm_control
288 node_set_memory_parameters | params:param<64> flags:u32 | | connect.write
289 node_get_memory_parameters | nparams:i32 flags:u32 | params:param<64> nparams:i32 | connect.read
293 node_get_cpu_map | need_map:i32 need_online:i32 flags:u32 | cpumap:bytes<2048> online:u32 ret:i32 | connect.read
297 node_device_lookup_scsi_host_by_wwn | wwnn:str wwpn:str flags:u32 | dev:node_device | node_device.getattr | high
301 node_device_detach_flags | name:node_device driver_name:str? flags:u32 | | node_device.detach
340 node_get_free_pages | pages:u32<1024> start_cell:i32 cell_count:u32 flags:u32 | counts:u64<1024> | connect.read |
      high
347 node_alloc_pages | page_sizes:u32<1024> page_counts:u64<1024> start_cell:i32 cell_count:u32 flags:u32 | ret:i32 |
      connect.write
395 node_get_sev_info | nparams:i32 flags:u32 | params:param<64> nparams:i32 | connect.read
428 node_device_define_xml | xml_desc:str flags:u32 | dev:node_device | node_device.write
429 node_device_undefine | name:node_device flags:u32 | | node_device.delete | high
430 node_device_create | name:node_device flags:u32 | | node_device.start | high
433 node_device_get_autostart | name:node_device | autostart:i32 | node_device.read | high
434 node_device_set_autostart | name:node_device autostart:i32 | | node_device.write | high
435 node_device_is_persistent | name:node_device | persistent:i32 | node_device.read | high
436 node_device_is_active | name:node_device | active:i32 | node_device.read | high
"""
