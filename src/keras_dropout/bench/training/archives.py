"""A trained model as bytes."""

import io
import tempfile
import zipfile
from pathlib import Path

import keras


def archive(model: keras.Model) -> bytes:
    """Return the bytes of a .keras file with the model.

    Keras stores the file uncompressed. This function compresses it lightly: the slots of an Adam optimizer that has not taken a
    step are all zeros, and uncompressed they would make the file three times as large.
    """
    content = io.BytesIO()
    with tempfile.TemporaryDirectory(prefix="keras-dropout-") as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        with zipfile.ZipFile(path) as plain, zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
            for name in plain.namelist():
                packed.writestr(name, plain.read(name))
    return content.getvalue()
