"""Secrets never appear in anything that the library writes or says."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fsspec
import pytest

from daskprs import (
    DaskprsError,
    FileDataset,
    InputNotFoundError,
    ParallelRunConfig,
    ParallelRunStep,
    TabularDataset,
)
from daskprs.redaction import Secrets

CANARY = "CANARY+/key==abc123"


@pytest.mark.parametrize(
    ("options", "urls", "environment"),
    [
        ({"account_key": CANARY}, [], {}),
        ({"sas_token": f"sv=2024&sig={quote(CANARY, safe='')}"}, [], {}),
        ({"connection_string": f"AccountName=a;AccountKey={CANARY};Suffix=b"}, [], {}),
        ({"client_kwargs": {"aws_secret_access_key": CANARY}}, [], {}),
        ({}, [f"https://host/c/f.csv?sv=1&sig={quote(CANARY, safe='')}"], {}),
        ({}, [f"ftp://user:{quote(CANARY, safe='')}@host/f"], {}),
        ({}, [], {"MY_API_TOKEN": CANARY}),
    ],
)
def test_a_secret_is_found_wherever_it_is_given(
    options: dict[str, Any], urls: list[str], environment: dict[str, str]
) -> None:
    """As it is, and as urls spell it."""
    secrets = Secrets([options], urls, environment)
    for form in (CANARY, quote(CANARY), quote(CANARY, safe="")):
        assert form not in secrets.hide(f"could not sign {form}!")
    assert "CANARY" not in repr(secrets)


def test_plain_words_are_left_alone() -> None:
    """Options with a telling name may hold words that are no secrets."""
    secrets = Secrets([{"anon": "true", "use_key": "auto", "token": "anon"}], [], {})
    assert secrets.hide("true auto anon 123") == "true auto anon 123"


def files_with_canary(folder: Path) -> list[str]:
    return [
        str(path) for path in folder.rglob("*") if path.is_file() and b"CANARY" in path.read_bytes()
    ]


def test_a_canary_is_in_no_file_report_plan_repr_or_error(
    workplace: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Though the script raises it, and its stderr shows it."""
    fsspec.filesystem("memory").pipe("/redaction/a.txt", b"x")
    script = workplace.script(
        """
        import logging
        def run(mini_batch):
            raise ValueError("signed with " + os.environ["STORE_KEY"])
        """
    )
    dataset = FileDataset("memory://redaction/*.txt", storage_options={"account_key": CANARY})
    config = ParallelRunConfig(
        entry_script=script,
        run_max_try=2,
        environment_variables={"STORE_KEY": CANARY},
        process_count_per_node=1,
    )
    step = ParallelRunStep("canary", config, inputs=[dataset], output=workplace.output)
    run = step.submit()
    with pytest.raises(DaskprsError) as caught:
        run.wait_for_completion()
    report = run.report
    texts = [
        *(str(caught.value), repr(caught.value), repr(dataset), repr(step), repr(config)),
        *(repr(step.plan()), str(report), report.to_json(), report._repr_html_(), caplog.text),
        repr(pickle.loads(pickle.dumps(caught.value))),
    ]
    assert not [text for text in texts if "CANARY" in text]
    assert "ValueError: signed with ***" in str(caught.value)
    assert files_with_canary(workplace.output) == []


def test_a_signature_in_a_url_is_hidden_in_what_goes_wrong_before_any_work(workplace: Any) -> None:
    """The message names the url without it."""
    url = f"memory://redaction-nothing/*.csv?sig={CANARY}"
    script = workplace.script("def run(mini_batch):\n    return mini_batch\n")
    step = ParallelRunStep(
        "canary",
        ParallelRunConfig(entry_script=script),
        inputs=[TabularDataset(url)],
        output=workplace.output,
    )
    for call in (step.plan, step.submit):
        with pytest.raises(InputNotFoundError) as caught:
            call()
        assert "CANARY" not in str(caught.value) + repr(caught.value.facts)
    assert "CANARY" not in repr(step.inputs)
