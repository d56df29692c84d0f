"""A trained model as bytes."""

import io
import tempfile
import zipfile
from pathlib import Path

import keras


def archive(model: keras.Model) -> bytes:
    """The bytes of a .keras file with the model as it is.

    Keras stores without compressing. Here it is compressed a little, as an optimizer that has not taken a step would else make the
    file of Adam three times as large: its slots are zeros.
    """
    content = io.BytesIO()
    with tempfile.TemporaryDirectory(prefix="keras-dropout-") as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        with zipfile.ZipFile(path) as plain, zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
            for name in plain.namelist():
                packed.writestr(name, plain.read(name))
    return content.getvalue()
