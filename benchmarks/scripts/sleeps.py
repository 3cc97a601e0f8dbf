"""Takes as long as the names of the files say: `000012-350.ms` is 350 ms.

With --init it takes some seconds to begin with, and notes when it did in the folder --notes.
"""

import argparse
import os
import time
from pathlib import Path


def init():
    parser = argparse.ArgumentParser()
    parser.add_argument("--init", type=float, default=0.0)
    parser.add_argument("--notes")
    args, _ = parser.parse_known_args()
    if args.notes:
        Path(args.notes, f"init-{os.getpid()}").write_text(f"{time.time()}")
    time.sleep(args.init)


def run(mini_batch):
    names = [path.rsplit("/", 1)[1] for path in mini_batch]
    for name in names:
        time.sleep(float(name.split("-")[1].removesuffix(".ms")) / 1000)
    return names
