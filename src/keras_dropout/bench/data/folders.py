"""Class folders, on disk or in an archive: one folder a class, a file an example. Archives are read in memory, never unpacked."""

import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_dropout.errors import check_whole, refuse

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
IMAGES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_PARTS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}


class File(NamedTuple):
    """One example: the name of its file, for messages, and its content or where that is."""

    name: str
    content: bytes | Path

    def read(self) -> bytes:
        """The bytes of the file."""
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()


class Folders(NamedTuple):
    """What class folders hold: `kind` is "images" or "text"; `parts` has "train" or "all", and maybe "test" and "validation"."""

    kind: str
    classes: tuple[str, ...]
    parts: dict[str, tuple[np.ndarray, np.ndarray]]  # files (of dtype object) and class numbers
    notes: tuple[str, ...]


def read_folders(source: Path) -> Folders:
    """The class folders in the folder or archive `source`, maybe below top folders train/, test/ and validation/.

    Classes are numbered in the order of their names; files in the order of theirs. Hidden files are passed over.
    """
    files: list[tuple[tuple[str, ...], bytes | Path]] = []
    folders: set[tuple[str, ...]] = set()
    for names, content in _entries(source):
        if any(name.startswith((".", "__MACOSX")) for name in names):
            continue
        folders.update(names[:n] for n in range(1, len(names) + (content is None)))
        if content is not None:
            files.append((names, content))
    if not files:
        refuse(f"{source} holds no files.", _FORM)
    depth = 0
    while True:  # an archive often has one folder around everything
        tops = {folder[depth] for folder in folders if len(folder) > depth}
        if len(tops) != 1 or tops <= set(_PARTS) or not any(len(names) > depth + 2 for names, _ in files):
            break
        depth += 1
    in_parts = bool(tops) and tops <= set(_PARTS)
    below = depth + in_parts
    loose = ["/".join(names) for names, _ in files if len(names) <= below + 1 and _ending(names[-1]) in IMAGES]
    if loose:
        refuse(f"{source}: {loose[0]} stands in no class folder.", _FORM)
    kinds = {found_kind for names, _ in files if len(names) > below + 1 and (found_kind := _kind(names[-1])) is not None}
    if len(kinds) != 1:
        found = "both images and .txt files" if kinds else "no image and no .txt file"
        refuse(f"{source}: the class folders hold {found}.", f"{_FORM} Endings: {' '.join(sorted(IMAGES))} .txt")
    (kind,) = kinds
    held: dict[str, list[tuple[str, File]]] = {}
    filled, other = set(), 0
    for names, content in sorted(files, key=lambda file: file[0]):
        if len(names) <= below + 1 or _kind(names[-1]) != kind:
            other += 1
            continue
        filled.add(names[: below + 1])
        part = _PARTS[names[depth]] if in_parts else "all"
        held.setdefault(part, []).append((names[below], File(f"{source}: {'/'.join(names)}", content)))
    for folder in sorted(folders):
        if len(folder) == below + 1 and folder not in filled:
            refuse(f"{source}: the class folder {'/'.join(folder)} is empty.", f"Put {kind} of its class into it, or delete it.")
    if in_parts and "train" not in held:
        refuse(f"{source} has a folder {' and '.join(sorted(held))} but none of training data.", _FORM)
    classes = tuple(sorted({name for name, _ in held["train" if in_parts else "all"]}))
    numbers = {name: n for n, name in enumerate(classes)}
    parts = {}
    for part, examples in held.items():
        unknown = sorted({name for name, _ in examples} - set(classes))
        if unknown:
            refuse(
                f"{source}: the class {unknown[0]!r} is in the {part} data and not in training.",
                f"Training has {', '.join(classes)}.",
            )
        contents = np.empty(len(examples), object)
        contents[:] = [file for _, file in examples]
        parts[part] = contents, np.array([numbers[name] for name, _ in examples], "int32")
    return Folders(kind, classes, parts, (f"{other} file(s) beside the {kind} were passed over",) if other else ())


