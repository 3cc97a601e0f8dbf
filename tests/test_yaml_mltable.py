"""MLTable files become the datasets that they describe; what has no meaning here is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from job_files import Place

from daskprs import ConfigError, FileDataset, TabularDataset
from daskprs.pipelines.tables_in_memory import read_rows
from daskprs.yaml_jobs.mltable import read_mltable


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.write("data/a.csv", "n;day;ok;word\n1;2024-05-31;true;x\n2;2024-06-01;false;y\n")
    place.write("data/north/b.csv", "3;é\n")
    place.write("data/c.jsonl", '{"n": 1}\n{"n": 2}\n')
    pd.DataFrame({"n": [1, 2], "word": ["x", "y"]}).to_parquet(place.folder / "data/d.parquet")
    return place


def rows(dataset: TabularDataset) -> list[dict[str, Any]]:
    """Read all rows."""
    return read_rows(dataset, 0, None).to_dict("records")


TABLES = {
    "paths: [{file: ./a.csv}]\ntransformations:\n- read_delimited: {delimiter: ';'}":
        [{"n": 1, "day": "2024-05-31", "ok": True, "word": "x"},
         {"n": 2, "day": "2024-06-01", "ok": False, "word": "y"}],
    "paths: [{file: a.csv}]\ntransformations:\n- read_delimited: {delimiter: ';', "
    "infer_column_types: false}\n- keep_columns: [n, word]":
        [{"n": "1", "word": "x"}, {"n": "2", "word": "y"}],
    "paths: [{pattern: './a.*'}]\ntransformations:\n- keep_columns: n\n"
    "- read_delimited: {delimiter: ';', encoding: utf8, header: all_files_different_headers, "
    "support_multi_line: true}\n- convert_column_types: [{columns: [n], column_type: float}]":
        [{"n": 1.0}, {"n": 2.0}],
    "paths: [{folder: ./north}]\ntransformations:\n- read_delimited: {delimiter: ';', "
    "header: no_header}":
        [{"Column1": 3, "Column2": "é"}],
    "paths: [{file: d.parquet}]\ntransformations:\n- read_parquet\n- keep_columns: [word]":
        [{"word": "x"}, {"word": "y"}],
    "type: mltable\npaths: [{file: c.jsonl}]\ntransformations:\n- read_json_lines: {encoding: "
    "ascii, invalid_lines: error, include_path_column: false}":
        [{"n": 1}, {"n": 2}],
}  # fmt: skip


@pytest.mark.parametrize("text", TABLES, ids=range(len(TABLES)))
def test_rows_are_those_of_the_table(place: Place, text: str) -> None:
    place.write("data/MLTable", text)
    dataset = read_mltable(str(place.folder / "data"))
    assert isinstance(dataset, TabularDataset)
    assert rows(dataset) == TABLES[text]


def test_dates_have_their_format(place: Place) -> None:
    place.write(
        "data/MLTable",
        """\
        paths: [{file: a.csv}]
        transformations:
        - read_delimited: {delimiter: ";"}
        - keep_columns: [day]
        - convert_column_types:
          - {columns: day, column_type: {datetime: {formats: ["%Y-%m-%d"]}}}
        """,
    )
    dataset = read_mltable(str(place.folder / "data/MLTable"))
    assert isinstance(dataset, TabularDataset)
    assert rows(dataset)[0] == {"day": pd.Timestamp("2024-05-31")}


def test_without_transformations_it_is_files(place: Place) -> None:
    place.write("data/MLTable", "type: mltable\npaths: [{pattern: ./*.csv}, {folder: north}]\n")
    dataset = read_mltable(str(place.folder / "data"))
    assert isinstance(dataset, FileDataset)
    assert [Path(file.path).name for file in dataset.files()] == ["a.csv", "b.csv"]


@pytest.mark.parametrize("form", ["'{region}/{name}.csv'", "{day:yyyy/MM/dd}"])
def test_keys_in_the_paths(place: Place, form: str) -> None:
    place.write(
        "data/MLTable",
        "paths: [{folder: north}]\ntransformations:\n- read_delimited: {}\n"
        f"- extract_columns_from_partition_format: {form}\n",
    )
    keys = read_mltable(str(place.folder / "data")).keys
    assert keys == (["region", "name"] if "region" in form else ["day"])


READ = "paths: [{file: a.csv}]\ntransformations:\n- read_delimited: {}\n"
WRONG = {
    "type: mltable\n": "the key 'paths' is missing",
    "paths: [{files: a.csv}]\n": "line 1: paths.0.files did you mean 'file'?",
    "paths: [{file: azureml://datastores/x/paths/a.csv}]\n": "azureml://datastores/x/paths/a.csv",
    f"{READ}- filter: 'col(\"n\") > 1'\n": "line 4: filter it is not supported",
    f"{READ}- take: 5\n": "line 4: take it is not supported",
    f"{READ}- skip: 5\n": "line 4: skip",
    f"{READ}- take_random_sample: {{probability: 0.5}}\n": "take_random_sample",
    f"{READ}- read_delta_lake: {{version_as_of: 1}}\n": "Delta Lake",
    f"{READ}- drop_columns: [n]\n": "drop_columns keep_columns",
    f"{READ}- keep_colums: [n]\n": "did you mean 'keep_columns'?",
    f"{READ}- read_parquet\n": "one of the read_ alone",
    f"{READ}- convert_column_types: [{{columns: n, column_type: integer}}]\n": "'integer' 'int'",
    READ.replace("{}", "{delimeter: x}"): "line 3: delimeter did you mean 'delimiter'?",
    READ.replace("{}", "{encoding: utf7}"): "'utf7' one of utf8",
    READ.replace("{}", "{include_path_column: true}"): "include_path_column: true",
    READ.replace("{}", "{empty_as_string: true}"): "empty_as_string: true",
    READ.replace("{}", "{header: from_first_file}"): "header: from_first_file",
    READ.replace("{}", "{header: no_header}") + "- keep_columns: [n]\n": "keep_columns",
    READ.replace("read_delimited: {}", "read_json_lines: {invalid_lines: drop}"): "drop",
}


@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_what_is_not_supported_is_named(place: Place, text: str) -> None:
    place.write("data/MLTable", text)
    with pytest.raises(ConfigError) as caught:
        read_mltable(str(place.folder / "data"))
    told = str(caught.value)
    assert told.startswith("MLTable")
    assert all(word in told for word in WRONG[text].split()), told


def test_a_folder_without_one_says_what_is_missing(place: Place) -> None:
    with pytest.raises(ConfigError, match="data/north/MLTable: there is no such file"):
        read_mltable(str(place.folder / "data/north"))
