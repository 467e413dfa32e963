"""The cache: finished pieces with checksums, each stored under a key made from everything that determines it.

Files are written under a temporary name and renamed when complete. Any number of processes may use one cache at the
same time, on one host or on several over a shared file system.
"""

from unifeat.store.cache import cache_root
from unifeat.store.digests import file_stamp, sha256_of
from unifeat.store.keys import key_of
from unifeat.store.machine import is_disk_full, machine_error
from unifeat.store.pieces import JSON, TABLE, Form, Piece
from unifeat.store.writing import remove, write_json, write_text, written_aside

__all__ = [
    "JSON",
    "TABLE",
    "Form",
    "Piece",
    "cache_root",
    "file_stamp",
    "is_disk_full",
    "key_of",
    "machine_error",
    "remove",
    "sha256_of",
    "write_json",
    "write_text",
    "written_aside",
]
