"""Pairs: generated inputs and their originals by name; whatever is damaged, gone or another is one
line, and a single bad pair is left to the quarantine."""

import pickle
import shutil

import pytest
import torch

from tests.support.pairs import change_index, change_record, originals, write_pairs
from vistok.config import ConfigError, validate_part
from vistok.config.registry import build
from vistok.data import DataError, EvalLoader, Order, PairsConfig, TrainLoader, to_device
from vistok.data.base import BadSample
from vistok.data.check.run import run_check
from vistok.data.kinds.pairs import originals_of
from vistok.data.loading.shared_memory import batch_bytes
from vistok.data.pairs import INDEX, RECORD, PairsWriter, file_of


@pytest.fixture
def place(tmp_path):
    """(folder of pairs, config of its originals)."""
    config = originals(tmp_path / "real")
    write_pairs(tmp_path / "pairs", config)
    return tmp_path / "pairs", config


def opened(folder, split="train", **values):
    return build(PairsConfig(path=str(folder), **values)).open(split)


def test_a_pair_is_a_generated_image_and_its_original(place):
    folder, config = place
    data = pickle.loads(pickle.dumps(opened(folder)))
    real = build(config).open("train", augment=False)
    assert (len(data), data.sides, data.classes) == (3, (8, 8), ("cat", "dog"))
    batch = to_device(next(iter(EvalLoader(data, 4))), "cpu")
    wanted = torch.stack([real[i].pixels for i in (4, 0, 3)]).float() / 255
    assert torch.equal(batch.target, wanted) and not torch.equal(batch.pixels, wanted)
    assert batch.label.tolist() == [real[i].label for i in (4, 0, 3)]
    assert batch_bytes(data, 1) == 2 * batch_bytes(real, 1)
    record = data.record()
    assert record["sigma"] == 0.7 and record["originals"]["manifest"] == real.record()["manifest"]
    assert originals_of(PairsConfig(path=str(folder))) == config


def test_workers_give_the_same_pairs(place):
    data = opened(place[0])
    batches = [next(iter(EvalLoader(data, 3, workers=n))) for n in (0, 1)]
    assert torch.equal(batches[0].pixels, batches[1].pixels)
    assert torch.equal(batches[0].target, batches[1].target)


def test_a_share_is_held_out_by_name(place):
    splits = [opened(place[0], split, val_share=0.5) for split in ("train", "val")]
    names = [[row.original for row in one.rows] for one in splits]
    assert sorted(names[0] + names[1]) == sorted(row.original for row in opened(place[0]).rows)
    with pytest.raises(DataError, match="no validation split; give val_path or val_share"):
        opened(place[0], "val")
    assert len(opened(place[0], "val", val_path=str(place[0]))) == 3


def test_a_bad_pair_goes_to_the_quarantine(place, tmp_path):
    folder, _ = place
    data = opened(folder)
    (folder / data.rows[1].file).write_bytes(b"\x89PNG of somebody else")
    shutil.move(tmp_path / "real" / data.rows[2].original, tmp_path / "gone.png")
    assert data[0].pixels is not None
    with pytest.raises(BadSample, match="sha256 is not that of the index"):
        data[1]
    with pytest.raises(BadSample, match="cannot be read"):
        data[2]
    order = Order(3, 3, 0)
    loader = TrainLoader(data, order, steps=1, folder=tmp_path, max_bad_share=1.0)
    assert len(next(iter(loader)).target) == 3  # the good one takes their places
    assert len((tmp_path / "quarantine.jsonl").read_text().splitlines()) == 2


def test_moved_originals_are_named_and_others_refused(place, tmp_path):
    folder, _ = place
    shutil.move(tmp_path / "real", tmp_path / "moved")
    with pytest.raises(
        DataError, match=r"its originals: .*no such folder.*data.originals="
    ) as gone:
        opened(folder)
    assert "\n" not in str(gone.value)
    found = opened(folder, originals={"path": str(tmp_path / "moved")})
    assert found[0].target is not None
    with pytest.raises(DataError, match=r"other originals .*\(crop: center is now adm\)"):
        opened(folder, originals={"path": str(tmp_path / "moved"), "crop": "adm"})
    originals(tmp_path / "moved", count=7)
    with pytest.raises(DataError, match="made of other originals"):
        opened(folder, originals={"path": str(tmp_path / "moved")})


