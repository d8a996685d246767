"""Which rows compare: every protocol field counts, what is compared does not."""

import pytest

from vistok.eval.results.compare import differences
from vistok.eval.results.rows import Network, Reference, Row

REFERENCE = Reference(name="imagenet", split="val", manifest="0" * 64, count=50_000)
CELL = {"alpha": 0.5, "delta": 200}
ROW = Row(
    metric="rFID", value=1.7, run="a", features=Network(name="inception", sha256="1"),
    reference=REFERENCE, count=50_000, crop="adm", filter="bicubic", size=(256, 256), length=32,
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
        (of(count=10_000), ("count",)),
        (of(crop="center", filter="box"), ("crop", "filter")),
        (of(size=(128, 128)), ("size",)),
        (
            of(sampling={"generator": {"guidance": 1.5}}, seed=1),
            ("sampling.generator.guidance", "seed"),
        ),
        (of(sampling={"generator": {"top_k": 9}}), ("sampling.generator.top_k",)),
        (of(sampling={"decoder": {"steps": 25}}), ("sampling.decoder.steps",)),
        (of(setting={"stored": 5}), ("setting.stored",)),
        (of(condition="text"), ("condition",)),
        (of(precision="bf16"), ("precision",)),
        (of(point=CELL), ("point.alpha", "point.delta")),
        (of(point={"damage": "bit_flip", "share": 0.1}), ("point.damage", "point.share")),
        (of(point={"tap": "encoder.3"}), ("point.tap",)),
    ],
)
def test_protocol_fields(other, fields):
    assert differences(ROW, other) == differences(other, ROW) == fields


def test_what_is_compared_is_no_difference():
    other = of(
        run="b", weights={"tokenizer": "9"}, value=3.91, length=256, note="x", date="y", commit="z",
        versions={"torch": "1"}, point={"codec": "JPEG"}, measured={"bytes": 99.0}, interval=(3, 4),
    )  # fmt: skip
    assert differences(ROW, other) == ()
    clipped = {"measured": {"delta": 12, "changed": 0.3, "expected": 0.4}}
    assert differences(of(point=CELL), of(point=CELL, **clipped)) == ()


def test_a_decoder_of_one_step_never_compares_with_one_of_fifty():
    one, fifty = (of(sampling={"decoder": {"steps": n, "solver": "euler"}}) for n in (1, 50))
    assert differences(one, fifty) == ("sampling.decoder.steps",)


def test_a_row_says_described_for_people_only():
    assert differences(ROW, reference(described="another folder")) == ()


def test_lists_read_from_json_are_the_tuples_they_were():
    row = of(setting={"penalties": (1.0, 0.1)})
    assert (
        differences(row, Row.model_validate(row.model_dump(mode="json", exclude={"display"}))) == ()
    )
