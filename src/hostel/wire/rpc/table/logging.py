"""Procedures of virtlogd, which writes what programs say into files of bounded length (``src/logging/log_protocol.x``).

A descriptor follows the answer of ``open_log_file``: the end of a pipe to write to. Its flag 1 empties the file before.
"""

from __future__ import annotations

from typing import Final

from hostel.codec.xdr import Types

TYPES: Final = Types("""
machine uuid:uuid name:str
position inode:u64 offset:u64
""")
ROWS: Final = """
1 open_log_file | driver:str dom:machine path:str flags:u32 | pos:position
2 get_log_file_position | path:str flags:u32 | pos:position
3 read_log_file | path:str pos:position maxlen:u64 flags:u32 | data:str
4 append_log_file | driver:str dom:machine path:str message:str flags:u32 | ret:i32
"""
