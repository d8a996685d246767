"""Damaged metadata of a run is one line that names file and key; it never changes a number."""

import json

import pytest
import yaml
from click.testing import CliRunner

from vistok.config import ConfigError, to_yaml, validate
from vistok.eval.__main__ import evaluate
from vistok.eval.results.rows import Results
from vistok.eval.systems.runs import RunError, open_data, resolve
from vistok.train.config import TrainConfig


@pytest.fixture
def edited(runs):
    """edited(**changes) -> the two runs, with other keys in the generator's config.json."""

    def make(**changes):
        path = runs[1] / "model" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}))
        return runs

    return make


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"class_names": "astronaut"}, ("class_names='astronaut'", "list of texts")),
        ({"class_names": "abcdefg"}, ("class_names='abcdefg'",)),  # as many letters as classes
        ({"class_names": ["a", "b", "c"]}, ("3 class_names", "condition.classes=7")),
        ({"class_names": ["a"] * 8}, ("8 class_names", "condition.classes=7")),
        ({"class_names": [1, 2, 3, 4, 5, 6, 7]}, ("class_names", "list of texts")),
        ({"class_names": {"a": 1}}, ("class_names", "list of texts")),
        ({"class_names": ""}, ("class_names=''",)),
        ({"class_names": 7}, ("class_names='7'",)),
        ({"tokenizer": {"name": "tok"}}, ("sha256",)),
        ({"tokenizer": "tok"}, ("sha256",)),
        ({"tokenizer": None}, ("sha256",)),
    ],
)
def test_a_generators_classes_and_tokenizer(edited, changes, words):
    arguments = [*map(str, edited(**changes)), "limit=4", "protocols=gfid", "gfid.seeds=1"]
    done = CliRunner().invoke(evaluate, arguments)
    (line,) = done.output.strip().splitlines()
    assert done.exit_code == 1 and line.startswith("error: "), done.output
    assert "gen" in line and all(word in line for word in words), line


def test_a_generator_may_have_classes_without_names(edited):
    (system,) = resolve(edited(class_names=[]))
    assert system.generators[0].generator.classes == ()


@pytest.fixture
def written(runs, tree):
    """The tokenizer's run with the config that training writes; its lines."""
    config = {
        "name": "tok",
        "task": {"kind": "tokenizer", "tokenizer": tree("fsq")},
        "data": {"kind": "photos", "size": 8, "val_count": 24},
    }
    path = runs[0] / "config.yaml"
    path.write_text(to_yaml(validate(TrainConfig, config)), encoding="utf-8")
    return path, path.read_text("utf-8").splitlines(keepends=True)


def test_a_config_that_was_cut_is_refused(runs, written, fails):
    """Wherever it was cut, unless only the last list of trackers is shorter."""
    path, lines = written
    assert len(open_data(resolve([runs[0]])[0].tokenizer)) == 24
    ends = [i for i, line in enumerate(lines) if i > 1 and not line.startswith("- ")]
    for end in ends[:: max(1, len(ends) // 25)]:
        path.write_text("".join(lines[:end]), encoding="utf-8")
        with fails(RunError, "config.yaml"):
            resolve([runs[0]])


def test_a_config_that_lost_a_key_of_its_data_is_refused(runs, written, fails):
    path, lines = written
    (place,) = [i for i, line in enumerate(lines) if line.startswith("  val_count:")]
    path.write_text("".join(lines[:place] + lines[place + 1 :]), encoding="utf-8")
    with fails(RunError, "config.yaml", "data.val_count"):
        resolve([runs[0]])


def test_a_config_that_is_no_config_is_one_line(runs, fails):
    for text in ("- 1\n", "data: 5\n", "a: [\n", "\x00", "5\n"):
        (runs[0] / "config.yaml").write_text(text)
        with fails(RunError, "config.yaml"):
            resolve([runs[0]])


def test_what_json_cannot_hold_is_text(runs, tmp_path):
    """Numbers that are not finite, and dates."""
    config = "data: {kind: photos, size: 8, val_count: 4}\nclip: .inf\nx: [.nan, 2026-01-01]\n"
    (runs[0] / "config.yaml").write_text(config)
    line = '{"step": 1, "split": "train", "loss": %s}\n'
    (runs[0] / "metrics.jsonl").write_text("".join(line % n for n in ("NaN", "1e999", "2.0")))
    report = tmp_path / "report.html"
    done = CliRunner().invoke(evaluate, [str(runs[0]), "protocols=rfid", f"report={report}"])
    assert done.exit_code == 0, done.output
    (run,) = Results.load(tmp_path / "results.json").runs
    assert run["config"]["clip"] == "inf"
    assert run["config"]["x"] == ["nan", "2026-01-01"]
    assert [one["loss"] for one in run["history"]] == [None, None, 2.0]


def test_a_run_without_data_says_so(runs, fails):
    (runs[0] / "config.yaml").write_text(yaml.safe_dump({"name": "tok"}))
    with fails(RunError, "its config.yaml names no data"):
        open_data(resolve([runs[0]])[0].tokenizer)
    assert issubclass(RunError, ValueError) and not issubclass(RunError, ConfigError)
