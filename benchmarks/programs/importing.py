"""How long `import daskprs` takes in a process that has imported nothing, and then its names."""

import json
import time

began = time.perf_counter()
import daskprs  # noqa: E402, F401

seconds = time.perf_counter() - began

from daskprs import FileDataset, ParallelRunConfig, ParallelRunStep  # noqa: E402, F401

names = time.perf_counter() - began

from common import arguments  # noqa: E402

job, data, out = arguments()
(out / "facts.json").write_text(json.dumps({"import": seconds, "names": names}))
