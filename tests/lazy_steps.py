"""What the tests of lazy steps share: a frame, a script that counts its calls, and its result."""

from __future__ import annotations

import dask.dataframe as dd
import pandas as pd

FRAME = pd.DataFrame({"x": range(12), "t": list("abcdefghijkl")}, index=range(100, 112))
META = {"x": "int64", "y": "float64"}
COUNTING = """
    mark("import")
    def init():
        mark("init")
    def run(mini_batch, context):
        mark("run")
        mark(f"run of {context.minibatch_index}")
        return mini_batch[["x"]].assign(y=mini_batch.x / 2)
    def shutdown():
        mark("shutdown")
"""


def frame_of(partitions: int = 4) -> dd.DataFrame:
    return dd.from_pandas(FRAME, npartitions=partitions)


EXPECTED = FRAME[["x"]].assign(y=FRAME.x / 2)
