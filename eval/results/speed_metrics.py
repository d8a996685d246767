"""Records of the numbers of `vistok eval speed`; `metrics.py` has the table of all others."""

from __future__ import annotations

from vistok.eval.results.metric import Metric

# Names end in what they are: encode-images/s, decode-FLOP/s, ...
ENDINGS = (
    Metric("FLOP/s", unit="G", digits=2, scale=1e9),
    Metric("peak-GB", digits=3),
    Metric("share", unit="%", digits=1, scale=0.01),
    Metric("data-wait", unit="%", digits=1, scale=0.01),
    Metric("seconds", unit="s", digits=3),
    Metric("ratio", digits=2),
    Metric("/s", digits=1),
    Metric("gain", digits=1),
    Metric("passes", digits=1),
)
