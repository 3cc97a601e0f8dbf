"""An entry process that uses too much memory is killed, and the try says so."""

from __future__ import annotations

from typing import Any

from daskprs import FileDataset, ParallelRunConfig, ParallelRunStep

SCRIPT = """
import subprocess, sys, time

HUNGRY = "import time; x = bytearray(400 << 20); time.sleep(30)"

def run(mini_batch):
    name = os.path.basename(mini_batch[0])
    tried = marks(name)
    mark(name)
    if name == "f00001.bin" and not tried:
        x = bytearray(400 << 20)
        time.sleep(30)
    if name == "f00002.bin":
        subprocess.run([sys.executable, "-c", HUNGRY])
    return [name]
"""


def test_a_try_that_uses_too_much_memory_fails_and_says_how_much(workplace: Any) -> None:
    """Children count too; the next try runs in a fresh process."""
    config = ParallelRunConfig(
        entry_script=workplace.script(SCRIPT),
        mini_batch_size=1,
        run_max_try=2,
        memory_limit_per_process="250MB",
        process_count_per_node=1,
    )
    step = ParallelRunStep(
        "hungry", config, inputs=[FileDataset(workplace.files(4))], output=workplace.output
    )
    run = step.submit()
    assert run.wait_for_completion() == "Completed"
    assert sorted(workplace.rows()) == ["f00000.bin", "f00001.bin", "f00003.bin"]
    assert [workplace.count(f"f0000{n}.bin") for n in range(4)] == [1, 2, 2, 1]
    (failure,) = run.report.failures
    assert "out of memory: used" in failure.error
    assert "of 250.00 MiB" in failure.error
    table = workplace.output / "logs/sys/job_report/processed_mini-batches.csv"
    assert table.read_text().count("OUT_OF_MEMORY") == 3
