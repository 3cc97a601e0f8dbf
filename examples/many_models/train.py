"""Entry script: train one model for each store and brand.

With `partition_keys=["Store", "Brand"]`, `run(mini_batch, context)` gets all rows of one
combination, from whatever files they are in. It saves the model in the output folder and returns
one row about it.
"""

from pathlib import Path

import joblib
from azureml_user.parallel_run import EntryScript
from sklearn.linear_model import LinearRegression

FEATURES = ["Price", "Advert"]


def init():
    """Make the folder of the models; all processes do, so it may be there already."""
    global models
    # os.environ["AZUREML_BI_OUTPUT_PATH"] is the same folder.
    models = Path(EntryScript().output_dir, "models")
    models.mkdir(parents=True, exist_ok=True)


def run(mini_batch, context):
    """Train on all but the last 13 weeks, and see how good the model is on those."""
    keys = context.partition_key_value
    weeks = mini_batch.sort_values("WeekStarting")
    known, later = weeks[:-13], weeks[-13:]
    model = LinearRegression().fit(known[FEATURES], known["Quantity"])
    path = models / f"{keys['Store']}-{keys['Brand']}.joblib"
    joblib.dump(model, path)
    score = model.score(later[FEATURES], later["Quantity"])
    EntryScript().logger.info("trained %s: r2 %.3f", path.name, score)
    return [{**keys, "weeks": len(weeks), "r2": round(score, 3), "model": path.name}]
