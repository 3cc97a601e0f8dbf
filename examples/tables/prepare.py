"""Make what the example needs: tables of wines, and a model that knows them.

    python examples/tables/prepare.py build/tables

writes the 178 wines of scikit-learn as `wines/part-0.csv` to `part-2.csv` (13 measurements and an
id each), and a classifier trained on every second wine as `model.joblib`.
"""

import argparse
from pathlib import Path

import joblib
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

PARTS = 3


def prepare(folder):
    """Write the tables and the model into `folder`; return their paths."""
    folder = Path(folder)
    wines, model = folder / "wines", folder / "model.joblib"
    data = load_wine(as_frame=True)
    classifier = make_pipeline(StandardScaler(), LogisticRegression())
    classifier.fit(data.data[::2], data.target_names[data.target[::2]])
    table = data.data.copy()
    table.insert(0, "wine_id", range(len(table)))
    wines.mkdir(parents=True, exist_ok=True)
    for part in range(PARTS):
        rows = slice(part * len(table) // PARTS, (part + 1) * len(table) // PARTS)
        table.iloc[rows].to_csv(wines / f"part-{part}.csv", index=False)
    joblib.dump(classifier, model)
    return wines, model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the tables and the model of the example.")
    parser.add_argument("folder", nargs="?", default="build/tables")
    wines, model = prepare(parser.parse_args().folder)
    print(f"{len(list(wines.glob('*.csv')))} tables in {wines}, model in {model}")
