"""Make what the example needs: a table of sales, in one file per quarter.

    python examples/many_models/prepare.py build/many_models

writes made-up weekly sales of 3 brands of orange juice in 4 stores over two years. Each store
and brand has its own taste for prices and advertising: that is what the models have to find out.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

STORES, BRANDS, WEEKS = (2, 5, 8, 9), ("dominicks", "minute.maid", "tropicana"), 104


def prepare(folder):
    """Write the tables into `folder`; return the folder with them."""
    sales = Path(folder) / "sales"
    sales.mkdir(parents=True, exist_ok=True)
    table = make_sales(np.random.default_rng(seed=7))
    quarter = table["WeekStarting"].dt.to_period("Q").astype(str)
    for name, rows in table.groupby(quarter):
        rows.to_csv(sales / f"{name}.csv", index=False)
    return sales


def make_sales(random):
    """One row for each week, store and brand."""
    weeks = pd.date_range("2024-01-04", periods=WEEKS, freq="7D")
    index = pd.MultiIndex.from_product(
        [weeks, STORES, BRANDS], names=["WeekStarting", "Store", "Brand"]
    )
    table = index.to_frame(index=False)
    group = table.groupby(["Store", "Brand"]).ngroup()
    table["Advert"] = random.integers(0, 2, len(table))
    table["Price"] = random.uniform(1.9, 2.7, len(table)).round(2)
    quantity = 20_000 - (2_000 + 300 * group) * table["Price"] + 500 * group * table["Advert"]
    table["Quantity"] = (quantity + random.normal(0, 300, len(table))).round().astype(int)
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the tables of the example.")
    parser.add_argument("folder", nargs="?", default="build/many_models")
    sales = prepare(parser.parse_args().folder)
    print(f"{len(list(sales.glob('*.csv')))} tables in {sales}")
