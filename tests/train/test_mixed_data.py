"""Training on a mix of data sets: whose batches they are, resume, processes, and its refusals."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch

from tests.support.training import TINY, command, lines, rewound
from vistok.config import ConfigError, read_yaml, validate
from vistok.config.registry import build
from vistok.config.scalars import plain
from vistok.data import DataError, EvalLoader, MixConfig, Order, TrainLoader
from vistok.data.mixed_order import MixedOrder, order_of
from vistok.eval.systems.runs import data_config, read_run
from vistok.train.config import TrainConfig

CLIPS = {"kind": "photos", "size": 16, "frames": 5, "count": 10, "val_count": 4}
IMAGES = {"kind": "photos", "size": 16, "count": 40, "val_count": 4, "seed": 3}


def causal_tree():
    """tiny/cosmos_dv of 5 frames of 16 pixels, on clips and three times as many images."""
    tree = read_yaml("tiny/cosmos_dv")
    tokenizer = tree["task"]["tokenizer"]
    tokenizer |= {"image_size": 16, "frames": 5}
    for part in ("encoder", "decoder"):
        tokenizer[part]["net"] |= {"channels": 8, "resolution": 8}
    tree["task"]["losses"] = [{"kind": "reconstruction", "l2": 1.0}]
    own = {key: value for key, value in TINY.items() if key not in ("task", "data", "optimizer")}
    mixed = [copy.deepcopy(CLIPS), {**IMAGES, "weight": 3}]
    return {**tree, **own, "batch_size": 4, "data": mixed}


def opened(*sets, weights=None):
    return build(MixConfig(sets=sets, weights=weights)).open("train")


# -- the order ------------------------------------------------------------------------------------


def test_batches_come_from_the_data_sets_by_weight_and_read_each_in_whole_epochs():
    order = MixedOrder([10, 40, 7], [1, 3, 0.5], 5, seed=2)
    chosen = [order.chosen(step)[0] for step in range(9000)]  # draws are made 4096 at a time
    counts = Counter(chosen)
    for number, weight in enumerate([1, 3, 0.5]):
        assert abs(counts[number] / 9000 - weight / 4.5) < 0.02
    firsts, seen = [0, 10, 50], {0: [], 1: [], 2: []}
    for step in range(400):
        number, first = chosen[step], firsts[chosen[step]]
        rows = order.indices(step)
        assert all(first <= index < first + [10, 40, 7][number] for _, index in rows)
        seen[number] += [index - first for _, index in rows]
    for number, count in enumerate([10, 40, 7]):
        assert sorted(seen[number][:count]) == list(range(count))  # the first epoch, each once


def test_a_step_can_be_asked_for_at_once_and_ranks_share_its_batch():
    whole = MixedOrder([10, 40], [1, 1], 8, seed=0)
    steps = [*range(6), 4095, 4096, 20000]
    asked = [whole.indices(step) for step in steps]
    for step, rows in zip(reversed(steps), reversed(asked), strict=True):
        fresh = MixedOrder([10, 40], [1, 1], 8, seed=0)
        assert fresh.indices(step) == rows
        for world in (2, 4):
            shares = [fresh.indices(step, rank, world) for rank in range(world)]
            assert [row for share in shares for row in share] == rows
    assert MixedOrder([10, 40], [1, 1], 8, seed=1).indices(0) != asked[0]


def test_one_data_set_keeps_the_order_that_it_always_had():
    data = build(TrainConfig(task=TINY["task"], data=IMAGES).data).open("train")
    assert type(order_of(data, 8, 0)) is Order


# -- batches --------------------------------------------------------------------------------------


def test_batches_are_of_one_medium_with_its_own_fields():
    data = opened(CLIPS, IMAGES, weights=[1, 1])
    order = order_of(data, 4, 0)
    found = {}
    for workers in (0, 2):
        loader = TrainLoader(data, order, steps=6, workers=workers)
        found[workers] = list(loader)
        for step, batch in enumerate(found[workers]):
            clips = order.chosen(step)[0] == 0
            assert batch.pixels.shape == ((4, 3, 5, 16, 16) if clips else (4, 3, 16, 16))
            assert (batch.fps is not None) == clips
            assert bool((batch.index < 10).all()) == clips
    assert {batch.pixels.ndim for batch in found[0]} == {4, 5}
    for mine, theirs in zip(found[0], found[2], strict=True):
        assert torch.equal(mine.pixels, theirs.pixels) and torch.equal(mine.index, theirs.index)


def test_validation_data_and_images_that_are_read_by_index():
    given = build(MixConfig(sets=(CLIPS, IMAGES), val=IMAGES)).open("val")
    assert given.frames is None and build(MixConfig(sets=(CLIPS, IMAGES))).open("val").frames == 5
    other = {**IMAGES, "count": 6}
    data = build(MixConfig(sets=(IMAGES, other))).open("train", augment=False)
    assert sum(len(batch.index) for batch in EvalLoader(data, 8)) == len(data) == 46


# -- training -------------------------------------------------------------------------------------


def test_images_and_clips_train_one_causal_tokenizer_and_resume_to_the_bit(run, tmp_path):
    tree = causal_tree()
    tree["data"][1]["weight"] = 1
    whole = run(tree, "whole", workers=2)
    stopped = rewound(whole)
    run(tree, "stopped")  # from step 4, in the midst of both epochs, without workers
    for name in ("tokenizer", "optimizer.tokenizer"):
        place = f"checkpoints/step_00000012/{name}.safetensors"
        assert (stopped / place).read_bytes() == (whole / place).read_bytes()
    found = read_run(whole, "run")
    assert found.config["data"]["weights"] == [1.0, 1.0]
    assert data_config(found).frames == 5 and data_config(found).count == 10  # it validated on it


def test_what_is_learned_from_both_media_is_learned_for_both(run):
    from vistok.tokenizer import Tokenizer

    def error(folder, config):
        tokenizer = Tokenizer.from_pretrained(folder / "model")
        data = build(config).open("val")
        pixels = torch.stack([data[i].pixels for i in range(4)]).float() / 255
        rebuilt = tokenizer.decode(tokenizer.encode(pixels)).reshape(pixels.shape)
        return float((rebuilt - pixels).square().mean())

    tree = {**causal_tree(), "save_every": 0, "optimizer": {"kind": "adamw", "lr": 3e-3}}
    start, end = run(tree, "start", steps=1, warmup=0), run(tree, "end", steps=40)
    sets = validate(TrainConfig, tree).data.sets
    for config in sets:
        assert error(end, config) < 0.7 * error(start, config)


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path, write):
    path = write(plain({**causal_tree(), "steps": 6}))
    for processes in (1, 2):
        done = command(path, f"out={tmp_path}/{processes}", processes=processes)
        assert done.returncode == 0, done.stderr
    for one, two in zip(lines(tmp_path / "1"), lines(tmp_path / "2"), strict=True):
        assert abs(one["loss"] - two["loss"]) < 1e-5, one["step"]


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data, words",
    [
        ([CLIPS], ["a list of one data set", "data: {kind: ...}"]),
        ([], ["an empty list"]),
        ([CLIPS, {**IMAGES, "weight": 0}], ["weight=0 of data set 1", "above 0"]),
        ([CLIPS, {**IMAGES, "weight": "much"}], ["weight=much of data set 1"]),
        ([CLIPS, {**IMAGES, "size": 32}], ["data set 1 has size=32x32", "size=16x16"]),
        (
            [{"kind": "tokens", "path": "a"}, CLIPS, {**IMAGES, "size": 32}],
            ["data set 2 has size=32x32, data set 1 size=16x16"],
        ),
        ([CLIPS, {**IMAGES, "sise": 32}], ["data.1.sise", "unknown"]),
        ({"kind": "mix", "sets": [CLIPS, IMAGES], "weights": [1]}, ["1 weights for 2 data sets"]),
        ({"kind": "mix", "sets": [CLIPS, {"kind": "mix", "sets": [CLIPS, IMAGES]}]}, ["inside"]),
    ],
)
def test_a_list_that_is_no_mix_is_refused_in_one_line(data, words):
    with pytest.raises(ConfigError) as error:
        validate(TrainConfig, {**causal_tree(), "data": data})
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_data_sets_that_a_tokenizer_cannot_take_are_refused(run, fails):
    tree = causal_tree()
    with fails(ConfigError, "data set 0: a clip of 6 frames", "5, 9, 13"):
        run({**tree, "data": [{**CLIPS, "frames": 6}, IMAGES]})
    sampling = causal_tree()
    sampling["task"]["tokenizer"]["quantizer"] = {"kind": "kl", "dim": 4}
    with fails(ConfigError, "data set 1: 1 frames, but quantizer kl samples codes of clips of 5"):
        run(sampling)
    tokenizer = read_yaml("tiny/video_vit")["task"]["tokenizer"] | {"image_size": 16, "frames": 4}
    task = {"kind": "tokenizer", "tokenizer": tokenizer}
    with fails(ConfigError, "data set 1: gives images", "only a causal tokenizer"):
        run({**tree, "task": task, "data": [{**CLIPS, "frames": 4}, IMAGES]})
    with fails(ConfigError, "data set 0: gives clips", "set its frames=null"):
        run({**TINY, "data": [{**CLIPS, "size": 32}, {**IMAGES, "size": 32}]})


def test_what_cannot_be_read_as_one_data_set_is_refused(run, tmp_path, fails):
    with fails(DataError, "by index", "give one of its sets"):
        build(MixConfig(sets=(CLIPS, IMAGES))).open("train", augment=False)
    model = run(causal_tree(), "model", steps=1, warmup=0)
    from vistok.train.jobs.run_data import with_run_data

    with fails(ConfigError, "trained on a mix of photos, photos", "which data set"):
        with_run_data({"task": {"kind": "cache", "tokenizer": str(model)}})
