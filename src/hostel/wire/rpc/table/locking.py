"""Procedures of virtlockd, which keeps locks for processes (``src/locking/lock_protocol.x``).

Flags of ``acquire_resource``: 1 is for one that several may have, 2 for a file that is made where it is missing.
"""

from __future__ import annotations

from typing import Final

from hostel.codec.xdr import Types

TYPES: Final = Types("""
owner uuid:uuid name:str id:u32 pid:u32
""")
ROWS: Final = """
1 register | owner:owner flags:u32
2 restrict | flags:u32
3 new | path:str flags:u32
4 create_resource | path:str name:str flags:u32
5 delete_resource | path:str name:str flags:u32
6 acquire_resource | path:str name:str flags:u32
7 release_resource | path:str name:str flags:u32
8 create_lockspace | path:str
"""
