"""Procedures of the connection itself: what is there, what can be done, and who asks."""

from __future__ import annotations

from typing import Final

ROWS: Final = """
  1 connect_open | name:str? flags:u32 | | connect.getattr | high
  2 connect_close | | | | high
  3 connect_get_type | | type:str | connect.getattr | high
  4 connect_get_version | | hv_ver:u64 | connect.getattr | high
  5 connect_get_max_vcpus | type:str? | max_vcpus:i32 | connect.read | high
  7 connect_get_capabilities | | capabilities:str | connect.read
 21 connect_list_defined_domains | maxnames:i32 | names:str<16384> | connect.search_domains ~domain.getattr | high
 25 connect_num_of_defined_domains | | num:i32 | connect.search_domains ~domain.getattr | high
 36 connect_list_defined_networks | maxnames:i32 | names:str<16384> | connect.search_networks ~network.getattr | high
 37 connect_list_domains | maxids:i32 | ids:i32<16384> | connect.search_domains ~domain.getattr | high
 38 connect_list_networks | maxnames:i32 | names:str<16384> | connect.search_networks ~network.getattr | high
 50 connect_num_of_defined_networks | | num:i32 | connect.search_networks ~network.getattr | high
 51 connect_num_of_domains | | num:i32 | connect.search_domains ~domain.getattr | high
 52 connect_num_of_networks | | num:i32 | connect.search_networks ~network.getattr | high
 59 connect_get_hostname | | hostname:str | connect.getattr | high
 60 connect_supports_feature | feature:i32 | supported:i32 | connect.getattr | high
 66 auth_list | | types:i32<20> | | high
 67 auth_sasl_init | | mechlist:str | | high
 68 auth_sasl_start | mech:str nil:i32 data:chars<65536> | complete:i32 nil:i32 data:chars<65536> | | high
 69 auth_sasl_step | nil:i32 data:chars<65536> | complete:i32 nil:i32 data:chars<65536> | | high
 70 auth_polkit | | complete:i32 | | high
 71 connect_num_of_storage_pools | | num:i32 | connect.search_storage_pools ~storage_pool.getattr | high
 72 connect_list_storage_pools | maxnames:i32 | names:str<16384> | connect.search_storage_pools ~storage_pool.getattr
      | high
 73 connect_num_of_defined_storage_pools | | num:i32 | connect.search_storage_pools ~storage_pool.getattr | high
 74 connect_list_defined_storage_pools | maxnames:i32 | names:str<16384> | connect.search_storage_pools
      ~storage_pool.getattr | high
 75 connect_find_storage_pool_sources | type:str src_spec:str? flags:u32 | xml:str | connect.detect_storage_pools
105 connect_domain_event_register | | cb_registered:i32 | connect.search_domains ~domain.getattr | high
106 connect_domain_event_deregister | | cb_registered:i32 | connect.read | high
110 connect_get_uri | | uri:str | connect.getattr | high
126 connect_num_of_interfaces | | num:i32 | connect.search_interfaces ~interface.getattr | high
127 connect_list_interfaces | maxnames:i32 | names:str<16384> | connect.search_interfaces ~interface.getattr | high
135 connect_domain_xml_from_native | native_format:str native_config:str flags:u32 | domain_xml:str | connect.write
136 connect_domain_xml_to_native | native_format:str domain_xml:str flags:u32 | native_config:str | connect.write
137 connect_num_of_defined_interfaces | | num:i32 | connect.search_interfaces ~interface.getattr | high
138 connect_list_defined_interfaces | maxnames:i32 | names:str<16384> | connect.search_interfaces ~interface.getattr
      | high
139 connect_num_of_secrets | | num:i32 | connect.search_secrets ~secret.getattr | high
140 connect_list_secrets | maxuuids:i32 | uuids:str<16384> | connect.search_secrets ~secret.getattr | high
149 connect_is_secure | | secure:i32 | | high
157 connect_get_lib_version | | lib_ver:u64 | connect.getattr | high
158 connect_compare_cpu | xml:str flags:u32 | result:i32 | connect.read | high
162 connect_baseline_cpu | xml_cpus:str<256> flags:u32 | cpu:str | connect.read
167 connect_domain_event_register_any | event_id:i32 | | connect.search_domains ~domain.getattr | high
168 connect_domain_event_deregister_any | event_id:i32 | | connect.read | high
178 connect_num_of_nwfilters | | num:i32 | connect.search_nwfilters ~nwfilter.getattr | high
179 connect_list_nwfilters | maxnames:i32 | names:str<16384> | connect.search_nwfilters ~nwfilter.getattr | high
203 connect_get_sysinfo | flags:u32 | sysinfo:str | connect.read | high
273 connect_list_all_domains | need_results:i32 flags:u32 | domains:domain<16384> ret:u32 | connect.search_domains
      ~domain.getattr | high
281 connect_list_all_storage_pools | need_results:i32 flags:u32 | pools:pool<16384> ret:u32 |
      connect.search_storage_pools ~storage_pool.getattr | high
283 connect_list_all_networks | need_results:i32 flags:u32 | nets:network<16384> ret:u32 | connect.search_networks
      ~network.getattr | high
284 connect_list_all_interfaces | need_results:i32 flags:u32 | ifaces:interface<16384> ret:u32 |
      connect.search_interfaces ~interface.getattr | high
285 connect_list_all_node_devices | need_results:i32 flags:u32 | devices:node_device<65536> ret:u32 |
      connect.search_node_devices ~node_device.getattr | high
286 connect_list_all_nwfilters | need_results:i32 flags:u32 | filters:nwfilter<16384> ret:u32 |
      connect.search_nwfilters ~nwfilter.getattr | high
287 connect_list_all_secrets | need_results:i32 flags:u32 | secrets:secret<16384> ret:u32 | connect.search_secrets
      ~secret.getattr | high
312 connect_get_cpu_model_names | arch:str need_results:i32 flags:u32 | models:str<8192> ret:i32 | connect.read
313 connect_network_event_register_any | event_id:i32 net:network? | callback_id:i32 | connect.search_networks
      ~network.getattr | high
314 connect_network_event_deregister_any | callback_id:i32 | | connect.read | high
316 connect_domain_event_callback_register_any | event_id:i32 dom:domain? | callback_id:i32 | connect.search_domains
      ~domain.getattr | high
317 connect_domain_event_callback_deregister_any | callback_id:i32 | | connect.read | high
342 connect_get_domain_capabilities | emulatorbin:str? arch:str? machine:str? virttype:str? flags:u32 |
      capabilities:str | connect.write
344 connect_get_all_domain_stats | doms:domain<16384> stats:u32 flags:u32 | ret_stats:domain_stats_record<16384> |
      connect.search_domains ~domain.read
360 connect_register_close_callback | | | connect.getattr | high
361 connect_unregister_close_callback | | | connect.getattr | high
368 connect_storage_pool_event_register_any | event_id:i32 pool:pool? | callback_id:i32 |
      connect.search_storage_pools ~storage_pool.getattr | high
369 connect_storage_pool_event_deregister_any | callback_id:i32 | | connect.read | high
374 connect_node_device_event_register_any | event_id:i32 dev:node_device? | callback_id:i32 |
      connect.search_node_devices ~node_device.getattr | high
375 connect_node_device_event_deregister_any | callback_id:i32 | | connect.read | high
380 connect_secret_event_register_any | event_id:i32 secret:secret? | callback_id:i32 | connect.search_secrets
      ~secret.getattr | high
381 connect_secret_event_deregister_any | callback_id:i32 | | connect.read | high
393 connect_compare_hypervisor_cpu | emulator:str? arch:str? machine:str? virttype:str? xml_cpu:str flags:u32 |
      result:i32 | connect.write
394 connect_baseline_hypervisor_cpu | emulator:str? arch:str? machine:str? virttype:str? xml_cpus:str<256> flags:u32
      | cpu:str | connect.write
401 connect_list_all_nwfilter_bindings | need_results:i32 flags:u32 | bindings:nwfilter_binding<16384> ret:u32 |
      connect.search_nwfilter_bindings ~nwfilter_binding.getattr | high
403 connect_get_storage_pool_capabilities | flags:u32 | capabilities:str | connect.read
419 connect_set_identity | params:param<20> flags:u32 | | connect.write
"""
