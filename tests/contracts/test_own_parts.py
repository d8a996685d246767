"""`vistok test-part`, and what is told of a part that lacks something: before it trains."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support import processes
from vistok.cli import main
from vistok.config import ConfigError, load_plugins, validate
from vistok.config.registry import build, entries
from vistok.contracts import Case, checks_of, run_check
from vistok.contracts import processes as two
from vistok.contracts.own import cases
from vistok.tokenizer import Tokenizer, TokenizerConfig

EXAMPLES = Path(__file__).parents[2] / "examples"
SIMVQ = (EXAMPLES / "simvq.py").read_text("utf-8")


@pytest.fixture
def own(tmp_path, monkeypatch):
    """own(*replacements): a module with SimVQ, changed, in the current folder; its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))

    def write(*changes: tuple[str, str], name: str = "my_own_vq") -> str:
        text = SIMVQ
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        Path(f"{name}.py").write_text(text, encoding="utf-8")
        return name

    return write


def simvq() -> Case:
    return Case.of(entries("quantizer")["simvq"])


def outcomes(*names: str) -> dict[str, str]:
    """{check: its text} of SimVQ's checks whose functions have these names."""
    chosen = [one for one in checks_of("quantizer") if one.run.__name__ in names]
    assert len(chosen) == len(names)
    found = [run_check(one, simvq()) for one in chosen]
    return {one.check.run.__name__: f"{one.state}: {one.text}" for one in found}


def test_every_check_of_a_good_part_is_a_line(own):
    result = CliRunner().invoke(main, ["test-part", own(), "simvq", "dim=6"])
    lines = result.stdout.splitlines()
    assert result.exit_code == 0, result.output
    assert lines[0].startswith("quantizer simvq: SimVQ in my_own_vq.py, line ")
    assert "codebook_size=16 dim=6" in lines[0]
    assert len(lines) == len(checks_of("quantizer")) + 2
    assert all(line.startswith("  ok ") for line in lines[1:-1])
    assert lines[-1].startswith(f"{len(lines) - 2} ok (")


def test_a_part_that_nothing_tests_does_not_pass(fails):
    part = next(iter(entries("vision").values()))
    with fails(ConfigError, f"vision {part.kind}: no checks of this family; expected a part of: "):
        cases([part])


def test_parts_and_checks_are_listed_and_wrong_names_are_told(own):
    call = lambda *words: CliRunner().invoke(main, ["test-part", *words])
    listed = call(own(), "--list")
    assert listed.exit_code == 0 and "  gradients reach every parameter\n" in listed.stdout
    for words, said in (
        (["my_own_vq", "simvk"], "my_own_vq: no part 'simvk'; did you mean 'simvq'?"),
        (["my_own_vq", "dimm=3"], "dimm: unknown key"),
        (["json"], "json: it registers no part; expected a class behind @register"),
        (["no_module_of_mine"], "cannot import 'no_module_of_mine'"),
    ):
        wrong = call(*words)
        assert wrong.exit_code == 1 and said in wrong.stderr, wrong.output


GRADIENT = ("straight_through(chosen.detach(), z)", "chosen.detach()")
SHARED = ("z = latents.values ", "z = latents.values - latents.values.mean(0) ")
LOST = ("chosen = self.lookup(indices)", "chosen = self.lookup(indices) * 1.1")
FARTHEST = ("near.view(*queries", "near.flip(-1).view(*queries")
UNSAVED = ('"codebook", codebook)', '"codebook", codebook, persistent=False)')
UNUSED = ("self.linear = ", "self.spare = nn.Linear(2, 2)\n        self.linear = ")
BREAKS = "        return F.embedding(indices[..., 0], self.codes())"


@pytest.mark.parametrize(
    ("change", "check", "said"),
    [
        (GRADIENT, "straight_through", "failed: .* no gradient .* expected a straight-through"),
        (SHARED, "batches", "failed: tokens of two batches differs from those of one"),
        (LOST, "lookup", r"failed: lookup\(indices\) differs from `clean` of forward"),
        (FARTHEST, "neighbours", "failed: the nearest code differs from the code of forward"),
        (UNSAVED, "saved", "failed: .*differs from"),
        (UNUSED, "gradients", "failed: quantizer.spare.weight gets no gradient .* make it a buf"),
        ((BREAKS, "        return {}['x']"), "lookup", "failed: my_own_vq.py, line .*lookup: KeyE"),
    ],
    ids=["gradient", "batch", "lookup", "neighbours", "buffer", "unused", "error"],
)
def test_a_broken_promise_says_what_was_expected(own, change, check, said):
    load_plugins(own(change))
    assert re.match(said, outcomes(check)[check]), outcomes(check)


