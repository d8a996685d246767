"""`open(split, augment=...)`: every kind gives the un-augmented view of its samples itself."""

import io
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from vistok.config.registry import build, entries
from vistok.data import (
    CachedTokensConfig,
    Dataset,
    FolderConfig,
    ParquetConfig,
    PhotosConfig,
    Stream,
    TokenCacheWriter,
    VideoConfig,
    WebDatasetConfig,
)
from vistok.tokens import Tokens, TokenSpec

RANDOM = {"size": 8, "crop": "random", "min_share": 0.5, "pad": 2}
CENTER = {"size": 8, "crop": "center", "flip": False}


@pytest.fixture
def pngs(make_image):
    files = []
    for seed in range(4):
        file = io.BytesIO()
        make_image(20, 16, seed).save(file, "png")
        files.append(file.getvalue())
    return files


@pytest.fixture
def configs(tmp_path, pngs):
    """configs(kind) -> (a config that augments, the same without any augmentation)."""

    def folder():
        (tmp_path / "images").mkdir()
        for i, data in enumerate(pngs):
            (tmp_path / "images" / f"{i}.png").write_bytes(data)
        return FolderConfig, {"path": str(tmp_path / "images")}

    def parquet():
        rows = [{"image": data, "label": i % 2} for i, data in enumerate(pngs)]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
        return ParquetConfig, {"train": str(tmp_path / "x.parquet")}

    def webdataset():
        with tarfile.open(tmp_path / "x.tar", "w") as tar:
            for i, data in enumerate(pngs):
                info = tarfile.TarInfo(f"{i}.png")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return WebDatasetConfig, {"train": str(tmp_path / "x.tar")}

    def huggingface():
        pytest.importorskip("datasets")
        from vistok.data import HuggingFaceConfig

        parquet()
        files = str(tmp_path / "x.parquet")
        place = {"path": "parquet", "data_files": files, "label_column": None}
        return HuggingFaceConfig, {**place, "cache_dir": str(tmp_path / "cache")}

    def video():
        av = pytest.importorskip("av")
        (tmp_path / "clips").mkdir()
        for name in ("a", "b"):
            with av.open(str(tmp_path / "clips" / f"{name}.mp4"), "w") as file:
                stream = file.add_stream("mpeg4", rate=8)
                stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
                for i in range(12):
                    pixels = torch.full((24, 32, 3), 20 * i, dtype=torch.uint8).numpy()
                    pixels[:, :i] = 255
                    file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
                file.mux(stream.encode(None))
        return VideoConfig, {"path": str(tmp_path / "clips"), "frames": 3}

    def make(kind):
        made = locals_[kind]()
        config, place = made
        more = {"streaming": True} if "streaming" in config.model_fields else {}
        more |= {"cache": True} if "cache" in config.model_fields else {}
        fixed = {"start": "middle"} if "start" in config.model_fields else {}
        still = {"streaming": False} if "streaming" in config.model_fields else {}
        return config(**place, **RANDOM, **more), config(**place, **CENTER, **fixed, **still)

    locals_ = {f.__name__: f for f in (folder, parquet, webdataset, huggingface, video)}
    return make


@pytest.mark.parametrize("kind", ["folder", "parquet", "webdataset", "huggingface", "video"])
def test_without_augmentation_samples_are_fixed_center_crops(configs, kind):
    augmented, plain = configs(kind)
    data, expected = build(augmented).open("train", augment=False), build(plain).open("train")
    assert isinstance(data, Dataset) and not data.flip and len(data) == len(expected) > 1
    assert data.sides == expected.sides and data.sides[-2:] == (8, 8)
    for index in range(len(data)):
        for epoch in (0, 1):
            assert torch.equal(data.sample(index, epoch, 5).pixels, expected[index].pixels)
    assert data.record() == expected.record()
    assert getattr(data, "_memory", None) is None  # parquet: nothing is decoded ahead


def test_training_is_augmented_by_default_and_validation_on_request(configs):
    config, _ = configs("folder")
    place = {"val_path": config.path}
    opened = {
        (split, augment): build(config.model_copy(update=place)).open(split, augment)
        for split in ("train", "val")
        for augment in (None, False, True)
    }
    random = lambda data: not torch.equal(data.sample(0, 0).pixels, data.sample(0, 1).pixels)
    assert {key for key, data in opened.items() if random(data)} == {
        ("train", None),
        ("train", True),
        ("val", True),
    }
    assert {key for key, data in opened.items() if data.flip} == {
        ("train", None),
        ("train", True),
        ("val", True),
    }


def test_streams_are_for_augmented_training(configs):
    config, _ = configs("webdataset")
    assert isinstance(build(config).open("train"), Stream)
    assert isinstance(build(config).open("train", augment=True), Stream)


def test_a_view_of_a_photograph_is_the_same_either_way():
    photos = build(PhotosConfig(size=8, count=4))
    plain, still = photos.open("train"), photos.open("train", augment=False)
    assert all(torch.equal(plain[i].pixels, still[i].pixels) for i in range(4))
    assert plain.record() == still.record()


def test_cached_crops_give_way_to_the_center(tmp_path):
    spec = TokenSpec(blocks=((2,),), vocab=(1000,))
    source = {"crops": {"center": 1}}
    facts = {"source": source, "tokenizer": "tiny", "sha256": "1", "crops": 3}
    with TokenCacheWriter(tmp_path / "c", spec, 12, **facts) as writer:
        writer.write(Tokens.of(spec, torch.arange(24).view(12, 2, 1)))
    part = build(CachedTokensConfig(path=str(tmp_path / "c")))
    drawn, center = part.open("train"), part.open("train", augment=False)
    first = lambda data, index, epoch: int(data.sample(index, epoch).tokens[0, 0])
    assert len({first(drawn, 2, epoch) for epoch in range(20)}) == 3
    assert [first(center, i, epoch) for i in range(4) for epoch in (0, 1)] == [
        2 * (3 * i + 1) for i in range(4) for _ in (0, 1)
    ]


def test_every_kind_can_be_opened_without_augmentation():
    import inspect

    for kind, entry in entries("data").items():
        assert "augment" in inspect.signature(entry.part.open).parameters, kind
