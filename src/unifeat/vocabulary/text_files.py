"""Endings of the files that text is read from."""

LOCAL_SUFFIXES = (".txt", ".jsonl", ".jsonl.zst", ".parquet")
