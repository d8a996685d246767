"""Token caches keep scores, and the empty text once."""

import torch

from vistok.core.records import Condition
from vistok.data import EvalLoader, TokenCache
from vistok.data.kinds.tokens import CachedTokens, CachedTokensConfig
from vistok.data.token_cache import ArraySpec
from vistok.data.token_cache_writer import TokenCacheWriter
from vistok.tokens import Tokens, TokenSpec

SPEC = TokenSpec(blocks=((2,),), vocab=(4,))


def test_scores_and_the_empty_text(tmp_path):
    mask = torch.tensor([[True, True, False]] * 4)
    text, pooled, score = torch.randn(4, 3, 2), torch.randn(4, 5), torch.rand(4)
    condition = Condition(text=text, text_mask=mask, pooled=pooled, score=score)
    empty = Condition(text=text[:1] + 1, text_mask=~mask[:1], pooled=pooled[:1] + 1)
    arrays = {
        name: ArraySpec.of(getattr(condition, name))
        for name in ("text", "text_mask", "pooled", "score")
    }
    facts = {"source": {"kind": "made"}, "tokenizer": "made", "sha256": "0" * 64}
    with TokenCacheWriter(tmp_path, SPEC, 4, arrays=arrays, empty=empty, **facts) as writer:
        writer.write(Tokens.of(SPEC, torch.zeros(4, 2, 1, dtype=torch.long)), None, condition)
    found = TokenCache(tmp_path).empty_text()
    assert torch.equal(found.text, empty.text) and torch.equal(found.pooled, empty.pooled)
    assert torch.equal(found.text_mask, empty.text_mask) and found.score is None
    data = CachedTokens(CachedTokensConfig(path=str(tmp_path))).open("train", augment=False)
    assert data.features.keys() == arrays.keys() and data.empty_text is not None
    batch = next(iter(EvalLoader(data, 4)))
    assert torch.equal(batch.condition.score, score) and torch.equal(batch.condition.text, text)
