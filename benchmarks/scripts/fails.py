"""Fails in every call, and notes when it first did."""

import argparse
import time
from pathlib import Path


def init():
    global notes
    parser = argparse.ArgumentParser()
    parser.add_argument("--notes", required=True)
    args, _ = parser.parse_known_args()
    notes = Path(args.notes)


def run(mini_batch):
    failed = notes / "failed"
    if not failed.exists():
        failed.write_text(f"{time.time()}")
    raise ValueError("this mini-batch is bad")
