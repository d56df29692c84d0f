"""Class folders, on disk or in an archive: a folder per class, a file per example. Archives are read in memory, not unpacked."""

import io
import lzma
import math
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

from keras_dropout.bench.data import opening
from keras_dropout.bench.data.arrays import Rows
from keras_dropout.cores import usable_cores
from keras_dropout.errors import BadInput, check_whole, refuse

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
IMAGES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
DECODED_ONCE = 2**26  # bytes of images to decode at once and keep; more of them, in a folder, are decoded batch by batch
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # not EPS, for which Pillow runs Ghostscript
_PARTS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}


class File(NamedTuple):
    """One example: the name of its file, for messages, and its content or the path to it."""

    name: str
    content: bytes | Path

    def read(self) -> bytes:
        """Return the bytes of the file."""
        if isinstance(self.content, bytes):
            return self.content
        opening.check_size(self.content, self.content.stat().st_size)
        return self.content.read_bytes()


class Folders(NamedTuple):
    """The contents of class folders: `kind` is "images" or "text"; `parts` has "train" or "all", maybe "test" and "validation"."""

    kind: str
    classes: tuple[str, ...]
    parts: dict[str, tuple[np.ndarray, np.ndarray]]  # files (dtype object) and class numbers
    notes: tuple[str, ...]


def read_folders(source: Path) -> Folders:
    """Read the class folders in the folder or archive `source`, maybe below top folders train/, test/ and validation/.

    Classes are numbered in the order of their names, and files are in the order of their names. Hidden files are skipped.
    """
    files: list[tuple[tuple[str, ...], bytes | Path]] = []
    folders: set[tuple[str, ...]] = set()
    notes: list[str] = []
    for names, content in _entries(source, notes):
        if _hidden(names):
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
        inner = next(("/".join(names) for names, _ in files if _ending(names[-1]) in (".csv", ".tsv", ".parquet")), None)
        fix = f"{_FORM} Endings: {' '.join(sorted(IMAGES))} .txt"
        refuse(
            f"{source}: the class folders hold {found}.",
            f"{inner} in it is a table: unpack it, and name that file." if inner else fix,
        )
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
    notes += [f"{other} file(s) beside the {kind} were passed over"] * bool(other)
    return Folders(kind, classes, parts, tuple(notes))


_FORM = "Lay it out as CLASS/FILE, or train/CLASS/FILE and test/CLASS/FILE."


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _kind(name: str) -> str | None:
    return "images" if _ending(name) in IMAGES else "text" if _ending(name) == ".txt" else None


def _hidden(names: tuple[str, ...]) -> bool:
    return any(name.startswith((".", "__MACOSX")) for name in names)


def _entries(source: Path, notes: list[str]) -> Iterator[tuple[tuple[str, ...], bytes | Path | None]]:
    """Yield (parts of the path, content) for each file in a folder or archive; for a folder the content is None.

    In an archive only files that may be examples are read; other files get an empty content.
    """
    if source.is_dir():
        yield from _in_folder(source, notes)
        return
    opening.check_regular(source)
    try:
        yield from _in_zip(source) if source.suffix.lower() == ".zip" else _in_tar(source)
    except BadInput:
        raise
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError, RuntimeError, ValueError) as error:
        refuse(f"{source} is broken, truncated or locked: {error}.", "Get a whole copy, or unpack it and name the folder.")


def _in_folder(source: Path, notes: list[str]) -> Iterator[tuple[tuple[str, ...], Path | None]]:
    """Yield the entries of a folder; note the pipes, devices and broken links left out, and links that lead out of the folder."""
    strange, outside = [], []
    root = os.path.realpath(source)
    for here, below, names in os.walk(source, followlinks=True):
        folder = Path(here)
        if os.path.realpath(folder) in map(os.path.realpath, folder.parents):  # a link to a parent folder: a loop
            below.clear()
            continue
        steps = folder.relative_to(source).parts
        if steps:
            yield steps, None
        for name in (*below, *names):
            if os.path.islink(folder / name) and os.path.commonpath([root, os.path.realpath(folder / name)]) != root:
                outside.append("/".join((*steps, name)))
        for name in names:
            if (folder / name).is_file():
                yield (*steps, name), folder / name
            elif not _hidden((name,)):
                strange.append("/".join((*steps, name)))
    notes += [f"{len(strange)} pipe(s), device(s) or broken link(s) left out: {min(strange)} first"] if strange else []
    notes += [f"{len(outside)} link(s) lead out of the folder: {min(outside)} first"] if outside else []


def _wanted(steps: tuple[str, ...]) -> bool:
    return bool(steps) and not _hidden(steps) and _kind(steps[-1]) is not None


def _steps(name: str) -> tuple[str, ...]:
    return tuple(step for step in name.replace("\\", "/").split("/") if step not in ("", "."))


