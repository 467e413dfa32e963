"""Endings of the files that text is read from, in small letters: `.JSONL` is `.jsonl`."""

PACKED = (".gz", ".bz2", ".xz", ".zst")
# Kinds that are read from the start to the end, and so may be packed; those that are not, and pack their parts
# themselves.
STREAMED = (".txt", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".md")
IN_PARTS = (".parquet", ".arrow", ".feather")
LOCAL_SUFFIXES = (*(kind + packing for kind in STREAMED for packing in ("", *PACKED)), *IN_PARTS)
# Often notes and facts beside a text: in a folder that holds other kinds, they are not taken for documents.
OFTEN_NOTES = (".md", ".json", ".csv", ".tsv")
# All of them, for messages.
SAID = f"{', '.join(STREAMED)} (also packed: {', '.join(PACKED)}), {', '.join(IN_PARTS)}"
