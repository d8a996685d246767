"""Results of an earlier evaluation are shown beside new ones."""

from vistok.config import validate
from vistok.eval.config import EvalConfig
from vistok.eval.measure import evaluate
from vistok.eval.results.rows import Results
from vistok.tokenizer import Tokenizer, TokenizerConfig


def test_rows_are_taken_over_as_they_are(runs, tmp_path, tree, fails):
    options = EvalConfig(protocols=("rfid", "image_grids"), limit=6)
    first = evaluate(runs[:1], options)
    first.save(tmp_path / "first.json")
    other = tmp_path / "other"
    Tokenizer(validate(TokenizerConfig, tree("vq"))).save_pretrained(other)
    data = {"kind": "photos", "size": 8, "val_count": 24}
    options = EvalConfig(protocols=("rfid", "image_grids"), limit=6, data=data)
    both = evaluate([other, tmp_path / "first.json"], options)
    assert [run["name"] for run in both.runs] == ["other", "tok"]
    assert both.find("rFID", "tok") == first.find("rFID", "tok")
    assert both.facts["codebook"].keys() == {"tok", "other"} == both.facts["data"].keys()
    assert {grid["run"] for grid in both.facts["image_grids"]} == {"tok", "other"}
    both.save(tmp_path / "both.json")
    assert evaluate([tmp_path / "both.json"], options) == Results.load(tmp_path / "both.json")
    with fails(ValueError, "two results hold a run named 'tok'"):
        evaluate([runs[0], tmp_path / "first.json"], options)
    with fails(ValueError, "nothing.json"):
        evaluate([runs[0], tmp_path / "nothing.json"], options)