def test_what_is_missing_says_what_cannot_run(own):
    start = SIMVQ.index("    def neighbours")
    module = own((SIMVQ[start:], ""))
    load_plugins(module)
    found = outcomes("neighbours", "perturbation")
    assert found["neighbours"] == (
        "missing: no neighbours(): latent_perturbation and pFID cannot run"
    )
    assert found["perturbation"].startswith("missing: latent perturbation was not checked")


# -- one line when it is built ---------------------------------------------------------------------


def method(name: str) -> str:
    """The source of one of SimVQ's methods."""
    start = SIMVQ.index(f"    def {name}")
    end = SIMVQ.find("\n    def ", start + 1)
    return SIMVQ[start:] if end < 0 else SIMVQ[start:end]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ((method("quantize"), ""), r"SimVQ \(my_own_vq.py, line \d+\) has no quantize\(latents"),
        ((method("lookup"), ""), r"has vocab=\(4096,\) and no lookup\(indices, keep=None\); exp"),
        (("self.loss_weights = config.loss_weights", "pass"), "sets no loss_weights; expected Map"),
        (("draws: Draws) ->", ") ->"), r"quantize\(latents\) cannot be called as quantize\(lat"),
        (("class SimVQ(Quantizer)", "class SimVQ(nn.Module)"), "is no quantizer; expected a sub"),
    ],
    ids=["quantize", "lookup", "attribute", "arguments", "base"],
)
def test_a_part_without_what_its_family_needs(own, change, said, fails):
    load_plugins(own(change))
    with fails(ConfigError, "quantizer 'simvq': ", said):
        build(entries("quantizer")["simvq"].config())


def test_a_regularizer_that_needs_neighbours_is_told_at_once(own, tree, fails):
    load_plugins(own((method("neighbours"), "")))
    config = tree() | {"quantizer": {"kind": "simvq", "dim": 4, "codebook_size": 8}}
    Tokenizer(validate(TokenizerConfig, config))
    config |= {"regularizers": [{"kind": "latent_perturbation", "neighbours": 2}]}
    with fails(ConfigError, "'latent_perturbation' replaces codes .* has no neighbours"):
        Tokenizer(validate(TokenizerConfig, config))


# -- two processes ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_statistics_of_one_process_alone_come_out(tmp_path, monkeypatch):
    """An EMA codebook keeps the contract; SimVQ with a statistic of its own share does not."""
    ours = ["vistok.quantizers.atoms.vq", "vq", str(tmp_path), "update=ema"]
    run = processes.run("vistok.contracts.processes", *ours, processes=2, folder=tmp_path)
    assert run.returncode == 0, run.stderr
    two.judge(Case.of(entries("quantizer")["vq"], ["update=ema"]), tmp_path)
    moves = "        self.codebook += latents.values.detach().mean() * self.training\n"
    text = SIMVQ.replace("        z = latents.values ", f"{moves}        z = latents.values ")
    (tmp_path / "my_own_vq.py").write_text(text, encoding="utf-8")
    mine = ["my_own_vq", "simvq", str(tmp_path)]
    run = processes.run("vistok.contracts.processes", *mine, processes=2, folder=tmp_path)
    assert run.returncode == 0, run.stderr
    monkeypatch.syspath_prepend(tmp_path)
    load_plugins("my_own_vq")
    with pytest.raises(AssertionError, match="codebook of process 0 differs from that of proc"):
        two.judge(simvq(), tmp_path)


def test_configs_that_are_tiny_are_needed(own, fails):
    load_plugins(own(("return cls(codebook_size=16, dim=4)", "return cls(codebook_sizes=16)")))
    with fails(ConfigError, r"simvq: SimVQConfig.tiny\(\) gives no config"):
        simvq()
    json.dumps(entries("quantizer")["simvq"].config().model_dump(mode="json"))
