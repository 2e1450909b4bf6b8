"""Procedures of domains."""

from __future__ import annotations

from typing import Final

ROWS: Final = """
  8 domain_attach_device | dom:domain xml:str | | domain.write
  9 domain_create | dom:domain | | domain.start
 10 domain_create_xml | xml_desc:str flags:u32 | dom:domain | domain.write domain.start
 11 domain_define_xml | xml:str | dom:domain | domain.write domain.save | high
 12 domain_destroy | dom:domain | | domain.stop | high
 13 domain_detach_device | dom:domain xml:str | | domain.write
 14 domain_get_xml_desc | dom:domain flags:u32 | xml:str | domain.read domain.read_secure&1 domain.read_secure&8
 15 domain_get_autostart | dom:domain | autostart:i32 | domain.read | high
 16 domain_get_info | dom:domain | state:u8 max_mem:u64 memory:u64 nr_virt_cpu:u16 cpu_time:u64 | domain.read
 17 domain_get_max_memory | dom:domain | memory:u64 | domain.read | high
 18 domain_get_max_vcpus | dom:domain | num:i32 | domain.read | high
 19 domain_get_os_type | dom:domain | type:str | domain.read | high
 20 domain_get_vcpus | dom:domain maxinfo:i32 maplen:i32 | info:vcpu_info<16384> cpumaps:bytes<8388608> | domain.read
      | high
 22 domain_lookup_by_id | id:i32 | dom:domain | domain.getattr | high
 23 domain_lookup_by_name | name:str | dom:domain | domain.getattr | high
 24 domain_lookup_by_uuid | uuid:uuid | dom:domain | domain.getattr | high
 26 domain_pin_vcpu | dom:domain vcpu:u32 cpumap:bytes<2048> | | domain.write
 27 domain_reboot | dom:domain flags:u32 | | domain.init_control domain.write&2
 28 domain_resume | dom:domain | | domain.suspend
 29 domain_set_autostart | dom:domain autostart:i32 | | domain.write | high
 30 domain_set_max_memory | dom:domain memory:u64 | | domain.write | high
 31 domain_set_memory | dom:domain memory:u64 | | domain.write
 32 domain_set_vcpus | dom:domain nvcpus:u32 | | domain.write
 33 domain_shutdown | dom:domain | | domain.init_control
 34 domain_suspend | dom:domain | | domain.suspend
 35 domain_undefine | dom:domain | | domain.delete | high
 53 domain_core_dump | dom:domain to:str flags:u32 | | domain.core_dump
 54 domain_restore | from:str | | domain.start domain.write
 55 domain_save | dom:domain to:str | | domain.hibernate
 56 domain_get_scheduler_type | dom:domain | type:str nparams:i32 | domain.read
 57 domain_get_scheduler_parameters | dom:domain nparams:i32 | params:param<16> | domain.read
 58 domain_set_scheduler_parameters | dom:domain params:param<16> | | domain.read
 64 domain_block_stats | dom:domain path:str | rd_req:i64 rd_bytes:i64 wr_req:i64 wr_bytes:i64 errs:i64 | domain.read
 65 domain_interface_stats | dom:domain device:str | rx_bytes:i64 rx_packets:i64 rx_errs:i64 rx_drop:i64 tx_bytes:i64
      tx_packets:i64 tx_errs:i64 tx_drop:i64 | domain.read | high
103 domain_block_peek | dom:domain path:str offset:u64 size:u32 flags:u32 | buffer:bytes<4194304> | domain.block_read
104 domain_memory_peek | dom:domain offset:u64 size:u32 flags:u32 | buffer:bytes<4194304> | domain.mem_read
121 domain_get_security_label | dom:domain | label:chars<4097> enforcing:i32 | domain.read | high
150 domain_is_active | dom:domain | active:i32 | domain.read | high
151 domain_is_persistent | dom:domain | persistent:i32 | domain.read | high
159 domain_memory_stats | dom:domain max_stats:u32 flags:u32 | stats:domain_memory_stat<1024> | domain.read
160 domain_attach_device_flags | dom:domain xml:str flags:u32 | | domain.write domain.save!3 domain.save&2
161 domain_detach_device_flags | dom:domain xml:str flags:u32 | | domain.write domain.save!3 domain.save&2
163 domain_get_job_info | dom:domain | type:i32 time_elapsed:u64 time_remaining:u64 data_total:u64 data_processed:u64
      data_remaining:u64 mem_total:u64 mem_processed:u64 mem_remaining:u64 file_total:u64 file_processed:u64
      file_remaining:u64 | domain.read
164 domain_abort_job | dom:domain | | domain.write
174 domain_update_device_flags | dom:domain xml:str flags:u32 | | domain.write domain.save!3 domain.save&2
182 domain_managed_save | dom:domain flags:u32 | | domain.hibernate
183 domain_has_managed_save_image | dom:domain flags:u32 | result:i32 | domain.read
184 domain_managed_save_remove | dom:domain flags:u32 | | domain.hibernate
194 domain_get_block_info | dom:domain path:str flags:u32 | allocation:u64 capacity:u64 physical:u64 | domain.read
196 domain_create_with_flags | dom:domain flags:u32 | dom:domain | domain.start
197 domain_set_memory_parameters | dom:domain params:param<16> flags:u32 | | domain.write domain.save!3
      domain.save&2
198 domain_get_memory_parameters | dom:domain nparams:i32 flags:u32 | params:param<16> nparams:i32 | domain.read
199 domain_set_vcpus_flags | dom:domain nvcpus:u32 flags:u32 | | domain.write domain.save!3 domain.save&2
      domain.write&8
200 domain_get_vcpus_flags | dom:domain flags:u32 | num:i32 | domain.read domain.write&8
201 domain_open_console | dom:domain dev_name:str? flags:u32 | | domain.open_device | download
202 domain_is_updated | dom:domain | updated:i32 | domain.read | high
204 domain_set_memory_flags | dom:domain memory:u64 flags:u32 | | domain.write domain.save!3 domain.save&2
205 domain_set_blkio_parameters | dom:domain params:param<16> flags:u32 | | domain.write domain.save!3 domain.save&2
206 domain_get_blkio_parameters | dom:domain nparams:i32 flags:u32 | params:param<16> nparams:i32 | domain.read
210 domain_inject_nmi | dom:domain flags:u32 | | domain.inject_nmi
211 domain_screenshot | dom:domain screen:u32 flags:u32 | mime:str? | domain.screenshot | download
212 domain_get_state | dom:domain flags:u32 | state:i32 reason:i32 | domain.read | high
219 domain_set_scheduler_parameters_flags | dom:domain params:param<16> flags:u32 | | domain.write domain.save!3
      domain.save&2
223 domain_get_scheduler_parameters_flags | dom:domain nparams:i32 flags:u32 | params:param<16> | domain.read
225 domain_pin_vcpu_flags | dom:domain vcpu:u32 cpumap:bytes<2048> flags:u32 | | domain.write domain.save!3
      domain.save&2
226 domain_send_key | dom:domain codeset:u32 holdtime:u32 keycodes:u32<16> flags:u32 | | domain.send_input
229 domain_get_control_info | dom:domain flags:u32 | state:u32 details:u32 state_time:u64 | domain.read | high
230 domain_get_vcpu_pin_info | dom:domain ncpumaps:i32 maplen:i32 flags:u32 | cpumaps:bytes<8388608> num:i32 |
      domain.read
231 domain_undefine_flags | dom:domain flags:u32 | | domain.delete | high
232 domain_save_flags | dom:domain to:str dxml:str? flags:u32 | | domain.hibernate
233 domain_restore_flags | from:str dxml:str? flags:u32 | | domain.start domain.write
234 domain_destroy_flags | dom:domain flags:u32 | | domain.stop | high
235 domain_save_image_get_xml_desc | file:str flags:u32 | xml:str | domain.write | high
236 domain_save_image_define_xml | file:str dxml:str flags:u32 | | domain.write domain.hibernate | high
237 domain_block_job_abort | dom:domain path:str flags:u32 | | domain.write
238 domain_get_block_job_info | dom:domain path:str flags:u32 | found:i32 type:i32 bandwidth:u64 cur:u64 end:u64 |
      domain.read
239 domain_block_job_set_speed | dom:domain path:str bandwidth:u64 flags:u32 | | domain.write
240 domain_block_pull | dom:domain path:str bandwidth:u64 flags:u32 | | domain.block_write
243 domain_block_stats_flags | dom:domain path:str nparams:i32 flags:u32 | params:param<16> nparams:i32 | domain.read
245 domain_reset | dom:domain flags:u32 | | domain.reset
249 domain_open_graphics | dom:domain idx:u32 flags:u32 | | domain.open_graphics
251 domain_block_resize | dom:domain disk:str size:u64 flags:u32 | | domain.block_write
252 domain_set_block_io_tune | dom:domain disk:str params:param<32> flags:u32 | | domain.write domain.save!3
      domain.save&2
253 domain_get_block_io_tune | dom:domain disk:str? nparams:i32 flags:u32 | params:param<32> nparams:i32 | domain.read
254 domain_set_numa_parameters | dom:domain params:param<16> flags:u32 | | domain.write domain.save!3 domain.save&2
255 domain_get_numa_parameters | dom:domain nparams:i32 flags:u32 | params:param<16> nparams:i32 | domain.read
256 domain_set_interface_parameters | dom:domain device:str params:param<16> flags:u32 | | domain.write
      domain.save!3 domain.save&2
257 domain_get_interface_parameters | dom:domain device:str nparams:i32 flags:u32 | params:param<16> nparams:i32 |
      domain.read
258 domain_shutdown_flags | dom:domain flags:u32 | | domain.init_control domain.write&2
261 domain_pm_suspend_for_duration | dom:domain target:u32 duration:u64 flags:u32 | | domain.pm_control
262 domain_get_cpu_stats | dom:domain nparams:u32 start_cpu:i32 ncpus:u32 flags:u32 | params:param<2048> nparams:i32
      | domain.read
263 domain_get_disk_errors | dom:domain maxerrors:u32 flags:u32 | errors:domain_disk_error<256> nerrors:i32 |
      domain.read
264 domain_set_metadata | dom:domain type:i32 metadata:str? key:str? uri:str? flags:u32 | | domain.write
      domain.save!3 domain.save&2
265 domain_get_metadata | dom:domain type:i32 uri:str? flags:u32 | metadata:str | domain.read
266 domain_block_rebase | dom:domain path:str base:str? bandwidth:u64 flags:u32 | | domain.block_write
267 domain_pm_wakeup | dom:domain flags:u32 | | domain.pm_control
277 domain_get_hostname | dom:domain flags:u32 | hostname:str | domain.write
278 domain_get_security_label_list | dom:domain | labels:security_label<64> ret:i32 | domain.read | high
279 domain_pin_emulator | dom:domain cpumap:bytes<2048> flags:u32 | | domain.write domain.save!3 domain.save&2
280 domain_get_emulator_pin_info | dom:domain maplen:i32 flags:u32 | cpumaps:bytes<8388608> ret:i32 | domain.read
290 domain_block_commit | dom:domain disk:str base:str? top:str? bandwidth:u64 flags:u32 | | domain.block_write
294 domain_fstrim | dom:domain mount_point:str? minimum:u64 flags:u32 | | domain.fs_trim
295 domain_send_process_signal | dom:domain pid_value:i64 signum:u32 flags:u32 | | domain.send_signal
296 domain_open_channel | dom:domain name:str? flags:u32 | | domain.open_device | download
298 domain_get_job_stats | dom:domain flags:u32 | type:i32 params:param<64> | domain.read
308 domain_set_memory_stats_period | dom:domain period:i32 flags:u32 | | domain.write domain.save!3 domain.save&2
309 domain_create_xml_with_files | xml_desc:str flags:u32 | dom:domain | domain.write domain.start
310 domain_create_with_files | dom:domain flags:u32 | dom:domain | domain.start
334 domain_core_dump_with_format | dom:domain to:str dumpformat:u32 flags:u32 | | domain.core_dump
335 domain_fsfreeze | dom:domain mountpoints:str<256> flags:u32 | filesystems:i32 | domain.fs_freeze
336 domain_fsthaw | dom:domain mountpoints:str<256> flags:u32 | filesystems:i32 | domain.fs_freeze
337 domain_get_time | dom:domain flags:u32 | seconds:i64 nseconds:u32 | domain.write
338 domain_set_time | dom:domain seconds:i64 nseconds:u32 flags:u32 | | domain.set_time
343 domain_open_graphics_fd | dom:domain idx:u32 flags:u32 | | domain.open_graphics
345 domain_block_copy | dom:domain path:str destxml:str params:param<16> flags:u32 | | domain.block_write
349 domain_get_fsinfo | dom:domain flags:u32 | info:domain_fsinfo<256> ret:u32 | domain.fs_freeze
350 domain_define_xml_flags | xml:str flags:u32 | dom:domain | domain.write domain.save | high
351 domain_get_iothread_info | dom:domain flags:u32 | info:domain_iothread_info<16384> ret:u32 | domain.read
352 domain_pin_iothread | dom:domain iothreads_id:u32 cpumap:bytes<2048> flags:u32 | | domain.write domain.save!3
      domain.save&2
353 domain_interface_addresses | dom:domain source:u32 flags:u32 | ifaces:domain_interface<2048> | domain.read
      domain.write=source:1
355 domain_add_iothread | dom:domain iothread_id:u32 flags:u32 | | domain.write domain.save!3 domain.save&2
356 domain_del_iothread | dom:domain iothread_id:u32 flags:u32 | | domain.write domain.save!3 domain.save&2
357 domain_set_user_password | dom:domain user:str? password:str? flags:u32 | | domain.set_password
358 domain_rename | dom:domain new_name:str? flags:u32 | retcode:i32 | domain.write domain.save
365 domain_get_perf_events | dom:domain flags:u32 | params:param<64> | domain.read
366 domain_set_perf_events | dom:domain params:param<64> flags:u32 | | domain.write
371 domain_get_guest_vcpus | dom:domain flags:u32 | params:param<64> | domain.write
372 domain_set_guest_vcpus | dom:domain cpumap:str state:i32 flags:u32 | | domain.write
384 domain_set_vcpu | dom:domain cpumap:str state:i32 flags:u32 | | domain.write domain.save!3 domain.save&2
386 domain_set_block_threshold | dom:domain dev:str threshold:u64 flags:u32 | | domain.write
388 domain_managed_save_get_xml_desc | dom:domain flags:u32 | xml:str | domain.read domain.read_secure&1
389 domain_managed_save_define_xml | dom:domain dxml:str? flags:u32 | | domain.write domain.hibernate
390 domain_set_lifecycle_action | dom:domain type:u32 action:u32 flags:u32 | | domain.write
392 domain_detach_device_alias | dom:domain alias:str flags:u32 | | domain.write domain.save!3 domain.save&2
396 domain_get_launch_security_info | dom:domain flags:u32 | params:param<64> | domain.read
402 domain_set_iothread_params | dom:domain iothread_id:u32 params:param<64> flags:u32 | | domain.write
      domain.save!3 domain.save&2
418 domain_get_guest_info | dom:domain types:u32 flags:u32 | params:param<2048> | domain.write
420 domain_agent_set_response_timeout | dom:domain timeout:i32 flags:u32 | result:i32 | domain.write
421 domain_backup_begin | dom:domain backup_xml:str checkpoint_xml:str? flags:u32 | | domain.checkpoint
      domain.block_write
422 domain_backup_get_xml_desc | dom:domain flags:u32 | xml:str | domain.read | high
424 domain_authorized_ssh_keys_get | dom:domain user:str flags:u32 | keys:str<2048> | domain.write
425 domain_authorized_ssh_keys_set | dom:domain user:str keys:str<2048> flags:u32 | | domain.write
426 domain_get_messages | dom:domain flags:u32 | msgs:str<2048> | domain.read
427 domain_start_dirty_rate_calc | dom:domain seconds:i32 flags:u32 | | domain.write
439 domain_set_launch_security_state | dom:domain params:param<64> flags:u32 | | domain.write
440 domain_save_params | dom:domain params:param<64> flags:u32 | | domain.hibernate
441 domain_restore_params | params:param<64> flags:u32 | | domain.start domain.write
442 domain_abort_job_flags | dom:domain flags:u32 | | domain.write
443 domain_fd_associate | dom:domain name:str flags:u32 | | domain.write
"""
