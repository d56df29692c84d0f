"""Open the user's files: regular files only, decompressed if necessary, and never more than fits in memory."""

import bz2
import gzip
import lzma
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_dropout.errors import refuse

_OPEN: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_PIECE = 1 << 24


def most() -> int:
    """Return the most bytes that may be unpacked: half of this machine's memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):  # sysconf lacks these values
        return 8 << 30


def check_size(source: Path, size: int) -> None:
    """Refuse a source of more than `most()` bytes."""
    if size > most():
        refuse(
            f"{source} holds more than {most() / 1e9:.1f} GB, half of this machine's memory.",
            "Unpack an archive and name the folder; of a file use a part, or give arrays that stay on disk: x.npy,y.npy.",
        )


def ending(path: Path) -> str:
    """Return the ending in lower case, without the ending of a compression: .csv for a.csv.gz."""
    name = path.with_suffix("") if path.suffix.lower() in _OPEN else path
    return name.suffix.lower()


def check_regular(path: Path) -> None:
    """Refuse a folder, pipe, socket or device; reading from one may never end."""
    if not path.is_file() and path.exists():
        refuse(f"{path} is a folder, pipe or device, not a file.", "Write the data to a file, and give its path.")


def contents(path: Path) -> bytes:
    """Return the bytes of a file, decompressed if its ending names a compression."""
    check_regular(path)
    packed = _OPEN.get(path.suffix.lower())
    pieces, size = [], 0
    try:
        with packed(path, "rb") if packed else open(path, "rb") as file:
            while piece := file.read(_PIECE):
                pieces.append(piece)
                size += len(piece)
                if packed:
                    check_size(path, size)
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        fix = "Get a whole copy of it." if packed else "Check its permissions."
        refuse(f"{path} cannot be read{' or is broken' if packed else ''}: {error}.", fix)
    return b"".join(pieces)
