"""A cheap vectorised function of a table."""

import numpy as np
import pandas as pd


def run(mini_batch):
    warm, damp = mini_batch["temperature"], mini_batch["humidity"]
    felt = (warm - 0.4 * (warm - 10) * (1 - damp / 100)).round(3)
    return pd.DataFrame(
        {
            "id": mini_batch["id"],
            "station": mini_batch["station"],
            "felt": felt,
            "kind": np.where(felt > 20, "warm", np.where(felt > 5, "mild", "cold")),
        }
    )
