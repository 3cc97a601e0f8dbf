"""Train one model for each store and brand of a table of sales.

python examples/many_models/demo.py build/many_models
"""

import argparse
from pathlib import Path

import pandas as pd
from prepare import prepare

from daskprs import ParallelRunConfig, ParallelRunStep, TabularDataset

HERE = Path(__file__).resolve().parent


def main(folder):
    """Prepare the data, run the step, and look at what came out."""
    sales = prepare(folder)
    config = ParallelRunConfig(
        entry_script=HERE / "train.py",
        partition_keys=["Store", "Brand"],
        # Each call returns one row for all the rows it got. So items are no measure of success
        # here; what must not fail is a mini-batch.
        allowed_failed_count=0,
        output_format="jsonl",
        append_row_file_name="models.jsonl",
    )
    step = ParallelRunStep(
        name="train-models",
        parallel_run_config=config,
        inputs=[TabularDataset(sales)],
        output=folder / "output",
        allow_reuse=False,
    )
    run = step.submit()
    run.wait_for_completion(show_output=True)
    models = pd.read_json(run.output_file, lines=True).sort_values(["Store", "Brand"])
    print(models.to_string(index=False))
    print(f"{len(models)} models in {folder / 'output' / 'models'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train one model for each store and brand.")
    parser.add_argument("folder", nargs="?", default="build/many_models", type=Path)
    main(parser.parse_args().folder)
