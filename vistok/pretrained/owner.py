"""The tokenizer whose tokens a generator learned."""

from __future__ import annotations

from vistok.config.errors import InputError
from vistok.generators import Generator
from vistok.pretrained.identity import identify
from vistok.storage.lineage import pairing
from vistok.tokenizer import Tokenizer
from vistok.tokens import TokenSpec


def owner_of(name: str, model: Generator, given: str | None = None) -> tuple[Tokenizer, str]:
    """(the tokenizer whose tokens a generator learned, what to say of it): `given`, else where its
    record says it is.

    InputError for another one, as its weights tell: it would decode noise.
    """
    made_by = model.tokenizer.get("name")
    if given is None and not made_by:
        raise InputError(f"{name}: it does not say whose tokens it learned; name the tokenizer too")
    try:
        owner, identity = identify(given or made_by)
    except ValueError as error:
        if given is not None:
            raise
        raise InputError(f"{name}: its tokenizer: {error}; or name the tokenizer too") from None
    pair = pairing(model.tokenizer, identity)
    if given is None and pair.refused:
        raise InputError(
            f"{name}: it learned tokens of other weights than {made_by} has now ({pair.text}); "
            "name the tokenizer too"
        )
    if pair.refused:
        raise InputError(
            f"{given}: not the tokenizer whose tokens {name} learned: {pair.text}; it would decode "
            f"noise: name the one that was {made_by or 'its tokenizer'} then"
        )
    if owner.spec() != model.spec:
        raise InputError(
            f"{given or made_by}: its tokens are {_tokens(owner.spec())}, those of {name} "
            f"{_tokens(model.spec)}; name the tokenizer whose tokens it learned"
        )
    return owner, f"{given or made_by}: {pair.text}" if pair.text else ""


def _tokens(spec: TokenSpec) -> str:
    blocks = ", ".join("x".join(map(str, block)) for block in spec.blocks[:4])
    more = ", ..." if len(spec.blocks) > 4 else ""
    vocab = " x ".join(map(str, spec.vocab[:4])) + (" x ..." if len(spec.vocab) > 4 else "")
    return f"blocks {blocks}{more} of vocabulary {vocab or 'continuous'} (prefix {spec.prefix})"
