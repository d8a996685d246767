"""What an evaluation keeps is sealed: an edited number is refused or measured again, and said."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import save_file

from vistok.eval.__main__ import evaluate
from vistok.eval.reference.real import RealStats, StatsError
from vistok.eval.resumable import read_tensors, write_tensors
from vistok.storage.sealed import SEAL, sealed


@pytest.fixture
def go(runs, tmp_path):
    """go() -> (rows of rFID, output) of an evaluation whose cache lies in tmp_path/cache."""

    def run():
        report = tmp_path / "report.html"
        arguments = [str(runs[0]), "limit=4", "protocols=rfid", f"cache={tmp_path / 'cache'}"]
        done = CliRunner().invoke(evaluate, [*arguments, f"report={report}"])
        assert done.exit_code == 0, done.output
        data = json.loads((tmp_path / "results.json").read_text("utf-8"))
        return [r["value"] for r in data["rows"] if r["metric"] == "rFID"], done.output

    return run


def lower(row):
    """A row with a better number."""
    return {**row, "value": row["value"] / 2} if row["metric"] == "rFID" else row


@pytest.mark.parametrize("reseal", [False, True])
def test_an_edited_outcome_is_not_reported(go, tmp_path, caplog, reseal):
    """Unless the seal is made anew too: it shows edits, it does not keep a forger away."""
    first, _ = go()
    (path,) = (tmp_path / "cache").glob("rfid-*.json")
    data = json.loads(path.read_text("utf-8"))
    data["outcome"]["rows"] = list(map(lower, data["outcome"]["rows"]))
    if reseal:
        del data[SEAL]
    path.write_text(sealed(data) if reseal else json.dumps(data, indent=1) + "\n", "utf-8")
    again, said = go()
    if reseal:
        assert again == [value / 2 for value in first] and "found 1 of 1" in said
        return
    assert again == first and "found 0 of 1" in said
    (line,) = [one for one in caplog.messages if path.name in one]
    assert "seal does not fit" in line and "evaluated again" in line and "\n" not in line
    caplog.clear()
    third, said = go()  # the file is whole again
    assert third == first and "found 1 of 1" in said and not caplog.messages


@pytest.mark.parametrize("edit", ["tensor", "record"])
def test_edited_real_features_are_not_used(go, tmp_path, caplog, edit):
    first, _ = go()
    paths = sorted((tmp_path / "cache").glob("real-*.safetensors"))
    assert len(paths) == 2  # the images, and those of the floor
    for path in paths:
        with safe_open(str(path), "pt") as file:
            about = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if edit == "tensor":
            tensors["mean"] += 0.01
        else:
            (name,) = about
            about[name] = about[name].replace('"made"', '"mode"')
        save_file(tensors, str(path), about)
    for outcome in (tmp_path / "cache").glob("rfid-*.json"):
        outcome.unlink()
    assert go()[0] == first
    for path in paths:
        assert any(path.name in one and "seal does not fit" in one for one in caplog.messages)


def test_any_changed_bit_of_kept_tensors_shows(tmp_path, fails):
    path = tmp_path / "part.safetensors"
    tensors = {"a": torch.arange(4.0), "n": torch.tensor(3), "b": torch.tensor([True, False])}
    write_tensors(path, tensors, "pass", {"done": 2, "batch": (1, 2)})
    found, about = read_tensors(path, "pass")
    assert about == {"done": 2, "batch": [1, 2]} and all(
        torch.equal(found[k], v) for k, v in tensors.items()
    )
    whole = path.read_bytes()
    for place in (len(whole) - 1, len(whole) - 9, whole.index(b'\\"done\\"') + 10):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with fails(ValueError):
            read_tensors(path, "pass")


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_edited_reference_statistics_are_refused(context, make_tokenizer, tmp_path, ending, fails):
    found = context(make_tokenizer("fsq"), count=6)
    path = tmp_path / f"ref.{ending}"
    found.views.real(found.features).save(path)
    assert RealStats.load(path).reference.count == 6
    if ending == "npz":
        with np.load(path) as file:
            held = dict(file)
        for name, other in (
            ("mu", held["mu"] + 0.01),
            ("sigma", held["sigma"] * 2),
            ("count", np.int64(600)),
            ("protocol", np.array(str(held["protocol"]).replace('"count": 6', '"count": 9'))),
            ("protocol", np.array("[]")),
        ):
            np.savez(path, **{**held, name: other})
            with fails(StatsError, "ref.npz", "seal" if other.shape != () else "not reference"):
                RealStats.load(path)
        return
    with safe_open(str(path), "pt") as file:
        about = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    save_file({**tensors, "mean": tensors["mean"] + 0.01}, str(path), about)
    with fails(StatsError, "ref.safetensors", "seal"):
        RealStats.load(path)
