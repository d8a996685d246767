"""`vistok eval verify` on local files in the official layout, with numbers measured once."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file

from tests.support.official import official
from tests.support.rar import official_rar
from vistok.eval.__main__ import verify as command
from vistok.eval.verify.compare import unstated, verdict
from vistok.eval.verify.run import all_presets, preset_of, settings_of, verify
from vistok.eval.verify.text import list_text
from vistok.pretrained.base import Release
from vistok.pretrained.published import SAMPLED, TITOK, PublishedProtocol
from vistok.pretrained.table import FAMILIES, releases

HERE = dataclasses.replace(TITOK, network="vistok-cnn", count=12, size=(16, 16), spread=0.0)
WORDS = ("data.kind=folder", "data.val_path=val", "model=weights")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with 12 images and the official files of a tiny TiTok."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "val").mkdir()
    ramp = np.linspace(0, 255, 24)
    for i in range(12):
        wave = 127 + 127 * np.sin(ramp[:, None] / (9 + 4 * i) + ramp[None, :20] / (40 - i))
        pixels = np.stack([wave, wave.T[:1].repeat(24, 0)[:, :20], 255 - wave], -1)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "val" / f"{i:02}.png")
    _, state, config = official("titok-pixel")
    (tmp_path / "weights").mkdir()
    save_file(state, tmp_path / "weights/model.safetensors")
    (tmp_path / "weights/config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.fixture
def publish(monkeypatch):
    """publish(family, **fields) -> `tiny` becomes one of its releases."""

    def register(family, **figures):
        kind = type(FAMILIES[family])
        release = Release("tiny", "nobody/tiny", "model.safetensors", "MIT", **figures)
        monkeypatch.setattr(kind, "releases", (*kind.releases, release))

    return register


def run(*words):
    done = CliRunner().invoke(command, ["tiny", "device=cpu", *words])
    return done.exit_code, done.output


def test_a_known_number_passes_a_changed_one_fails_by_that_much(place, publish):
    publish("titok", rfid=1.0, protocol=HERE)
    code, said = run(*WORDS)
    assert code == 3 and "tiny: fails: " in said, said
    known = float(re.search(r"measured +rFID ([0-9.]+)", said)[1])
    assert abs(known - 1) > 1
    publish("titok", rfid=round(known, 2), protocol=HERE)
    code, said = run(*WORDS)
    assert code == 0 and "tiny: passes: " in said and "not stated by the source: precision" in said
    publish("titok", rfid=round(known, 2) + 0.5, protocol=HERE)
    code, said = run(*WORDS)
    assert code == 3 and re.search(r"fails: 0\.(49|50)\d apart, 0\.005 allowed", said)
    code, said = run(*WORDS, "spread=0.6")
    assert code == 0


def test_another_protocol_is_never_a_pass(place, publish):
    publish("titok", rfid=1.0, protocol=HERE)
    known = verify(["tiny", *WORDS], "cpu")[0].row.value
    publish("titok", rfid=round(known, 2), protocol=HERE)
    for words, fields in (
        (["data.crop=adm"], ["crop"]),
        (["data.filter=bilinear"], ["filter"]),
        (["limit=6"], ["count", "real images"]),
        (["limit=6", "data.crop=adm"], ["count", "crop", "real images"]),
    ):
        found = verify(["tiny", *WORDS, *words], "cpu")[0]
        assert [one.field for one in found.differences] == fields
        assert found.outcome == "not comparable"
        code, said = run(*WORDS, *words, "spread=1000")  # however near the number is
        assert code == 4 and "not comparable" in said and all(f in said for f in fields)
    publish("titok", rfid=round(known, 2), protocol=dataclasses.replace(HERE, network="inception"))
    # The real network's weights are not here: one line says so.
    code, said = run(*WORDS)
    assert code == 1 and said.startswith("error: ") and said.count("\n") == 1
    code, said = run(*WORDS, "features=vistok-cnn")
    assert code == 4 and re.search(r"network +inception +vistok-cnn", said)
    sampled = dataclasses.replace(HERE, latents="samples")
    publish("titok", rfid=round(known, 2), protocol=sampled)
    assert run(*WORDS)[0] == 4


def test_what_is_missing_is_one_line(place, publish):
    publish("titok", rfid=1.0, protocol=HERE)
    for words, wanted in (
        ((), "no images named; give ImageNet's validation images"),
        (("data.kind=folder", "data.val_path=nowhere", "model=weights"), "nowhere"),
        (("data.kind=folder", "data.val_path=val", "model=gone"), "gone"),
        (("modle=weights",), "unknown key"),
    ):
        code, said = run(*words)
        assert code == 1 and wanted in said and said.count("\n") == 1, said


@pytest.fixture
def generator(place, monkeypatch):
    """Official files of a tiny RAR and of its tokenizer, and a file like ADM's of real images."""
    from vistok.eval.reference.files import ReferenceConfig, make_reference

    for name, (state, config) in {
        "tokens": official("maskgit_vqgan")[1:],
        "rar": official_rar(guidance_scale=3.0),
    }.items():
        (place / name).mkdir()
        torch.save(state, place / name / "weights.bin")
        (place / name / "config.json").write_text(json.dumps(config))
    data = {"kind": "folder", "val_path": "val", "path": "val", "size": 16}
    made = ReferenceConfig(data=data, out="own.npz", split="val")
    real = make_reference([], made, torch.device("cpu"))
    for name in ("VIRTUAL_imagenet256_labeled", "other"):
        np.savez(place / f"{name}.npz", mu=real.stats.mean, sigma=real.stats.cov)
    return (
        *("data.kind=folder", "data.val_path=val", "data.size=16", "model=rar"),
        *("tokenizer=tokens", "reference=VIRTUAL_imagenet256_labeled.npz"),
    )


