"""rFVD: Fréchet distance between features of whole clips, reconstructed and real.

Without weights of a video network the embedded image network looks at the frames, and the number is
named after it (`FrameFeatures`); published FVDs use I3D: rfvd.features=i3d rfvd.weights=FILE.
"""

from __future__ import annotations

from typing import Literal

from vistok.eval.context import Context
from vistok.eval.images import network_of, to_uint8
from vistok.eval.protocols.base import Protocol, ProtocolConfig, register
from vistok.eval.results.rows import Row
from vistok.frozen import video_network
from vistok.metrics import FeatureStats
from vistok.metrics.video import FrameFeatures


class RFVDConfig(ProtocolConfig):
    features: Literal["frames", "i3d"] = "frames"
    """Network of clips: frames (the image network over all frames) or i3d."""
    weights: str | None = None
    """Weight file of i3d, if it is not in the usual place."""
    clips: Literal["larp", "omnitokenizer", "styleganv"] = "larp"
    """Preprocessing of clips for i3d, as that program does it."""


@register
class RFVD(Protocol):
    """Reconstruction of clips: Fréchet distance of features of whole clips (rFVD)."""

    name = "rfvd"
    media = ("video",)
    Config = RFVDConfig

    def run(self, context: Context, config: RFVDConfig) -> list[Row]:
        """rFVD at each prefix length."""
        spec, network = context.spec, FrameFeatures(context.features)
        if config.features == "i3d":
            network = video_network("i3d", config.weights, config.clips).to(context.device)
        real = FeatureStats(network.dim, context.device)
        decoded = {k: FeatureStats(network.dim, context.device) for k in spec.eval_lengths}
        for batch in context.batches(f"{context.run.name}: clips", [real, decoded]):
            condition = context.condition(batch)
            tokens = context.encode(batch, condition)
            real.update(network(to_uint8(batch.pixels)))
            for length, stats in decoded.items():
                cut = tokens if length == spec.max_prefix else tokens.prefix(length)
                stats.update(network(to_uint8(context.decode(cut, condition, batch.index))))
        whole = real.reduce()
        return [
            context.frechet_row(
                "rFVD", stats.reduce(), against=whole, length=length, features=network_of(network)
            )
            for length, stats in decoded.items()
        ]
