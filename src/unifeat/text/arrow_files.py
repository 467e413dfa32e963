"""A column of an Arrow file: .arrow (as the datasets library saves them) and .feather.

Text that is not packed is read where it lies in the mapped file. Packed batches say how long they are unpacked; this
is read first, since a few kilobytes can hold gigabytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from unifeat.errors import UserError
from unifeat.text.unpacking import Reading

_FILE_MAGIC = b"ARROW1"
_LARGEST_BATCH = 512 << 20  # bytes, unpacked
_DICTIONARY, _RECORDS = 2, 3  # kinds of messages


def arrow_cells(reading: Reading, field: str) -> Iterator[Any]:
    """The cells of a column, as Arrow's scalars, batch by batch. (`Reading.errors` turns Arrow's errors into one line.)

    Raises:
        UserError: no such column, or a batch that would take too much memory.
    """
    import pyarrow as pa

    with pa.memory_map(str(reading.path)) as source:
        in_file = source.read(len(_FILE_MAGIC)) == _FILE_MAGIC
        source.seek(0)
        names = (pa.ipc.open_file if in_file else pa.ipc.open_stream)(source).schema.names
        _check_sizes(reading, _in_file(source) if in_file else _in_stream(source))
        if field not in names:
            raise UserError(f"{reading} has no column {field!r}: set text.field to one of {names}")
        options = pa.ipc.IpcReadOptions(included_fields=[names.index(field)])
        source.seek(0)
        for batch in _batches(pa, source, in_file, options):
            batch.validate(full=True)  # what a file says of its own offsets is not trusted
            yield from batch.column(0)


def _batches(pa: Any, source: Any, in_file: bool, options: Any) -> Iterator[Any]:
    if in_file:
        reader = pa.ipc.open_file(source, options=options)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)
    else:
        yield from pa.ipc.open_stream(source, options=options)


def _in_stream(source: Any) -> Iterator[Any]:
    """The messages of a stream."""
    import pyarrow as pa

    source.seek(0)
    messages = pa.ipc.MessageReader.open_stream(source)
    while True:
        try:
            yield messages.read_next_message()
        except StopIteration:
            return


def _in_file(source: Any) -> Iterator[Any]:
    """The dictionaries and batches of a file that Arrow has opened: its footer says where they are.

    They need not follow each other from the start, as those of a stream do: polars begins on a round address. (The
    footer is a flatbuffer, `File.fbs`: two vectors of blocks, each with an offset and two lengths, in 24 bytes.)
    """
    import pyarrow as pa

    size = source.size()
    source.seek(size - 4 - len(_FILE_MAGIC))
    length = struct.unpack("<i", source.read(4))[0]
    source.seek(size - 4 - len(_FILE_MAGIC) - length)
    footer = source.read(length)
    for blocks in (2, 3):
        vector = _table(footer, struct.unpack_from("<i", footer)[0], blocks)
        if vector is None:
            continue
        for number in range(struct.unpack_from("<I", footer, vector)[0]):
            source.seek(struct.unpack_from("<q", footer, vector + 4 + 24 * number)[0])
            yield pa.ipc.read_message(source)


def _check_sizes(reading: Reading, messages: Iterator[Any]) -> None:
    """Raise a UserError for a batch that is too large unpacked."""
    for message in messages:
        size = unpacked_size(bytes(message.metadata), message.body)
        if size > _LARGEST_BATCH:
            raise UserError(
                f"{reading}: it holds a batch of {size >> 20:,} MiB, more than {_LARGEST_BATCH >> 20}: write it in "
                "smaller batches"
            )


def unpacked_size(metadata: bytes, body: Any) -> int:
    """How many bytes the packed buffers of an Arrow message are unpacked; 0 for one that is not packed.

    The metadata are a flatbuffer (Arrow's `Message.fbs`): a table's fields are found through its vtable. A packed
    buffer begins with its unpacked length; −1 stands for one that is not packed.
    """
    if body is None:
        return 0
    message = struct.unpack_from("<i", metadata, 0)[0]
    kind = _field(metadata, message, 1)
    batch = _table(metadata, message, 2)
    if kind is None or batch is None or metadata[kind] not in (_DICTIONARY, _RECORDS):
        return 0
    if metadata[kind] == _DICTIONARY:
        batch = _table(metadata, batch, 1)
    if batch is None or _field(metadata, batch, 3) is None:  # no compression
        return 0
    buffers = _table(metadata, batch, 2)
    if buffers is None:
        return 0
    total = 0
    for number in range(struct.unpack_from("<i", metadata, buffers)[0]):
        offset, length = struct.unpack_from("<qq", metadata, buffers + 4 + 16 * number)
        if length >= 8:
            total += max(struct.unpack_from("<q", body, offset)[0], 0)
    return total


def _field(data: bytes, table: int, number: int) -> int | None:
    """Where a field of a flatbuffer's table is; None if it is left out."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    slot = 4 + 2 * number
    if slot >= struct.unpack_from("<H", data, vtable)[0]:
        return None
    offset = struct.unpack_from("<H", data, vtable + slot)[0]
    return table + offset if offset else None


def _table(data: bytes, table: int, number: int) -> int | None:
    """Where the table or vector is that a field points to."""
    field = _field(data, table, number)
    return None if field is None else field + int(struct.unpack_from("<I", data, field)[0])
