"""An image that is lost or cannot be read ends an evaluation with its name: nothing is skipped."""

import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from vistok.data import BadSample
from vistok.eval.__main__ import evaluate, reference
from vistok.eval.images import Views


@pytest.fixture
def images(tmp_path):
    """A folder of six images in two classes."""
    for number in range(6):
        path = tmp_path / "val" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path / "val"


def data(folder) -> list[str]:
    return ["data.kind=folder", f"data.val_path={folder}", "data.size=8"]


@pytest.mark.parametrize("name", ["truncated.jpg", "zero_byte.jpg", "text_named.jpg"])
@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_broken_image_is_an_error(runs, images, broken, name, workers):
    shutil.copy(broken / name, images / "b" / name)
    arguments = [str(runs[0]), *data(images), "protocols=[rfid]", f"workers={workers}"]
    done = CliRunner().invoke(evaluate, arguments)
    assert done.exit_code == 1 and "rFID" not in done.stdout
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: b/{name}: ")


def test_a_broken_image_spoils_a_reference(images, broken, tmp_path):
    shutil.copy(broken / "truncated.jpg", images / "b" / "x.jpg")
    out = tmp_path / "ref.npz"
    done = CliRunner().invoke(reference, [*data(images), "split=val", f"out={out}"])
    assert done.exit_code == 1 and "error: b/x.jpg: " in done.stderr and not out.exists()


def test_an_image_that_was_deleted_is_an_error(context, measure, make_tokenizer, images):
    from vistok.config.overrides import parse
    from vistok.eval.systems.runs import open_split

    found = context(make_tokenizer("fsq"))
    found.views = Views(open_split(None, parse(data(images))["data"]), 4)
    assert len(found.views) == 6  # the manifest is made
    (images / "b" / "3.png").unlink()
    with pytest.raises(BadSample, match=r"b/3\.png: cannot be read"):
        measure(found, "rfid")


def test_all_images_count(runs, images):
    done = CliRunner().invoke(evaluate, [str(runs[0]), *data(images), "protocols=rfid"])
    assert done.exit_code == 0 and "rFID[vistok-cnn, val]" in done.output
