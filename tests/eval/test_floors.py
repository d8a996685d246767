"""The floor is the distance of real images that are not in the reference, at the same count."""

from dataclasses import replace

import pytest
import torch

from vistok.data import Photos, PhotosConfig
from vistok.eval.config import EvalConfig
from vistok.eval.floors import floor_of
from vistok.eval.images import exact
from vistok.eval.measure import evaluate
from vistok.eval.protocols.rfid import RFID
from vistok.eval.reference.real import UNKNOWN
from vistok.eval.reference.training_set import Picked, TrainingSet
from vistok.eval.systems.runs import System, resolve
from vistok.metrics import FeatureStats, frechet_distance


@pytest.fixture
def found(context, make_tokenizer):
    """(a context of 24 held-out photos, 60 training images of the same data)."""
    train = Photos(PhotosConfig(size=8, count=60, val_count=24)).open("train", augment=False)
    with exact():
        yield context(make_tokenizer("fsq")), TrainingSet(train, train.record())


def seen(context, dataset, rows):
    pixels = torch.stack([dataset[i].pixels for i in rows])
    return FeatureStats.of(context.features(pixels))


def distance(a, b):
    with pytest.warns(UserWarning, match="fewer samples"):
        return frechet_distance(a, b)


def test_held_out_images_beside_a_reference_of_training_images(found):
    context, training = found
    reference = training.stats(context)
    floor = floor_of(context, reference, 24, training)
    everything = seen(context, context.views.dataset, range(24))
    assert floor.value == pytest.approx(distance(everything, reference.stats), rel=1e-6)
    assert (floor.count, floor.reference.split) == (24, "val")
    assert floor.reference == context.views.reference  # whose statistics rFID has anyway
    few = floor_of(context, reference, 10, training)
    assert few.count == few.reference.count == 10 and few.value > floor.value
    assert few.reference.manifest != floor.reference.manifest
    many = floor_of(context, reference, 500, training)
    assert many.count == 24 and many.value == pytest.approx(floor.value)


def test_training_images_beside_the_held_out_ones(found):
    context, training = found
    reference = context.views.real(context.features)
    floor = floor_of(context, reference, 24, training)
    chosen = Picked(training.dataset, 24).rows
    others = seen(context, training.dataset, [int(i) for i in chosen])
    assert floor.value == pytest.approx(distance(others, reference.stats), rel=1e-6)
    assert (floor.count, floor.reference.split) == (24, "train")
    picked = Picked(training.dataset, 40)  # the training images of a gFID may be a choice already
    again = floor_of(context, reference, 24, TrainingSet(picked, picked.record()))
    assert again == floor
    context.views.memo.clear()
    assert floor_of(context, reference, 24, "no training images: none") is None
    assert floor_of(context, reference, 23, None) is None


def test_a_floor_is_that_of_its_own_training_images(found):
    context, training = found
    reference = context.views.real(context.features)
    few = Photos(PhotosConfig(size=8, count=30, val_count=24)).open("train", augment=False)
    floors = [
        floor_of(context, reference, 20, one)
        for one in (training, TrainingSet(few, few.record()), training)
    ]
    assert floors[0] == floors[2] != floors[1]


def test_a_file_that_does_not_say_its_images_is_no_set_of_others_for_reconstructions(found):
    """What is known of ADM's files: mean and covariance. Beside rFID they may well be of the very
    images that were reconstructed."""
    context, training = found
    known = context.views.real(context.features)
    unsaid = {"split": UNKNOWN, "manifest": "f" * 64, "count": 0}
    file = replace(known, reference=known.reference.model_copy(update=unsaid))
    assert floor_of(context, file, 24, training).value == pytest.approx(0, abs=1e-9)
    floor = floor_of(context, file, 24, training, drawn=False)
    assert floor == floor_of(context, known, 24, training) and floor.value > 0


def test_choices_among_other_images_have_other_names():
    data = Photos(PhotosConfig(size=8, val_count=24)).open("val")
    names = {Picked(data, 5, limit).record()["manifest"] for limit in (None, 10, 20)}
    assert len(names) == 3
    assert Picked(data, 5, 24).record() == Picked(data, 5).record()  # the limit takes nothing away


def test_images_of_the_same_distribution_lie_at_the_floor(found, context, make_tokenizer):
    """Other held-out photos, drawn from the same set, in the place of samples."""
    training = found[1]
    context = context(make_tokenizer("fsq"), count=96)
    reference = training.stats(context)
    floor = floor_of(context, reference, 24, training)
    order = torch.randperm(96, generator=torch.Generator().manual_seed(0)).tolist()
    draws = (seen(context, context.views.dataset, order[n : n + 24]) for n in (24, 48))
    values = [distance(one, reference.stats) for one in draws]
    assert all(0.5 < value / floor.value < 2 for value in values)
    gray = FeatureStats.of(context.features(torch.full((24, 3, 8, 8), 128, dtype=torch.uint8)))
    assert distance(gray, reference.stats) > 3 * floor.value


def test_rows_have_their_floors(runs):
    options = {"gfid": {"guidance": (1.0,), "seeds": 1}, "limit": 20}
    results = evaluate(runs, EvalConfig(protocols=("rfid", "gfid"), **options))
    (gfid,), (val,) = (
        results.find("gFID", length=4, seed=0), results.find("gFID-val", length=4)
    )  # fmt: skip
    assert (gfid.floor.reference.split, val.floor.reference.split) == ("val", "train")
    for row in results.find("rFID"):
        assert row.floor == val.floor and row.floor.count == row.count == 20
        assert row.below_floor == (row.value < row.floor.value)
    assert results.find("gFID-untrained")[0].floor is None
    assert all(row.interval is not None and row.varies == "images" for row in (gfid, val))
    assert all(row.floor is None for row in results.find("PSNR"))


def test_the_floor_of_rfid_can_be_left_out(runs):
    (system,) = resolve(runs[:1])
    (job,) = RFID().jobs(System(system.tokenizer, ()), EvalConfig(rfid={"floor": False}))
    assert job.data is None and job.config == EvalConfig(rfid={"floor": False}).rfid
    (job,) = RFID().jobs(System(system.tokenizer, ()), EvalConfig())
    assert job.config.training["split"] == "train" and isinstance(job.data.training, TrainingSet)
