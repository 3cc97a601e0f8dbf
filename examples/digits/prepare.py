"""Make what the demo needs: pictures of handwritten digits, and a model that reads them.

    python examples/digits/prepare.py build/demo

writes the 1,797 digits of scikit-learn as `images/digit-0007-label-7.png` and so on (8 by 8
pixels, 8-bit grayscale; the name tells the index and the right answer), and a classifier trained on
the pictures with an even index as `model.joblib`. The others are left to see how good it is.
"""

import argparse
from pathlib import Path

import joblib
import numpy as np
from digits import STEP, pixels
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.svm import SVC


def prepare(folder):
    """Write the pictures and the model into `folder`, unless they are there; return their paths."""
    folder = Path(folder)
    images, model = folder / "images", folder / "model.joblib"
    if not model.exists():  # it is written last: when it is there, so is everything
        paths, labels = write_images(images)
        train(paths[::2], labels[::2], model)
    return images, model


def write_images(images):
    """Write one PNG file for each digit of the data set; return their paths and labels."""
    images.mkdir(parents=True, exist_ok=True)
    data = load_digits()
    paths = []
    for index, (picture, label) in enumerate(zip(data.images, data.target, strict=True)):
        path = images / f"digit-{index:04d}-label-{label}.png"
        Image.fromarray((picture * STEP).astype(np.uint8)).save(path)
        paths.append(path)
    return paths, data.target


def train(paths, labels, model):
    """Train a classifier on pictures as the entry script reads them, and save it."""
    classifier = SVC(gamma=0.001).fit(np.stack([pixels(path) for path in paths]), labels)
    unfinished = model.with_suffix(".tmp")
    joblib.dump(classifier, unfinished)
    unfinished.replace(model)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the pictures and the model of the demo.")
    parser.add_argument("folder", nargs="?", default="build/demo")
    images, model = prepare(parser.parse_args().folder)
    print(f"{len(list(images.glob('*.png')))} pictures in {images}, model in {model}")