class _Member(tarfile.TarInfo):
    """A member of a tar, with limited headers: tarfile reads long names and attributes into memory as a whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        found = super().frombuf(buf, encoding, errors)
        if found.size > 1 << 20 and not (found.isreg() or found.isdir()):
            raise tarfile.ReadError(f"a header of {found.size:,} bytes")
        return found


def _in_tar(source: Path) -> Iterator[tuple[tuple[str, ...], bytes | None]]:
    total = 0
    with tarfile.open(source, "r|*", tarinfo=_Member) as archive:  # as a stream: each byte is unpacked once
        for member in archive:
            total += member.size
            opening.check_size(source, total)
            steps = _steps(member.name)
            if member.isdir():
                yield steps, None
            elif member.isreg() and not _wanted(steps):
                yield steps, b""
            elif member.isreg() and (file := archive.extractfile(member)) is not None:
                content = file.read()
                if len(content) != member.size:
                    raise EOFError(f"{member.name} ends early")
                yield steps, content
        if archive.fileobj.tell() == archive.offset:  # tarfile accepts a file that ends between two members as complete
            raise EOFError("it has no end mark")


def _in_zip(source: Path) -> Iterator[tuple[tuple[str, ...], bytes | None]]:
    total = 0
    with zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            steps = _steps(member.filename)
            wanted = _wanted(steps)
            total += member.file_size * wanted  # other members are not unpacked
            opening.check_size(source, total)
            yield steps, None if member.is_dir() else archive.read(member) if wanted else b""


def learn_images(train: Sequence[File], size: tuple[int, int] | None) -> Callable[[Sequence[File]], Any]:
    """Return encode, learned from the training files; encode(files) gives uint8 (files, height, width, channels).

    More than `DECODED_ONCE` bytes of images in a folder are not decoded: encode gives `Rows`, which read a batch when it is needed.

    There is one channel if all training images are grey, otherwise red, green and blue. Each image is resized bilinearly to `size`
    (height, width). Without `size`, all images must have the size of the first training image.
    """
    try:
        import PIL  # noqa: F401
    except ImportError:
        refuse("images need Pillow, which is not installed.", "pip install 'keras-dropout[images]'")
    if size is not None:
        fix = "It is height and width in pixels: for example (32, 32)."
        size = check_whole("image_size", size[0], 1, fix), check_whole("image_size", size[1], 1, fix)

    mode = "L" if all(_readable(_opened, file).mode in ("1", "L", "LA") for file in train) else "RGB"
    height, width = size or _readable(_opened, train[0]).size[::-1]

    def encode(files: Sequence[File]) -> Any:
        images = Images(np.asarray(files, object), (height, width), mode, resized=size is not None)
        on_disk = all(isinstance(file.content, Path) for file in files)
        if on_disk and images.nbytes > DECODED_ONCE:
            for start in range(0, len(files), 1024):  # each is read once now: a broken one is refused before anything is trained
                images[np.arange(start, min(start + 1024, len(files)))]
            return Rows(images, np.arange(len(files)))
        if images.nbytes > opening.most():
            refuse(
                f"{len(files):,} images of {width}x{height} need {images.nbytes / 1e9:.1f} GB of memory.",
                "Unpack the archive and name its folder, or give a smaller image_size.",
            )
        return images[np.arange(len(files))]

    return encode


class Images:
    """Image files as an array (files, height, width, channels) of uint8; what an index asks for is read and decoded each time."""

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(self, files: np.ndarray, size: tuple[int, int], mode: str, resized: bool):
        self._files, self._size, self._mode, self._resized = files, size, mode, resized
        self.shape = (len(files), *size, len(mode))
        self.nbytes = math.prod(self.shape)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        files = self._files[index]
        images = np.empty((len(files), *self.shape[1:]), np.uint8)
        with ThreadPoolExecutor(min(8, usable_cores())) as threads:
            for start in range(0, len(files), 1024):  # in pieces, so that only one piece is in memory twice
                for n, image in enumerate(threads.map(partial(_readable, self._pixels), files[start : start + 1024]), start):
                    images[n] = image
        return images

    def _pixels(self, file: File) -> np.ndarray:
        from PIL import Image

        height, width = self._size
        image = _opened(file).convert(self._mode)
        if image.size != (width, height):
            if not self._resized:
                sizes = f"{width}x{height} and {image.width}x{image.height}"
                refuse(f"{file.name}: the images are of different sizes, {sizes} (width x height).", "Give image_size.")
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(image).reshape(height, width, -1)


def _opened(file: File) -> Any:
    from PIL import Image

    image = Image.open(io.BytesIO(file.read()), formats=_FORMATS)
    if image.mode[0] in "IF":
        refuse(f"{file.name} has {image.mode} pixels, not 8 bits a channel.", "Convert it to 8 bits, or give arrays.")
    return image


def _readable(act: Callable[[File], Any], file: File) -> Any:
    from PIL import Image

    try:
        return act(file)
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        refuse(f"{file.name} is no image that can be read: {error}.", "Get a whole copy, or delete it.")
