"""The loader's rate and the cost of a start, measured; no figure is judged here."""

from eval.protocols.loading import measure_loading, measure_start, start_table
from vistok.data import PhotosConfig
from vistok.registry import build


def test_rates_of_both_and_their_ratio(tmp_path):
    from PIL import Image

    for i in range(6):
        Image.new("RGB", (20 + i, 20), (i, 9, 9)).save(tmp_path / f"{i}.jpg")
    facts = measure_loading(tmp_path, size=8, workers=1, batch=4, pictures=10, repeats=1)
    assert facts["pictures"] == 12 and facts["workers"] == 1
    assert facts["raw"] > 0 and facts["ratio"] == facts["loader"] / facts["raw"]


def test_a_start_far_in_is_timed():
    seconds = measure_start(build(PhotosConfig(size=8, count=50)).open("train"), batch=4)
    assert set(seconds) == {"start", "far", "first"} and min(seconds.values()) > 0
    ((kind, *_, ratio),) = start_table({"photos": seconds})
    assert kind == "photos" and float(ratio) > 0