def test_an_original_of_another_name_is_a_bad_pair(place):
    change_index(place[0], '"original": "dog/', '"original": "dog/x')
    with pytest.raises(BadSample, match=r"its original is now dog/.*, not dog/x"):
        opened(place[0])[0]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"file": "dog/', '"file": "../dog/', "CLASS/NAME.png"),
        ('"file": "dog/', '"file": "/dog/', "CLASS/NAME.png"),
        ('"file": "dog/', '"file": ".dog/', "CLASS/NAME.png"),
        ('"index": 0', '"index": -1', "index=-1"),
        ('"index": 0', '"index": "0"', "index='0'"),
        ('"index": 0', '"index": 99', "sample 99 of 6"),
        ('"label": 0', '"label": 7', "2 classes"),
        ('"label"', '"lable"', "not a row"),
        ("{", "[", "not JSON"),
        ("\n", "\n\n", "not JSON"),
    ],
)
def test_a_damaged_index_is_one_line(place, old, new, words):
    change_index(place[0], old, new)
    with pytest.raises(DataError, match=r"make the pairs a") as told:
        opened(place[0])
    assert words in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 9}, "format version 9"),
        ({"count": "3"}, "count=3"),
        ({"count": 4}, "has 3 rows; expected 4"),
        ({"originals": []}, "originals: expected"),
        (
            {"originals": {"config": {"kind": "photos"}, "split": "val", "record": {"size": 5}}},
            "other originals",
        ),
        ({"originals": {"config": {}, "split": "all", "record": {}}}, "originals.split='all'"),
        ({"tokenizer": "tok"}, "tokenizer: expected its name"),
        ({"index": 3}, "index: expected bytes"),
        ({"index": {"bytes": 1, "sha256": ""}}, "not the file that"),
        ({"index": None}, "unfinished, 3 of 3 rows"),
    ],
)
def test_a_damaged_record_is_one_line(place, changes, words):
    change_record(place[0], **changes)
    with pytest.raises(DataError) as told:
        opened(place[0])
    assert words in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"kind": "pairs", "path": "x"}, "originals of kind pairs"),
        ({"kind": "tokens", "path": "x"}, "originals of kind tokens"),
        ({"kind": "foldr", "path": "x"}, "foldr"),
        ({"kind": "webdataset", "train": "http://example.org/{0..9}.tar"}, "at your word"),
    ],
)
def test_hostile_originals_are_one_line(place, config, words):
    """Pairs of pairs without end, and addresses that nobody typed."""
    made = {"config": config, "split": "train", "record": {"manifest": "x"}}
    change_record(place[0], originals=made)
    with pytest.raises(DataError) as told:
        opened(place[0])
    assert words in str(told.value) and "\n" not in str(told.value)


def test_an_edited_record_is_seen(place):
    text = (place[0] / RECORD).read_text()
    (place[0] / RECORD).write_text(text.replace("0.7", "0.1"))
    with pytest.raises(DataError, match="seal does not fit"):
        opened(place[0])
    (place[0] / RECORD).unlink()
    with pytest.raises(DataError, match=r"no pairs.json in it; expected .* preserve"):
        opened(place[0])


def test_a_writer_resumes_and_mixes_nothing(place, tmp_path):
    folder, _ = place
    whole = {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    change_record(folder, index=None)
    lines = (folder / INDEX).read_text().splitlines(keepends=True)
    (folder / INDEX).write_text(lines[0] + lines[1] + lines[2][:9])  # cut off by a kill
    (folder / "dog" / ".writing_4.png.1.ab").write_bytes(b"half")
    write = lambda: PairsWriter(folder, 3, _facts(folder), every=2)
    assert write().written == 2
    assert not list(folder.glob("*/.writing_*"))
    (folder / INDEX).write_text("".join(lines))
    assert write().finished  # killed between the last line and the record
    assert {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == whole
    with pytest.raises(DataError, match=r"begun with sigma=0.7, now sigma=0.5; use another out"):
        PairsWriter(folder, 3, {**_facts(folder), "sigma": 0.5}, every=2)
    with pytest.raises(DataError, match=r"holds 'cat' and no pairs.json"):
        PairsWriter(tmp_path / "real", 3, _facts(folder), every=2)


def _facts(folder):
    from vistok.data.pairs import read_facts

    return {k: v for k, v in read_facts(folder).items() if k not in ("version", "count", "index")}


def test_names_of_files_lead_nowhere():
    assert file_of("dog", "x/y/a b.JPEG", 7) == "dog/a_b-7.png"
    assert file_of("../é", "..", 0).startswith("_")
    assert "/" not in file_of("a/b", "c", 1).replace("/", "", 1)
    assert file_of("", "", 2) == "unlabeled/sample-2.png"


def test_vistok_check_reads_pairs(place):
    folder, _ = place
    report = run_check([str(folder)])
    assert (report["samples"], report["exit_code"]) == (3, 0)
    (folder / opened(folder).rows[1].file).write_bytes(b"")
    report = run_check([str(folder)])
    assert report["usable"] == 2 and len(report["findings"]["unreadable"]) == 1


def test_the_kind_is_known_by_name(fails):
    with fails(ConfigError, "val_share=0.1 and val_path=b; give one of them"):
        validate_part("data", {"kind": "pairs", "path": "a", "val_path": "b", "val_share": 0.1})
