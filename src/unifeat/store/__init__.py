"""The cache: finished pieces under keys made from all that determines them, with checksums, written aside and renamed.

Any number of processes, on one host or on many over a shared file system, may work in one cache at the same time.
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
