"""Entry script: say which digit is in each picture.

`init()` runs once in every process that works for the run, before its first mini-batch. It reads
the arguments of the step and loads the model, so that no mini-batch has to.

`run(mini_batch)` gets a list of paths of pictures. It returns one line for each, `name,digit`:
the library puts these lines into the output file.
"""

import argparse
from pathlib import Path

import joblib
import numpy as np
from PIL import Image

# The pixels of the data set go from 0 to 16, those of the PNG files from 0 to 240: in steps of 15.
STEP = 15

model = None


def init():
    """Load the model that `--model` names."""
    global model
    parser = argparse.ArgumentParser(description="Say which digit is in each picture.")
    parser.add_argument("--model", required=True, help="path of the model, saved with joblib")
    args, _ = parser.parse_known_args()
    model = joblib.load(args.model)


def run(mini_batch):
    """Predict all pictures of the mini-batch in one call of the model."""
    digits = model.predict(np.stack([pixels(path) for path in mini_batch]))
    return [f"{Path(path).name},{digit}" for path, digit in zip(mini_batch, digits, strict=True)]


def pixels(path):
    """The 64 pixels of one picture, from 0 to 16, as the model knows them."""
    with Image.open(path) as picture:
        return np.asarray(picture, dtype=np.float64).ravel() / STEP
