"""rFVD: Fréchet distance between features of whole clips, reconstructed and real.

Without weights of a video network the embedded image network looks at the frames, and the number is
named after it (`FrameFeatures`); published FVDs use I3D: rfvd.features=i3d rfvd.weights=FILE.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from vistok.data.batch import to_uint8
from vistok.eval.context import Context
from vistok.eval.images import network_of
from vistok.eval.protocols.base import Job, Protocol, ProtocolConfig, Selects, register
from vistok.eval.results.rows import Row
from vistok.eval.systems.runs import System
from vistok.frozen import video_network
from vistok.metrics import FeatureStats
from vistok.metrics.video import FrameFeatures

if TYPE_CHECKING:
    from vistok.eval.config import EvalConfig


class RFVDConfig(ProtocolConfig):
    features: Literal["frames", "i3d"] = "frames"
    """Network of clips: frames (the image network over all frames) or i3d."""
    weights: Selects[str | None] = None
    """Weight file of i3d, if it is not in the usual place."""
    clips: Literal["larp", "omnitokenizer", "styleganv"] = "larp"
    """Preprocessing of clips for i3d, as that program does it."""


@register
class RFVD(Protocol):
    """Reconstruction of clips: Fréchet distance of features of whole clips (rFVD)."""

    name = "rfvd"
    media = ("video",)
    Config = RFVDConfig

    def jobs(self, system: System, config: EvalConfig) -> list[Job]:
        """One; i3d is read here, since the numbers depend on its weights and not on their path."""
        own = config.rfvd
        if own.features == "frames":
            return [Job(self, own)]
        network = video_network(own.features, own.weights, own.clips)
        return [Job(self, own.model_copy(update={"weights": None}), networks=(network,))]

    def run(self, context: Context, config: RFVDConfig) -> list[Row]:
        """rFVD at each prefix length."""
        spec, network = context.spec, FrameFeatures(context.features)
        if context.job.networks:
            network = context.job.networks[0].to(context.device)
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