def test_a_generator_is_measured_with_its_own_settings(generator, publish):
    how = dataclasses.replace(SAMPLED, network="vistok-cnn", count=8, size=(16, 16), spread=0.0)
    publish("rar", gfid=1.0, sampled=how)
    found, results = verify(["tiny", *generator], "cpu")
    assert found.row.metric == "gFID" and found.row.guidance == 3.0 and found.row.count == 8
    assert len(results.find("gFID")) > 1  # unguided too
    assert found.outcome == "fail" and found.unstated == ("precision", "seed")
    publish("rar", gfid=round(found.row.value, 2), sampled=how)
    assert run(*generator)[0] == 0
    for words, field in (
        (["sampling.temperature=0.5"], "generator.temperature"),
        (["gfid.guidance=[2.0]"], "generator.guidance"),
        (["gfid.samples=6"], "count"),
        (["gfid.labels=random"], "condition"),
        (["reference=own.npz"], "reference"),
        (["reference=other.npz"], "reference"),
    ):
        code, said = run(*generator, *words)
        assert code == 4 and field in said, said
    code, said = run(*[word for word in generator if not word.startswith("reference")])
    assert code == 1 and "give the file: reference=VIRTUAL_imagenet256_labeled.npz" in said


def test_every_published_rfid_has_a_preset_or_says_why_not():
    known = {p.name: p for p in all_presets()}
    for name, (family, release) in releases().items():
        figure = release.rfid if family.makes == "tokenizer" else release.gfid
        assert (figure is not None) == (name in known)
    assert [name for name, p in known.items() if p.protocol.unknown] == ["var-vqvae"]
    with pytest.raises(ValueError, match=r"var-vqvae: rFID 0\.90 cannot be verified"):
        preset_of("var-vqvae")
    with pytest.raises(ValueError, match="published no figure"):
        preset_of("retok-sb256")
    assert all(preset.protocol.source for preset in known.values())
    assert known["titok-l32"].tolerance == 0.025
    assert settings_of(known["vq_ds16_c2i"])["data"] == {
        "crop": "adm", "filter": "bicubic", "size": 256
    }  # fmt: skip
    tree = settings_of(known["llamagen-gpt-b-384"])
    assert tree["gfid"] == {
        "labels": "random", "resize": 256, "samples": 50_000, "seeds": 1
    }  # fmt: skip
    assert tree["protocols"] == ["gfid"] and tree["features"] == "inception"


def test_presets_are_settings_of_an_evaluation():
    """Every one is a config that evaluation takes."""
    from vistok.config import validate
    from vistok.config.overrides import merge
    from vistok.eval.config import EvalConfig

    for preset in all_presets():
        tree = merge({"data": {"kind": "folder"}}, settings_of(preset))
        config = validate(EvalConfig, tree)
        assert config.protocols == (("rfid",) if preset.metric == "rFID" else ("gfid",))


def test_the_list_marks_what_is_uncertain():
    said = list_text(all_presets())
    for words in (
        "cannot be verified: VAR states no protocol",
        "not checked again\n  passes within 0.055: rounding 0.005, spread 0.05\n"
        "    flextok-d12-d12-in1k  4.20\n",
        "not stated: precision\n  passes within 0.025: rounding 0.005, spread 0.02\n"
        "    titok-l32         2.21\n",
        "latents samples",
    ):
        assert words in said
    plain = PublishedProtocol("a table", network=None, split=None, count=None, size=None)
    release = Release("x", "a/b", "f", "MIT", rfid=2.0, protocol=plain)
    preset = release.published("tokenizer")
    assert unstated(preset) == (
        "network", "split", "count", "size", "crop", "filter", "condition", "precision"
    )  # fmt: skip


def test_a_reference_that_no_source_states_is_said():
    known = {preset.name: preset for preset in all_presets()}
    assert "reference" in unstated(known["var-d36"])
    assert "reference" not in unstated(known["var-d30"])


def test_a_number_that_is_not_finite_fails():
    from vistok.eval.results.rows import Reference, Row

    reference = Reference(name="v", split="val", manifest="m", count=5)
    row = Row(metric="rFID", value=None, not_finite="inf", run="x", reference=reference, count=5)
    plain = PublishedProtocol("t", network=None, split=None, count=None, size=None)
    preset = Release("x", "a/b", "f", "MIT", rfid=2.0, protocol=plain).published("tokenizer")
    found = verdict(preset, row, {})
    assert found.apart is None and found.outcome == "fail"
