"""Reads pictures of digits with a model of scikit-learn."""

import argparse
from pathlib import Path

import joblib
import numpy as np
from PIL import Image


def init():
    global model
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    args, _ = parser.parse_known_args()
    model = joblib.load(args.model)


def run(mini_batch):
    pictures = [np.asarray(Image.open(path), dtype=np.float32).ravel() for path in mini_batch]
    digits = model.predict(np.stack(pictures) / 255)
    return [f"{Path(path).name},{digit}" for path, digit in zip(mini_batch, digits, strict=True)]
