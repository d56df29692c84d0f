"""What is in folders and archives beside examples: pictures that are programs, bombs, pipes, devices and links."""

import io
import os
import pickle
import tarfile
import threading
import tracemalloc
import zipfile

import keras
import numpy as np
import pytest
from PIL import Image, features

from keras_dropout.bench.compare import make_plan
from keras_dropout.bench.data import arrays, files, folders, opening
from keras_dropout.bench.training.trainer import Trainer
from keras_dropout.errors import BadInput

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n(ran) print\n%%EOF\n"
FORMATS = {"BMP": "bmp", "GIF": "gif", "JPEG": "jpg", "PNG": "png", "PPM": "ppm", "TIFF": "tiff"}
FORMATS |= {"WEBP": "webp"} if features.check("webp") else {}


def picture(kind="PNG", n=0):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (n, 2 * n, 200)).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    for kind in ("ape", "bee"):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for n in range(8):
            (tmp_path / "set" / kind / f"{n}.png").write_bytes(picture(n=n))
    return tmp_path / "set"


def members():
    return {f"{kind}/{n}.png": picture(n=n) for kind in ("ape", "bee") for n in range(8)}


def write_zip(path, content):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def write_tar(path, content):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("kind", FORMATS)
def test_each_named_format_is_read(folder, kind):
    for n in range(8):
        (folder / "ape" / f"{n}.{FORMATS[kind]}").write_bytes(picture(kind, n=40))
    data, _ = files.load(folder)
    found = np.concatenate([data.train.x, data.test.x])[:, 0, 0]
    assert (np.abs(found.astype(int) - [40, 80, 200]).max(axis=1) < 12).sum() == 8