_FORM = "Lay it out as CLASS/FILE, or train/CLASS/FILE and test/CLASS/FILE."


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _kind(name: str) -> str | None:
    return "images" if _ending(name) in IMAGES else "text" if _ending(name) == ".txt" else None


def _entries(source: Path) -> Iterator[tuple[tuple[str, ...], bytes | Path | None]]:
    """(the names on the way to it, content) of each file in a folder or archive; the content of a folder is None."""
    if source.is_dir():
        for here, below, names in os.walk(source, followlinks=True):
            folder = Path(here)
            if os.path.realpath(folder) in map(os.path.realpath, folder.parents):  # a link to a folder that it is in: a loop
                below.clear()
                continue
            if folder != source:
                yield folder.relative_to(source).parts, None
            yield from (((*folder.relative_to(source).parts, name), folder / name) for name in names)
        return
    try:
        yield from _in_zip(source) if source.suffix.lower() == ".zip" else _in_tar(source)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError, RuntimeError, ValueError) as error:
        refuse(f"{source} is broken, truncated or locked: {error}.", "Get a whole copy, or unpack it and name the folder.")


def _steps(name: str) -> tuple[str, ...]:
    return tuple(step for step in name.replace("\\", "/").split("/") if step not in ("", "."))


def _in_tar(source: Path) -> Iterator[tuple[tuple[str, ...], bytes | None]]:
    with tarfile.open(source, "r|*") as archive:  # as a stream: each byte is unpacked once
        for member in archive:
            if member.isdir():
                yield _steps(member.name), None
            elif member.isreg() and (file := archive.extractfile(member)) is not None:
                content = file.read()
                if len(content) != member.size:
                    raise EOFError(f"{member.name} ends early")
                yield _steps(member.name), content
        if archive.fileobj.tell() == archive.offset:  # tarfile takes a file that ends between two members for a whole one
            raise EOFError("it has no end mark")


def _in_zip(source: Path) -> Iterator[tuple[tuple[str, ...], bytes | None]]:
    with zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            yield _steps(member.filename), None if member.is_dir() else archive.read(member)


def learn_images(train: Sequence[File], size: tuple[int, int] | None) -> Callable[[Sequence[File]], np.ndarray]:
    """encode, learned from the training files; encode(files) gives uint8 (files, height, width, channels).

    One channel where all training images are grey, else red, green and blue. Each image is resized to `size` (height, width),
    bilinearly; without it all must be of the first one's size.
    """
    try:
        from PIL import Image
    except ImportError:
        refuse("images need Pillow, which is not installed.", "pip install 'keras-dropout[images]'")
    if size is not None:
        mend = "It is height and width in pixels: for example (32, 32)."
        size = check_whole("image_size", size[0], 1, mend), check_whole("image_size", size[1], 1, mend)

    def opened(file: File) -> Image.Image:
        image = Image.open(io.BytesIO(file.read()))
        if image.mode[0] in "IF":
            refuse(f"{file.name} has {image.mode} pixels, not 8 bits a channel.", "Convert it to 8 bits, or give arrays.")
        return image

    def readable(act: Callable[[File], Any], file: File) -> Any:
        try:
            return act(file)
        except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            refuse(f"{file.name} is no image that can be read: {error}.", "Get a whole copy, or delete it.")

    mode = "L" if all(readable(opened, file).mode in ("1", "L", "LA") for file in train) else "RGB"
    height, width = size or readable(opened, train[0]).size[::-1]

    def pixels(file: File) -> np.ndarray:
        image = opened(file).convert(mode)
        if image.size != (width, height):
            if size is None:
                sizes = f"{width}x{height} and {image.width}x{image.height}"
                refuse(f"{file.name}: the images are of different sizes, {sizes} (width x height).", "Give image_size.")
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(image).reshape(height, width, -1)

    def encode(files: Sequence[File]) -> np.ndarray:
        images = np.empty((len(files), height, width, len(mode)), np.uint8)
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
            for start in range(0, len(files), 1024):  # in pieces, so that only these are held twice
                for n, image in enumerate(threads.map(partial(readable, pixels), files[start : start + 1024]), start):
                    images[n] = image
        return images

    return encode
