"""The journal: which mini-batches have their rows in the output, and where.

One JSON text a line. The first line is the header: the version of the journal and what the run
is (settings, script, so that only the same run goes on with it). Then, in the order in which rows
were written::

    {"columns": ["a", "b"], "length": 4}     names of a table's columns; bytes of the header line
    [7, "90b1c5e0aa12f3d4", 1200, 10, 10]     index, key, bytes of rows, items, items succeeded
    [8, "1f00aa12f3d490b1", -1, 10, 0]        a mini-batch that has failed: no rows
    {"finished": {...}}                       the output has its final name

A record is written after its rows are safe. So the journal never promises rows that are not
there, and what stands behind the last record's rows is cut away when a run goes on. A torn last
line is no record.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from daskprs.exceptions import OutputError

__all__ = ["VERSION", "Journal", "Record", "header_line", "line", "parse"]

VERSION = 1


class Record(NamedTuple):
    """One mini-batch; `length` is -1 where it has failed."""

    index: int
    key: str
    length: int
    total: int
    succeeded: int


@dataclass
class Journal:
    """A journal that was read back.

    Attributes
    ----------
    start : int
        Bytes in front of the first record's rows: the header line of a CSV file.
    """

    header: dict[str, Any]
    records: list[Record] = field(default_factory=list)
    columns: tuple[str, ...] | None = None
    start: int = 0
    finished: dict[str, Any] | None = None
    nbytes: int = 0  # of the journal, up to the last whole line

    @property
    def rows_end(self) -> int:
        """Bytes of rows that the journal vouches for."""
        return self.start + sum(r.length for r in self.records if r.length > 0)


def line(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "surrogateescape"
    ) + b"\n"


def header_line(facts: Mapping[str, Any]) -> bytes:
    return line({"daskprs_journal": VERSION, **facts})


def parse(data: bytes, where: str, rows_size: int | None = None) -> Journal | None:
    """Read a journal up to its last whole line; None where not even the header is whole.

    Parameters
    ----------
    rows_size : int, optional
        Size of the file of rows: records of rows that are not there are left out.

    Raises
    ------
    OutputError
        The journal is of a newer version.
    """
    lines = data.split(b"\n")[:-1]  # what has no newline is torn
    journal: Journal | None = None
    end = position = 0
    for text in lines:
        try:
            content = json.loads(text)
        except ValueError:
            break
        if journal is None:
            journal = _header(content, where)
            if journal is None:
                return None
        elif isinstance(content, list):
            record = Record(*content)
            end += max(0, record.length)
            if rows_size is not None and end > rows_size:
                break
            journal.records.append(record)
        elif "columns" in content:
            end += content["length"]
            if rows_size is not None and end > rows_size:
                break
            journal.columns = tuple(content["columns"])
            journal.start = content["length"]
        elif "finished" in content:
            journal.finished = content["finished"]
        position += len(text) + 1
        journal.nbytes = position
    return journal


def _header(content: Any, where: str) -> Journal | None:
    version = content.get("daskprs_journal") if isinstance(content, dict) else None
    if not isinstance(version, int):
        return None
    if version > VERSION:
        raise OutputError(
            f"{where} was written by a newer daskprs (journal version {version}, this one reads "
            f"up to {VERSION}): go on with that version, or choose another output folder."
        )
    return Journal(header=content)


def rows_of(records: Iterable[Record]) -> list[tuple[Record, int]]:
    """Pair each record that has rows with the offset of its rows behind `start`."""
    found, offset = [], 0
    for record in records:
        if record.length >= 0:
            found.append((record, offset))
            offset += record.length
    return found
