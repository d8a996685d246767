"""The one config of an evaluation: command line, files, help; metrics are one table."""

import json

import pytest
from click.testing import CliRunner

from vistok.cli import main
from vistok.config import ConfigError
from vistok.eval.__main__ import COMMANDS, evaluate
from vistok.eval.config import EvalConfig, read_config, split_arguments
from vistok.eval.protocols.base import PROTOCOLS, Job, Protocol, register, setting_of
from vistok.eval.results.metrics import METRICS, metric, names, order, ranked, shown


def test_arguments_are_runs_or_keys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "limit=3").mkdir()
    arguments = [
        "runs/a",
        "limit=3",
        "pfid.mode=quick",
        "data.size=8",
        "a=b/c/run",
        "config=x.yaml",
    ]
    with pytest.raises(ConfigError, match="a: unknown key"):
        split_arguments(EvalConfig, arguments)
    (tmp_path / "a=b/c/run").mkdir(parents=True)
    runs, keys = split_arguments(EvalConfig, arguments)
    assert runs == ["runs/a", "limit=3", "a=b/c/run"]  # a path that exists always is a run
    assert keys == ["pfid.mode=quick", "data.size=8", "config=x.yaml"]
    assert split_arguments(EvalConfig, ["runs/a=b"]) == (["runs/a=b"], [])


def test_a_file_lies_under_the_command_line(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("limit: 9\npfid: {mode: quick}\ngfid: {samples: 5}\ndata: {size: 8}\n")
    found = read_config(EvalConfig, ["gfid.guidance=2", f"config={path}", "limit=4"])
    assert (found.limit, found.pfid.mode, found.gfid.samples) == (4, "quick", 5)
    assert found.gfid.guidance == (2.0,) and found.data == {"size": 8}
    assert EvalConfig.model_validate(found.model_dump(mode="json")) == found


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("limt=3", ("limt", "did you mean 'limit'")),
        ("pfid.mod=quick", ("pfid.mod", "mode")),
        ("pfid.mode=some", ("pfid.mode", "some", "quick")),
        ("protocols=[rfdi]", ("rfdi", "rfid")),
        ("allow_mismatch=colour", ("colour", "crop")),
        ("rfid.metrics=[fad]", ("fad", "kid")),
        ("sampling.guidance=3", ("sampling", "use gfid.guidance=[3]")),
        ("gfid.guidance=[-1]", ("gfid.guidance", "0 or more")),
        ("report=x.pdf", ("report", ".html")),
        ("limit=1", ("limit", "2")),
    ],
)
def test_mistakes_name_key_value_and_what_is_expected(argument, words):
    with pytest.raises(ConfigError) as caught:
        read_config(EvalConfig, split_arguments(EvalConfig, [argument])[1])
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_prints_every_key(flag):
    said = CliRunner().invoke(evaluate, [flag]).output
    for name, protocol in PROTOCOLS.items():
        assert f"  {name}.*: " in said or not protocol.Config.model_fields
        for key, field in protocol.Config.model_fields.items():
            assert f"  {name}.{key}: " in said and field.description, (name, key)
    for key, field in EvalConfig.model_fields.items():
        assert f"  {key}" in said and field.description, key
    assert "limit: int or null = null" in said and "pfid.mode: full|quick|" in said
    assert "|none = both" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_the_other_commands(name):
    said = CliRunner().invoke(COMMANDS[name], ["-h"])
    assert said.exit_code == 0 and "Keys:" in said.output
    key = {"leaderboard": "out", "verify": "model"}.get(name, "data")
    assert f"  {key}" in said.output.partition("Keys:")[2]


def test_a_row_carries_how_a_number_is_measured_not_which():
    assert setting_of(PROTOCOLS["pfid"].Config(mode="quick")) == {}
    assert setting_of(PROTOCOLS["gfid"].Config(samples=9)) == {}
    found = setting_of(PROTOCOLS["linear_probe"].Config(train_images=7))
    assert found["train_images"] == 7 and set(found) == {"train_images", "penalties", "steps"}


def test_a_protocol_is_a_class_with_a_name(monkeypatch):
    monkeypatch.setattr("vistok.eval.protocols.base.PROTOCOLS", PROTOCOLS.copy())

    class Mine(Protocol):
        """A protocol."""

        name = "rfid"

        def run(self, context, config):
            return []

    with pytest.raises(ValueError, match="two protocols are named 'rfid'"):
        register(Mine)
    (job,) = Mine().jobs(None, EvalConfig())
    assert isinstance(job, Job) and job.config == EvalConfig().rfid


def test_metrics_are_one_table():
    assert all(one.help and one.heading for one in METRICS.values())
    assert ranked("tile")[:2] == ("PSNR", "rFID") and "perceptual" in ranked("curve")
    for place in ("tile", "curve"):
        ranks = [getattr(one, place) for one in METRICS.values() if getattr(one, place)]
        assert len(ranks) == len(set(ranks))
    assert names(lambda one: one.predicts == "y") == ("gFID", "gFID-val")
    assert order("rFID") < order("PSNR") < order("gFID-untrained") < order("unknown")
    assert metric("PSNR").heading == "PSNR (dB)" and metric("new").heading == "new"
    assert shown(float("inf"), "PSNR") == "∞" and shown(21.456, "PSNR") == "21.46"
    assert shown(float("-inf"), "PSNR") == "-∞" and shown(float("nan"), "PSNR") == "NaN"
    assert shown(None, "PSNR") == "n/a"  # not measured
    assert shown(1e-6, "KID") == "1.0e-06" and shown(0.4321, "encode-share") == "43.2"
    assert shown(2.5e9, "train-FLOP/s") == "2.50" and metric("train-FLOP/s").unit == "G"


def test_parts_and_protocols_are_listed():
    for words, name in ((["parts", "quantizers"], "quantizer fsq"), (["protocols"], "rfid")):
        result = CliRunner().invoke(main, ["list", *words, "--json"])
        rows = json.loads(result.output)
        assert name in [row["name"] for row in rows]
        assert not [row["name"] for row in rows if not row["about"]]
    text = CliRunner().invoke(main, ["list", "fsq"]).output
    assert "parts:" in text and "quantizer fsq" in text and "metrics:" not in text
