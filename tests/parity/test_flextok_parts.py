"""FlexTok's parts against apple/ml-flextok: lengths, noising, times, guidance, tables, masks."""

import torch

from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.layers.fitted_positions import scrambled_sincos
from vistok.layers.flow import path
from vistok.layers.flow.guidance import Guidance, GuidanceConfig
from vistok.layers.masks import causal_last
from vistok.layers.modulation import TimeEmbedding
from vistok.regularizers.nested_dropout import NestedDropout, NestedDropoutConfig
from vistok.tokens import TokenSpec

CASE = "flextok_parts"
SAMPLES = 20000


def test_lengths(recording):
    """Frequencies within 4 sigma of the recorded ones, and the overwriting by the mask token."""
    io, count = recording.io, recording.config["N"]
    modes = [name.removesuffix(".hist") for name in io if name.endswith(".hist")]
    assert modes
    for mode in modes:
        x, keep = io[f"{mode}.x"], io[f"{mode}.keep_k"]
        shown = torch.arange(x.shape[1])[None] < keep[:, None]
        recording.close(torch.where(shown[..., None], x, io[f"{mode}.mask_token"]), f"{mode}.out")
        theirs = io[f"{mode}.hist"].double()
        # A length above N keeps as much as N does; ours are cut there.
        theirs = torch.cat([theirs[:count], theirs[count:].sum()[None]])
        total = theirs.sum()
        part = NestedDropout(NestedDropoutConfig(lengths=mode))
        spec = TokenSpec(blocks=((count,),), vocab=(4,), prefix="token")
        part.check(spec)
        drawn = part.draw(spec, torch.arange(SAMPLES), Rng(0, mode), Progress(0, 1)).keep
        ours = torch.bincount(drawn, minlength=count + 1).double()
        p = (ours + theirs) / (SAMPLES + total)
        sigma = (p * (1 - p) * (1 / SAMPLES + 1 / total)).sqrt()
        assert ((ours / SAMPLES - theirs / total).abs() <= 4 * sigma + 1e-12).all(), mode


def test_noising_and_times(recording):
    io = recording.io
    found = path.interpolate(io["rf.clean"], io["rf.noise"], io["rf.sigma"])
    recording.close(found, "rf.noised")
    scale = recording.config.get("mode_scale", 0.25)
    said = recording.case["tensors"]["mode.sigma"]["meaning"].split("mode-scale ")
    if len(said) > 1:
        scale = float(said[1].split()[0])
    config = path.TimeConfig(kind="mode", mode_scale=scale)
    recording.close(path.sample_times(io["mode.u"], config), "mode.sigma")
    channels = io["time.sinusoid"].shape[1]
    waves = TimeEmbedding(4, channels, 256.0, 1000.0, scale_frequencies=True).waves(io["time.t"])
    recording.close(waves, "time.sinusoid")


def test_guidance(recording):
    io, apg = recording.io, recording.config["apg"]
    guide = Guidance(GuidanceConfig(kind="apg", **apg))
    plain = Guidance(GuidanceConfig(scale=apg["scale"]))
    steps = [name.removeprefix("apg.out") for name in io if name.startswith("apg.out")]
    assert steps
    for step in sorted(steps, key=int):
        both = io[f"apg.cond{step}"], io[f"apg.uncond{step}"]
        recording.close(guide(*both), f"apg.out{step}")
        recording.close(plain(*both), f"apg.cfg{step}")


def test_tables_and_masks(recording):
    io = recording.io
    tables = [name for name in io if name.startswith("sincos_")]
    assert tables
    for name in tables:
        h, w = io[name].shape[-2:]
        table = scrambled_sincos((h, w), io[name].shape[1])
        recording.close(table.permute(2, 0, 1)[None], name)
    packed = io["mask.prefix"].bool()
    first = 0
    while first < len(packed) and packed[first].any():
        # A sequence of the packed ones: its first row sees the patches, its last row everything.
        patches = int(packed[first].sum())
        whole = int(packed[:, first].sum())
        rows = slice(first, first + whole)
        assert torch.equal(packed[rows, rows], causal_last(patches, whole - patches))
        assert not packed[rows, : rows.start].any() and not packed[rows, rows.stop :].any()
        first += whole
    assert first and not packed[first:].any()
