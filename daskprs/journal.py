"""The journal: which mini-batches have their rows in the output, and where.

One JSON text a line, in ASCII. The first line is the header: the version of the journal, and what
the run is, so that only the same run goes on with it. Then, in the order of the rows::

    {"shape": ["a", "b"], "length": 4}       columns of a table; bytes of the header line
    [7, "90b1c5e0aa12f3d4", 1200, 10, 10]    index, key, bytes of rows, items, items succeeded
    [8, "1f00aa12f3d490b1", -1, 10, 0]       a mini-batch that has failed: no rows
    [9, "aa12f3d490b11f00", 1200, 10, 8, [[3, 5, 2, 400, 0]]]   one with bad items: see `BadItems`
    {"finished": {...}, "size": 1204, "rows": "kept"}    the output is about to get its final name
    {"retry": {...}, "records": 3}           what failed in these records is to run again

A record is written after its rows are safe. So the journal never promises rows that are not
there, and what stands behind the last record's rows is cut away when a run goes on. A line that
is torn ends the journal. The output is finished when the last line says so *and* a file of that
size has the final name.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from daskprs.exceptions import OutputError
from daskprs.records import Record, Records

__all__ = [
    "VERSION",
    "Journal",
    "finished_line",
    "header_line",
    "piece_head_line",
    "read_journal",
    "read_piece",
    "record_line",
    "retry_line",
    "shape_line",
]

VERSION = 1
_CHUNK = 1 << 18
_quoted = json.encoder.encode_basestring_ascii


@dataclass
class Journal:
    """A journal that was read back, or that a run is writing.

    Attributes
    ----------
    header : dict
        What the run is: the facts that it began with.
    name, output_format : str
        Of the output.
    records : Records
    shape : object
        Columns of the rows, as the output's format knows them; None while there are none.
    start : int
        Bytes in front of the first record's rows: the header line of a CSV file.
    finished : dict or None
        The facts that the run ended with. Not None only where the finished output is there.
    size : int or None
        Bytes of the output when the run has last finished; None where there was none.
    rows : str or None
        Where its rows were left, so that what has failed can run again: "kept" beside the output,
        or the CRC-32 of the output where that is the file to which they were written.
    retried : int
        What failed in so many of the first records is to run again.
    output_missing : bool
        The run had finished, but no file of that size has the output's name (any more): it was
        removed or changed, or the run was killed in the moment before the output got its name.
        `finished` is None then, and `records` are those that have their rows still.
    segments : str or None
        Of a store: what the names of this run's segments begin with.
    nbytes : int
        Of the journal, up to the last line that counts.
    """

    header: dict[str, Any]
    name: str
    output_format: str | None
    records: Records = field(default_factory=Records)
    shape: Any = None
    start: int = 0
    finished: dict[str, Any] | None = None
    size: int | None = None
    rows: str | None = None
    retried: int = 0
    output_missing: bool = False
    segments: str | None = None
    nbytes: int = 0

    @property
    def rows_end(self) -> int:
        """Bytes of rows that the journal vouches for."""
        return self.start + self.records.nbytes


def _line(content: Mapping[str, Any]) -> bytes:
    # ASCII: a name with surrogates, which no UTF-8 has, comes back as it was.
    return json.dumps(content, separators=(",", ":")).encode("ascii") + b"\n"


def header_line(journal: Journal) -> bytes:
    return _line(
        {
            "daskprs_journal": VERSION,
            "name": journal.name,
            "format": journal.output_format,
            "segments": journal.segments,
            "facts": journal.header,
        }
    )


def shape_line(shape: Any, length: int) -> bytes:
    return _line({"shape": shape, "length": length})


def record_line(record: Record) -> bytes:
    index, key, length, total, succeeded, bad_items = record
    more = f",{json.dumps(bad_items, separators=(',', ':'))}" if bad_items else ""
    return f"[{index},{_quoted(key)},{length},{total},{succeeded}{more}]\n".encode("ascii")


def finished_line(facts: Mapping[str, Any], size: int | None, rows: str | None = None) -> bytes:
    return _line({"finished": facts, "size": size, "rows": rows})


def retry_line(facts: Mapping[str, Any], records: int) -> bytes:
    return _line({"retry": facts, "records": records})


def piece_head_line(records: int, nbytes: int, shape: Any) -> bytes:
    """Return the first line of a piece of journal, which says what is in the piece."""
    return _line({"records": records, "rows": nbytes, "shape": shape})


def read_piece(data: bytes) -> tuple[int, Any, list[list[Any]]] | None:
    """Read a piece of journal: bytes of rows, shape, records; None where it is not whole."""
    contents = [content for content, _ in _lines(io.BytesIO(data))]
    head, records = (contents[0], contents[1:]) if contents else (None, [])
    if not isinstance(head, dict) or head.get("records") != len(records):
        return None
    return head["rows"], head["shape"], records


def read_journal(stream: BinaryIO, where: str, rows_size: int | None = None) -> Journal | None:
    """Read a journal up to its last whole line; None where not even the header is whole.

    Parameters
    ----------
    stream : file
    where : str
        Its name, for messages.
    rows_size : int, optional
        Size of the file of rows, of a run that is not finished: the journal ends in front of the
        first record whose rows are not there.

    Raises
    ------
    OutputError
        The journal is of a newer version.
    """
    journal: Journal | None = None
    for content, nbytes in _lines(stream):
        if journal is None:
            journal = _header(content, where)
            if journal is None:
                return None
        elif not _take(journal, content, rows_size):
            break
        journal.nbytes += nbytes
    return journal


def _lines(stream: BinaryIO) -> Iterator[tuple[Any, int]]:
    """Give the content and the size of each whole line, up to the first that is torn."""
    rest = b""
    while chunk := stream.read(_CHUNK):
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        contents = _contents(lines)
        for content, text in zip(contents, lines, strict=False):
            yield content, len(text) + 1
        if len(contents) < len(lines):
            return


def _contents(lines: list[bytes]) -> list[Any]:
    try:
        # All at once is three times as fast as one by one.
        contents: list[Any] = json.loads(f"[{b','.join(lines).decode('ascii')}]")
    except (ValueError, RecursionError):
        pass
    else:
        if len(contents) == len(lines):
            return contents
    contents = []
    for text in lines:
        try:
            contents.append(json.loads(text.decode("ascii")))
        except (ValueError, RecursionError):
            break
    return contents


def _header(content: Any, where: str) -> Journal | None:
    version = content.get("daskprs_journal") if isinstance(content, dict) else None
    if not isinstance(version, int):
        return None
    if version > VERSION:
        raise OutputError(
            f"{where} was written by a newer daskprs (journal version {version}, this one reads "
            f"up to {VERSION}): go on with that version, or choose another output folder."
        )
    try:
        return Journal(
            header=content["facts"],
            name=content["name"],
            output_format=content["format"],
            segments=content["segments"],
        )
    except KeyError:
        return None


def _take(journal: Journal, content: Any, rows_size: int | None) -> bool:
    """Add what a line says; False where it is torn, or its rows are not there."""
    if isinstance(content, list):
        try:
            if rows_size is not None and journal.rows_end + content[2] > rows_size:
                return False
            journal.records.append(*content)
        except (TypeError, ValueError, AttributeError, IndexError, struct.error):
            return False
        journal.finished = None
    elif not isinstance(content, dict):
        return False
    elif "shape" in content:
        if rows_size is not None and journal.rows_end + content["length"] > rows_size:
            return False
        journal.shape = content["shape"]
        journal.start += content["length"]
    elif "finished" in content:
        journal.finished = content["finished"] if rows_size is None else None
        journal.size, journal.rows = content["size"], content.get("rows")
        journal.retried = 0
    elif "retry" in content:
        journal.header, journal.retried = content["retry"], content["records"]
        journal.finished = None
    return True
