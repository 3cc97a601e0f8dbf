"""What can be wrong with object stores: keys, names, connections, other runs."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from object_stores import Bucket, Proxy, Server, port_without_server, proxied
from output_runs import content, run, start

from daskprs import (
    DaskprsError,
    FileDataset,
    InputNotFoundError,
    NothingSucceededError,
    OutputError,
    ParallelRunConfig,
    ParallelRunStep,
    WriteFailedError,
    cli,
    output_lock,
)
from daskprs.output_folder import Lock, OutputFolder

LIMIT = 2.0
NAMES = """
def run(mini_batch):
    for path in mini_batch:
        mark(os.path.basename(path))
    return [os.path.basename(path) for path in mini_batch]
"""


def step_of(
    script: Path, bucket: Bucket, files: Path, port: int | None = None, **settings: Any
) -> ParallelRunStep:
    config = ParallelRunConfig(
        entry_script=script, mini_batch_size=1, process_count_per_node=1, **settings
    )
    return ParallelRunStep(
        "objects",
        config,
        [FileDataset(files)],
        bucket.url("out"),
        storage_options=bucket.server.options(port),
    )


def folder_of(bucket: Bucket) -> OutputFolder:
    return OutputFolder(bucket.url("out"), bucket.options)


# Other runs


def test_a_second_run_is_refused_and_told_who_has_the_folder(
    workplace: Any, bucket: Bucket
) -> None:
    script, files = workplace.script(NAMES), workplace.files(2)
    lock = Lock(folder_of(bucket))
    lock.acquire()
    with pytest.raises(
        OutputError, match=r"process \d+ on host .+ writing to it for \d+ s"
    ) as told:
        step_of(script, bucket, files).submit()
    assert told.value.facts.keys() == {"host", "pid"}
    assert not workplace.count("f00000.bin")
    lock.release()
    assert step_of(script, bucket, files).submit().wait_for_completion() == "Completed"


def test_a_lock_of_another_machine_without_a_sign_of_life_is_taken_over(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_lock, "STALE_AFTER", 1.5)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(output_lock, "_machine", lambda: "another machine")
        first = Lock(folder_of(bucket))
        first.acquire()
    second = Lock(folder_of(bucket))
    with pytest.raises(OutputError, match=r"sign of life is \d s old"):
        second.acquire()
    time.sleep(2.6)  # a store tells whole seconds
    second.acquire()
    with pytest.raises(WriteFailedError, match="taken over"):
        first.refresh()


# What is wrong before any work starts


@pytest.fixture
def wrong_options(bucket: Bucket, what: str) -> Iterator[dict[str, str]]:
    secret = "d3Jvbmcga2V5" if what == "wrong key" else None
    with port_without_server() as port:
        yield bucket.server.options(port if what == "no server" else None, secret)


@pytest.mark.parametrize("what", ["wrong key", "no bucket", "no server"])
def test_a_store_that_cannot_be_written_to_is_told_in_a_line(
    workplace: Any,
    bucket: Bucket,
    what: str,
    wrong_options: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With exit code 2, before any work starts."""
    url = bucket.url("out") if what != "no bucket" else f"{bucket.kind}://no-such-bucket-1/out"
    words = ["run", workplace.script(NAMES), "--files", workplace.files(1), "--output", url]
    words += ["--progress-update-timeout", LIMIT]
    words += [f"--storage-option={name}={text}" for name, text in wrong_options.items()]
    monkeypatch.setattr(sys, "argv", ["daskprs", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert ended.value.code == 2
    assert out == ""
    assert err.startswith(f"Error: --output={url!r} cannot be written to (")
    assert err.count("\n") <= 2
    assert "storage_options" in err
    assert not workplace.count("f00000.bin")
    bucket.assert_nothing_tells_the_secret(err)
    assert "d3Jvbmcga2V5" not in err


@pytest.mark.parametrize("what", ["wrong key", "no bucket", "no server"])
def test_an_input_that_cannot_be_listed_is_told_before_the_run(
    workplace: Any, bucket: Bucket, what: str, wrong_options: dict[str, str]
) -> None:
    url = bucket.url("in") if what != "no bucket" else f"{bucket.kind}://no-such-bucket-1/in"
    files = FileDataset(url, storage_options=wrong_options)
    script = workplace.script(NAMES)
    config = ParallelRunConfig(entry_script=script, progress_update_timeout=LIMIT)
    step = ParallelRunStep("objects", config, [files], workplace.output)
    with pytest.raises(InputNotFoundError) as told:
        step.submit()
    assert repr(url) in str(told.value)
    assert str(told.value).count("\n") <= 1
    bucket.assert_nothing_tells_the_secret(str(told.value))
    assert not workplace.output.exists()


# Connections


@pytest.fixture
def proxy(object_server: Server) -> Iterator[Proxy]:
    with proxied(object_server) as proxy:
        yield proxy


def test_a_store_that_stalls_ends_the_run_in_time_and_the_same_run_goes_on(
    workplace: Any, bucket: Bucket, proxy: Proxy
) -> None:
    script, files = workplace.script(NAMES), workplace.files(6)
    step = step_of(script, bucket, files, proxy.port, progress_update_timeout=LIMIT)
    first = step.submit()
    first.subscribe(lambda event: proxy.stall() if workplace.count("f00000.bin") else None)
    began = time.monotonic()
    with pytest.raises(WriteFailedError, match=r"not answered for 2 s \(progress_update_timeout\)"):
        first.wait_for_completion(timeout=60)
    # The limit for the answer, the same for the farewell, and what came before.
    assert time.monotonic() - began < 2 * LIMIT + 20
    assert not [t for t in threading.enumerate() if t.name == "daskprs-objects" and t.is_alive()]
    assert (first.report.output_file, "partial" in first.report.message) == (None, False)

    proxy.forward()
    assert step.submit().wait_for_completion(timeout=60) == "Completed"
    names = [f"f{number:05d}.bin" for number in range(6)]
    rows = (bucket.read("out/parallel_run_step.txt") or b"").decode().splitlines()
    assert Counter(rows) == Counter(names)
    assert {workplace.count(name) for name in names} <= {1, 2}


def rows_expected(bucket: Bucket) -> Any:
    folder = OutputFolder(bucket.url("expected"), bucket.options)
    run(folder, "csv", ordered=True)
    return content(folder, "csv")


def test_a_connection_that_breaks_anywhere_loses_and_doubles_no_row(
    bucket: Bucket, proxy: Proxy
) -> None:
    """In a flush, in the journal, in the upload of the final file; the rest of the run is later."""
    expected = rows_expected(bucket)
    options = bucket.server.options(proxy.port)
    whole = OutputFolder(bucket.url("whole"), options)
    run(whole, "csv", ordered=True)
    sent = proxy.sent
    broken = 0
    for number in range(3):
        url = bucket.url(f"out-{number}")
        proxy.refuse_after(sent * (2 * number + 1) // 6)
        for _ in range(3):
            try:
                run(OutputFolder(url, options, seconds=1.0), "csv", ordered=True)
                break
            except DaskprsError:
                broken += 1
                proxy.forward()
        assert content(OutputFolder(url, bucket.options), "csv") == expected
    assert broken >= 2


def test_a_journal_whose_rows_are_not_there_counts_for_nothing(bucket: Bucket) -> None:
    """What a killed upload has left is run again."""
    folder = folder_of(bucket)
    expected = rows_expected(bucket)

    class Stop(Exception):
        pass

    count = 0

    def step(what: str) -> None:
        nonlocal count
        count += 1
        if count == 7:
            raise Stop

    with pytest.raises(Stop):
        run(folder, "csv", step=step)
    rows = sorted(name for name in bucket.names() if name.endswith(".rows"))
    assert len(rows) > 1
    bucket.server.fs.pipe_file(f"{bucket.name}/{rows[0]}", b"")
    store = start(folder, "csv")
    assert store.journal is not None
    store.close()
    run(folder, "csv", ordered=True)
    assert content(folder, "csv") == expected


# Secrets


def test_a_key_that_a_script_tells_stands_nowhere(
    workplace: Any, bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not in logs, journal, report, plan, reprs and errors; see also the fixture `bucket`."""
    script = workplace.script(
        """
        import sys
        def run(mini_batch):
            print("told", os.environ["STORE_KEY"], os.environ["STORE_CONNECTION"])
            print(os.environ["STORE_KEY"], file=sys.stderr)
            raise ValueError("cannot use " + os.environ["STORE_CONNECTION"])
        """
    )
    told = {"STORE_KEY": bucket.server.secret, "STORE_CONNECTION": str(bucket.options)}
    files = FileDataset(bucket.url("in"), storage_options=bucket.options)
    bucket.put({"in/a": b"1"})
    config = ParallelRunConfig(
        entry_script=script, run_max_try=1, environment_variables=told, process_count_per_node=1
    )
    step = ParallelRunStep(
        "objects", config, [files], bucket.url("out"), storage_options=bucket.options
    )
    plan = step.plan()
    run_ = step.submit()
    with pytest.raises(NothingSucceededError) as error:
        run_.wait_for_completion(show_output=True)
    assert "cannot use" in str(error.value)
    logs = [name for name in bucket.names() if name.endswith("stdout.txt")]
    assert logs
    assert bucket.read(logs[0]) == b"told *** ***\n"
    texts = [*map(repr, (step, plan, files, config, run_, run_.report, error.value))]
    texts += [str(error.value), str(run_.report), run_.report.to_json(), plan._repr_html_()]
    texts += [run_.report._repr_html_(), str(plan), *capsys.readouterr(), *run_.notices]
    bucket.assert_nothing_tells_the_secret(*texts)


# Options


def test_the_command_line_knows_true_false_and_objects(
    workplace: Any,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Packages take any text for true, and want an object where S3 needs more."""
    bucket.put({"in/a": b"1"})
    options = {**bucket.options, "anon": "false", "use_listings_cache": "False"}
    if bucket.kind == "s3":
        where = {"endpoint_url": options.pop("endpoint_url"), "region_name": "us-east-1"}
        options["client_kwargs"] = json.dumps(where)
    words = ["plan", workplace.script(NAMES), "--files", bucket.url("in/*")]
    words += [f"--storage-option={name}={text}" for name, text in options.items()]
    monkeypatch.setattr(sys, "argv", ["daskprs", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert (ended.value.code, err) == (0, "")
    assert bucket.url("in/a") in out
