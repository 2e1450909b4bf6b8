"""The structures that procedures are about; :mod:`hostel.codec.xdr` tells the notation."""

from __future__ import annotations

from typing import Final

from hostel.codec.xdr import Types

TYPES: Final = Types("""
domain                         name:str uuid:uuid id:i32
network                        name:str uuid:uuid
network_port                   net:network uuid:uuid
nwfilter                       name:str uuid:uuid
nwfilter_binding               portdev:str filtername:str
interface                      name:str mac:str
pool                           name:str uuid:uuid
volume                         pool:str name:str key:str
node_device                    name:str
secret                         uuid:uuid usage_type:i32 usage_id:str
checkpoint                     name:str dom:domain
snapshot                       name:str dom:domain
error                          code:i32 domain:i32 message:str? level:i32 dom:domain? str1:str? str2:str? str3:str?
                               int1:i32 int2:i32 net:network?
vcpu_info                      number:u32 state:i32 cpu_time:u64 cpu:i32
typed_value                    1=i32 2=u32 3=i64 4=u64 5=f64 6=i32 7=str
param                          field:str value:typed_value
node_stat                      field:str value:u64
domain_disk_error              disk:str error:i32
domain_memory_stat             tag:i32 val:u64
domain_iothread_info           iothread_id:u32 cpumap:bytes<2048>
domain_event_graphics_address  family:i32 node:str service:str
domain_event_graphics_identity type:str name:str
network_dhcp_lease             iface:str expirytime:i64 type:i32 mac:str? iaid:str? ipaddr:str prefix:u32
                               hostname:str? clientid:str?
domain_stats_record            dom:domain params:param<262144>
domain_fsinfo                  mountpoint:str name:str fstype:str dev_aliases:str<256>
domain_ip_addr                 type:i32 addr:str prefix:u32
domain_interface               name:str hwaddr:str? addrs:domain_ip_addr<2048>
security_label                 label:chars<4097> enforcing:i32
""")
