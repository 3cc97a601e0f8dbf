"""Entry script: say from which of three growers each wine comes.

`run(mini_batch)` gets a DataFrame with some rows of one file. It returns a DataFrame with one row
for each of them; with `output_format="csv"` its columns become the header of the output file.
"""

import argparse

import joblib
import pandas as pd

model = None


def init():
    """Load the model that `--model` names."""
    global model
    parser = argparse.ArgumentParser(description="Say which grower each wine comes from.")
    parser.add_argument("--model", required=True, help="path of the model, saved with joblib")
    model = joblib.load(parser.parse_args().model)


def run(mini_batch):
    """Predict all rows of the mini-batch in one call of the model."""
    measured = mini_batch[model.feature_names_in_]
    probabilities = model.predict_proba(measured)
    return pd.DataFrame(
        {
            "wine_id": mini_batch["wine_id"],
            "grower": model.classes_[probabilities.argmax(axis=1)],
            "probability": probabilities.max(axis=1).round(3),
        }
    )
