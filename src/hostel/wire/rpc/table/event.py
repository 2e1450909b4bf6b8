"""Events: messages from the daemon to who has registered for them."""

from __future__ import annotations

from typing import Final

ROWS: Final = """
107 domain_event_lifecycle | dom:domain event:i32 detail:i32 | | | event
169 domain_event_reboot | dom:domain | | | event
170 domain_event_rtc_change | dom:domain offset:i64 | | | event
171 domain_event_watchdog | dom:domain action:i32 | | | event
172 domain_event_io_error | dom:domain src_path:str dev_alias:str action:i32 | | | event
173 domain_event_graphics | dom:domain phase:i32 local:domain_event_graphics_address
      remote:domain_event_graphics_address auth_scheme:str subject:domain_event_graphics_identity<20> | | | event
195 domain_event_io_error_reason | dom:domain src_path:str dev_alias:str action:i32 reason:str | | | event
224 domain_event_control_error | dom:domain | | | event
241 domain_event_block_job | dom:domain path:str type:i32 status:i32 | | | event
248 domain_event_disk_change | dom:domain old_src_path:str? new_src_path:str? dev_alias:str reason:i32 | | | event
268 domain_event_tray_change | dom:domain dev_alias:str reason:i32 | | | event
269 domain_event_pmwakeup | dom:domain | | | event
270 domain_event_pmsuspend | dom:domain | | | event
276 domain_event_balloon_change | dom:domain actual:u64 | | | event
292 domain_event_pmsuspend_disk | dom:domain | | | event
311 domain_event_device_removed | dom:domain dev_alias:str | | | event
315 network_event_lifecycle | callback_id:i32 net:network event:i32 detail:i32 | | | event
318 domain_event_callback_lifecycle | callback_id:i32 dom:domain event:i32 detail:i32 | | | event
319 domain_event_callback_reboot | callback_id:i32 dom:domain | | | event
320 domain_event_callback_rtc_change | callback_id:i32 dom:domain offset:i64 | | | event
321 domain_event_callback_watchdog | callback_id:i32 dom:domain action:i32 | | | event
322 domain_event_callback_io_error | callback_id:i32 dom:domain src_path:str dev_alias:str action:i32 | | | event
323 domain_event_callback_graphics | callback_id:i32 dom:domain phase:i32 local:domain_event_graphics_address
      remote:domain_event_graphics_address auth_scheme:str subject:domain_event_graphics_identity<20> | | | event
324 domain_event_callback_io_error_reason | callback_id:i32 dom:domain src_path:str dev_alias:str action:i32
      reason:str | | | event
325 domain_event_callback_control_error | callback_id:i32 dom:domain | | | event
326 domain_event_callback_block_job | callback_id:i32 dom:domain path:str type:i32 status:i32 | | | event
327 domain_event_callback_disk_change | callback_id:i32 dom:domain old_src_path:str? new_src_path:str? dev_alias:str
      reason:i32 | | | event
328 domain_event_callback_tray_change | callback_id:i32 dom:domain dev_alias:str reason:i32 | | | event
329 domain_event_callback_pmwakeup | callback_id:i32 reason:i32 dom:domain | | | event
330 domain_event_callback_pmsuspend | callback_id:i32 reason:i32 dom:domain | | | event
331 domain_event_callback_balloon_change | callback_id:i32 dom:domain actual:u64 | | | event
332 domain_event_callback_pmsuspend_disk | callback_id:i32 reason:i32 dom:domain | | | event
333 domain_event_callback_device_removed | callback_id:i32 dom:domain dev_alias:str | | | event
339 domain_event_block_job_2 | callback_id:i32 dom:domain dst:str type:i32 status:i32 | | | event
346 domain_event_callback_tunable | callback_id:i32 dom:domain params:param<2048> | | | event
348 domain_event_callback_agent_lifecycle | callback_id:i32 dom:domain state:i32 reason:i32 | | | event
354 domain_event_callback_device_added | callback_id:i32 dom:domain dev_alias:str | | | event
359 domain_event_callback_migration_iteration | callback_id:i32 dom:domain iteration:i32 | | | event
362 connect_event_connection_closed | reason:i32 | | | event
363 domain_event_callback_job_completed | callback_id:i32 dom:domain params:param<64> | | | event
367 domain_event_callback_device_removal_failed | callback_id:i32 dom:domain dev_alias:str | | | event
370 storage_pool_event_lifecycle | callback_id:i32 pool:pool event:i32 detail:i32 | | | event
373 storage_pool_event_refresh | callback_id:i32 pool:pool | | | event
376 node_device_event_lifecycle | callback_id:i32 dev:node_device event:i32 detail:i32 | | | event
377 node_device_event_update | callback_id:i32 dev:node_device | | | event
379 domain_event_callback_metadata_change | callback_id:i32 dom:domain type:i32 nsuri:str? | | | event
382 secret_event_lifecycle | callback_id:i32 secret:secret event:i32 detail:i32 | | | event
383 secret_event_value_changed | callback_id:i32 secret:secret | | | event
385 domain_event_block_threshold | callback_id:i32 dom:domain dev:str path:str? threshold:u64 excess:u64 | | | event
423 domain_event_memory_failure | callback_id:i32 dom:domain recipient:i32 action:i32 flags:u32 | | | event
438 domain_event_memory_device_size_change | callback_id:i32 dom:domain alias:str size:u64 | | | event
"""
