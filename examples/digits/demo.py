"""Read 1,797 pictures of handwritten digits with a model, on all cores of this machine.

    make demo

or, with the library and its `examples` extra installed, `python examples/digits/demo.py`.
"""

import re
from pathlib import Path

from prepare import prepare

from daskprs import FileDataset, ParallelRunConfig, ParallelRunStep

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "build" / "demo"


def main():
    """Prepare the data, run the step, and look at what came out."""
    print("Preparing the pictures and the model ...")
    images, model = prepare(BUILD)

    config = ParallelRunConfig(
        entry_script="digits.py",
        source_directory=HERE,
        mini_batch_size=50,
        error_threshold=0,
    )
    step = ParallelRunStep(
        name="predict-digits",
        parallel_run_config=config,
        inputs=[FileDataset(str(images))],
        output=str(BUILD / "output"),
        arguments=["--model", str(model)],
        allow_reuse=False,
    )
    run = step.submit()
    run.wait_for_completion(show_output=True)

    report = run.report
    items = report.items
    lines = Path(report.output_file).read_text().splitlines()
    right, right_unseen, unseen = count_right(lines)
    print(
        "",
        f"Pictures    {items.succeeded:,} of {items.total:,} in {report.seconds:.1f} s:"
        f" {items.total / report.seconds:,.0f} images/s",
        f"Accuracy    {right / len(lines):.1%} of all, {right_unseen / unseen:.1%} of the"
        f" {unseen:,} that the model was not trained on",
        f"Output      {report.output_file}",
        f"            {len(lines):,} lines, the first of them:",
        *(f"            {line}" for line in lines[:5]),
        sep="\n",
    )


def count_right(lines):
    """Count the lines that are right, those among pictures not trained on, and all such pictures.

    A line is `digit-0007-label-7.png,7`; the model was trained on the even numbers.
    """
    right = right_unseen = unseen = 0
    for line in lines:
        index, label, digit = re.fullmatch(r"digit-(\d+)-label-(\d)\.png,(\d)", line).groups()
        is_unseen = int(index) % 2 == 1
        unseen += is_unseen
        right += digit == label
        right_unseen += digit == label and is_unseen
    return right, right_unseen, unseen


if __name__ == "__main__":
    main()
