"""Score tables of wines, and read the scores back with pandas.

python examples/tables/demo.py build/tables
"""

import argparse
from pathlib import Path

import pandas as pd
from prepare import prepare

from daskprs import ParallelRunConfig, ParallelRunStep, TabularDataset

HERE = Path(__file__).resolve().parent


def main(folder):
    """Prepare the data, run the step, and look at what came out."""
    wines, model = prepare(folder)
    config = ParallelRunConfig(
        entry_script=HERE / "score.py",
        mini_batch_size="2KB",  # so that these small files make more than one mini-batch each
        error_threshold=0,
        output_format="csv",
        ordered=True,
    )
    step = ParallelRunStep(
        name="score-wines",
        parallel_run_config=config,
        inputs=[TabularDataset(wines)],
        output=folder / "output",
        arguments=["--model", model],
        allow_reuse=False,
    )
    print(step.plan())
    run = step.submit()
    run.wait_for_completion(show_output=True)
    print(run.report)
    scores = pd.read_csv(run.output_file)
    print(scores.head(), f"{len(scores)} wines, sorted as in the input", sep="\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Score tables of wines.")
    parser.add_argument("folder", nargs="?", default="build/tables", type=Path)
    main(parser.parse_args().folder)