@pytest.mark.parametrize("name", ["evil.png", "evil.jpg"])
def test_a_picture_that_is_a_program_is_refused(folder, name, monkeypatch):
    ran = []
    monkeypatch.setattr("subprocess.check_call", lambda *arguments, **options: ran.append(arguments))
    (folder / "bee" / name).write_bytes(EPS)
    with pytest.raises(BadInput, match=f"bee/{name} is no image that can be read"):
        files.load(folder)
    assert not ran


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_a_large_member_that_is_no_example_is_not_read(tmp_path, write):
    source = write(tmp_path / f"a.{'zip' if write is write_zip else 'tgz'}", members() | {"ape/video.mp4": bytes(100_000_000)})
    tracemalloc.start()
    _, about = files.load(source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000_000  # tarfile unpacks 10 kB of the archive at a time
    assert about.notes == ("1 file(s) beside the images were passed over",)


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_what_unpacks_to_more_than_memory_is_refused(tmp_path, monkeypatch, write):
    source = write(tmp_path / f"a.{'zip' if write is write_zip else 'tgz'}", members() | {"ape/big.png": bytes(3_000_000)})
    monkeypatch.setattr(opening, "most", lambda: 2_000_000)
    with pytest.raises(BadInput, match=r"holds more than 0.0 GB"):
        files.load(source)


def test_a_tar_whose_header_is_a_bomb_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        member = tarfile.TarInfo("././@LongLink")
        member.type, member.size = tarfile.GNUTYPE_LONGNAME, 20_000_000
        archive.addfile(member, io.BytesIO(bytes(member.size)))
    tracemalloc.start()
    with pytest.raises(BadInput, match="a header of 20,000,000 bytes"):
        files.load(tmp_path / "a.tgz")
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_long_names_are_names(tmp_path):
    long = "x" * 300
    content = {name.replace(".png", f"{long}.png"): data for name, data in members().items()}
    assert files.load(write_tar(tmp_path / "a.tgz", content))[1].classes == ("ape", "bee")


def test_pictures_that_need_more_than_memory_are_refused(folder, monkeypatch):
    monkeypatch.setattr(opening, "most", lambda: 2_000_000)
    with pytest.raises(BadInput, match=r"need .* GB of memory") as caught:
        files.load(folder, image_size=(500, 500))
    assert "image_size" in str(caught.value).splitlines()[1]
    files.load(folder, image_size=(8, 8))


def test_a_table_in_an_archive_is_said(tmp_path):
    with pytest.raises(BadInput, match=r"train.csv in it is a table: unpack it, and name that file."):
        files.load(write_zip(tmp_path / "a.zip", {"house/train.csv": b"a,y\n1,2\n"}))


def within(seconds, act):
    """What `act` gave; it is not waited for longer."""
    found = []
    thread = threading.Thread(target=lambda: found.append(act()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert found, "it hangs"
    return found[0]


def test_pipes_devices_and_broken_links_in_a_folder_are_left_out(folder):
    os.mkfifo(folder / "ape" / "pipe.png")
    (folder / "ape" / "zero.png").symlink_to("/dev/zero")
    (folder / "bee" / "gone.png").symlink_to("nowhere.png")
    data, about = within(60, lambda: files.load(folder))
    assert len(data.train.y) + len(data.test.y) == 16
    assert about.notes[0] == "3 pipe(s), device(s) or broken link(s) left out: ape/pipe.png first"


def test_links_that_lead_out_of_a_folder_are_said(folder, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.png").write_bytes(picture())
    (folder / "ape" / "inside.png").symlink_to(folder / "bee" / "1.png")
    assert files.load(folder)[1].notes == ()
    (folder / "cat").symlink_to(tmp_path / "other")
    (folder / "bee" / "x.png").symlink_to(tmp_path / "other" / "x.png")
    assert "2 link(s) lead out of the folder: bee/x.png first" in files.load(folder)[1].notes


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.txt", "a.npz", "a.zip", "a.csv.gz", "x.npy"])
def test_a_pipe_in_place_of_a_file_is_refused(tmp_path, name):
    os.mkfifo(tmp_path / name)
    source = tmp_path / name if name != "x.npy" else f"{tmp_path / name},{tmp_path / name}"
    options = {"target": "y"} if name in ("a.csv", "a.parquet", "a.csv.gz") else {}

    def act():
        with pytest.raises(BadInput, match="is a folder, pipe or device, not a file"):
            files.load(source, **options)
        return True

    assert within(60, act)


@pytest.mark.parametrize("name", ["a.csv.gz", "a.txt.xz"])
def test_a_file_that_unpacks_to_more_than_memory_is_refused(tmp_path, monkeypatch, name):
    path = tmp_path / name
    with opening._OPEN[path.suffix](path, "wb") as file:
        file.write(b"a,y\n" + b"1,2\n" * 1_000_000)
    monkeypatch.setattr(opening, "most", lambda: 2_000_000)
    monkeypatch.setattr(opening, "_PIECE", 1 << 20)
    with pytest.raises(BadInput, match="holds more than"):
        files.load(path, **({"target": "y"} if "csv" in name else {}))


def test_arrays_that_unpack_to_more_than_memory_are_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((1000, 1000)), y=np.arange(1000) % 2)
    monkeypatch.setattr(opening, "most", lambda: 2_000_000)
    with pytest.raises(BadInput, match="holds more than"):
        files.load(tmp_path / "a.npz")


def test_lines_of_text_may_be_compressed(tmp_path):
    import gzip

    lines = "\n".join(f"{'good' if n % 2 else 'bad'}\tfilm {n % 5}" for n in range(40)).encode()
    (tmp_path / "a.txt").write_bytes(lines)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(lines))
    one, two = (files.load(tmp_path / name)[0] for name in ("a.txt", "a.txt.gz"))
    np.testing.assert_array_equal(one.train.x, two.train.x)


def test_each_ending_has_its_format():
    Image.init()
    assert {Image.EXTENSION[ending] for ending in folders.IMAGES} <= set(folders._FORMATS)


def test_many_images_of_a_folder_are_read_batch_by_batch_and_are_the_same(folder, monkeypatch):
    whole, about = files.load(folder)
    opened = []
    monkeypatch.setattr(folders, "DECODED_ONCE", 0)
    monkeypatch.setattr(folders, "_opened", lambda file, plain=folders._opened: opened.append(file) or plain(file))
    parts, same = files.load(folder)
    assert same == about
    assert parts.fingerprint() == whole.fingerprint()
    assert not isinstance(parts.train.x, np.ndarray)
    opened.clear()
    some = parts.train.take(np.array([3, 1]))
    np.testing.assert_array_equal(some.x, whole.train.x[[3, 1]])
    assert len(opened) == 2
    sent = pickle.loads(pickle.dumps(parts.train.x))
    assert not len(opened) - 2  # the paths are sent, not the pixels
    np.testing.assert_array_equal(np.asarray(sent), whole.train.x)
    Image.new("RGB", (5, 4)).save(folder / "ape" / "1.png")
    with pytest.raises(BadInput, match="different sizes"):
        files.load(folder)


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_a_run_on_images_read_batch_by_batch_is_that_on_decoded_ones(folder, monkeypatch, tmp_path, engine):
    made = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(4, "relu"), keras.layers.Dense(2)])
    made.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    monkeypatch.setattr(arrays, "DECODED", 1)  # pieces of one batch
    found = []
    for most in (2**26, 0):
        monkeypatch.setattr(folders, "DECODED_ONCE", most)
        settings = {"engine": engine, "backend": "jax", "epochs": 2, "batch_size": 4, "variants": {"v": "hidden=0.5"}}
        plan = make_plan(made, folder, **settings, data_options={"divide_by": 255}, ledger=tmp_path / "l.db")
        run = plan.study.runs()[1]
        found.append((run.key, Trainer(plan.study, plan.data.sent("held-out"), plan.data.divide_by).train(run)))
    (key, whole), (same_key, parts) = found
    assert key == same_key
    assert parts.metrics == pytest.approx(whole.metrics, rel=1e-5)
