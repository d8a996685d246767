"""Which rows compare: every protocol field counts, what is compared does not."""

import pytest

from vistok.eval.results.compare import differences
from vistok.eval.results.rows import Damage, Decode, Network, Perturbation, Reference, Row

REFERENCE = Reference(name="imagenet", split="val", manifest="0" * 64, count=50_000)
CELL = Perturbation(alpha=0.5, delta=200, delta_asked=200, changed=0.4, expected=0.49)
ROW = Row(
    metric="rFID", value=1.7, run="a", features=Network(name="inception", sha256="1"),
    reference=REFERENCE, samples=50_000, crop="adm", filter="bicubic", size=(256, 256), length=32,
)  # fmt: skip


def of(**changes) -> Row:
    return ROW.model_copy(update=changes)


def reference(**changes) -> Row:
    return of(reference=REFERENCE.model_copy(update=changes))


@pytest.mark.parametrize(
    ("other", "fields"),
    [
        (of(metric="gFID"), ("metric",)),
        (of(features=Network(name="inception", sha256="2")), ("features.sha256",)),
        (of(features=Network(name="dino", sha256="1")), ("features.name",)),
        (of(features=None), ("features.name", "features.sha256")),
        (reference(name="cifar10"), ("reference.name",)),
        (reference(split="train", manifest="2"), ("reference.split", "reference.manifest")),
        (reference(count=10_000), ("reference.count",)),
        (of(samples=10_000), ("samples",)),
        (of(crop="center", filter="box"), ("crop", "filter")),
        (of(size=(128, 128)), ("size",)),
        (of(decode=Decode(guidance=1.5, seed=1)), ("decode.guidance", "decode.seed")),
        (of(decode=Decode(temperature=0.9)), ("decode.temperature",)),
        (of(decode=Decode(top_k=9, top_p=0.5)), ("decode.top_k", "decode.top_p")),
        (of(condition="text"), ("condition",)),
        (of(precision="bf16"), ("precision",)),
        (of(perturbation=CELL), ("perturbation",)),
        (of(damage=Damage(kind="bit_flip", share=0.1)), ("damage",)),
        (of(tap="encoder.3"), ("tap",)),
    ],
)
def test_protocol_fields(other, fields):
    assert differences(ROW, other) == differences(other, ROW) == fields


def test_what_is_compared_is_no_difference():
    other = of(
        run="b", weights="9", value=3.91, length=256, decode=Decode(steps=256), note="x", date="y",
        commit="z", versions={"torch": "1"}, codec="JPEG", bytes=99.0,
    )  # fmt: skip
    assert differences(ROW, other) == ()
    clipped = CELL.model_copy(update={"delta": 12, "changed": 0.3, "expected": 0.4})
    assert differences(of(perturbation=CELL), of(perturbation=clipped)) == ()


def test_a_row_says_described_for_people_only():
    assert differences(ROW, reference(described="another folder")) == ()
