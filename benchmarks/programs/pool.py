"""multiprocessing.Pool: the floor, without retries, timeouts, resume or a second machine.

Settings: processes are forked, which costs the least; the results are taken as they come. Tables
are cut at newlines, read and written with pyarrow, whose reader and writer are the fastest that
there are; each process writes its rows as bytes, and this one only appends them.
"""

import io
import multiprocessing
import os

from common import arguments, batches, entry_of, mark, paths_below, text_of

CHUNK = 16  # mini-batches that a process fetches at once, where they are short


def main():
    global job
    job, data, out = arguments()
    if job.kind == "tables":
        import pyarrow

        pyarrow.set_cpu_count(1)
    with multiprocessing.get_context("fork").Pool(job.processes, initializer=begin) as pool:
        mark(out, "ready")
        if job.kind == "tables":
            done = pool.imap_unordered(run_table, pieces(data, job.size))
        else:
            # One by one where some of them are long.
            chunk = 1 if job.size == 1 and "sleeps" in job.script else CHUNK
            work = batches(paths_below(data), job.size)
            done = pool.imap_unordered(run_files, work, chunksize=chunk)
        with (out / "result").open("wb") as result:
            if job.kind == "tables":
                result.write((",".join(job.header) + "\n").encode())
            for rows in done:
                result.write(rows)
        mark(out, "end")


def begin():
    entry_of(job)


def run_files(batch):
    return text_of(entry_of(job)(batch)).encode()


def pieces(data, size):
    """Cut files in even parts of at most so many bytes, as daskprs does."""
    for path in paths_below(data):
        total = os.path.getsize(path)
        count = -(-total // size)
        edges = [total * number // count for number in range(count + 1)]
        yield from ((path, *span) for span in zip(edges, edges[1:]))  # noqa: B905, RUF007


def run_table(piece):
    import pyarrow
    from pyarrow import csv

    path, start, stop = piece
    with open(path, "rb") as stream:
        header = stream.readline()
        if start:
            stream.seek(start - 1)
            stream.readline()
        start = stream.tell()
        body = stream.read(max(0, stop - start))
        if body and not body.endswith(b"\n"):
            body += stream.readline()
    if not body:
        return b""
    table = csv.read_csv(io.BytesIO(header + body), read_options=csv.ReadOptions(use_threads=False))
    rows = pyarrow.Table.from_pandas(entry_of(job)(table.to_pandas()), preserve_index=False)
    sink = pyarrow.BufferOutputStream()
    csv.write_csv(rows, sink, csv.WriteOptions(include_header=False))
    return sink.getvalue().to_pybytes()


if __name__ == "__main__":
    main()
