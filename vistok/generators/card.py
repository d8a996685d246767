"""The model card of a generator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vistok.storage.card import CardFacts

if TYPE_CHECKING:
    from vistok.generators.base import Generator


def generator_card(generator: Generator) -> CardFacts:
    """Facts of a generator: kind, tokens, condition, and the tokenizer that it needs."""
    spec, config, notes = generator.spec, generator.config, generator.notes
    made = generator.tokenizer.get("name") or "not recorded"
    classes = f"{generator.num_classes:,}" if generator.num_classes else "none"
    names = ", ".join(generator.classes[:8]) + ", ..." * (len(generator.classes) > 8)
    digest = generator.tokenizer.get("codes_sha256", "")
    learned = f"Learned the tokens of the tokenizer {made}"
    return CardFacts(
        title=generator.release or notes.get("run") or f"A vistok generator ({config.kind})",
        summary=f"A generator of image tokens, made with vistok (kind {config.kind}): it samples "
        f"the {spec.length:,} tokens that its tokenizer decodes.",
        tags=("image-generator", "vistok", config.kind),
        use=(
            "import torch",
            "from vistok import Condition, Generator, Tokenizer",
            "",
            "generator = Generator.from_pretrained(NAME)",
            'tokenizer = Tokenizer.from_pretrained("path/of/its/tokenizer")',
            *(
                (
                    "condition = Condition(label=torch.tensor([0]))",
                    "tokens = generator.sample(condition, index=torch.arange(1))",
                )
                if generator.num_classes
                else ("tokens = generator.sample(index=torch.arange(1))",)
            ),
            "images = tokenizer.to_pil(tokenizer.decode(tokens))",
        ),
        table={
            "kind": config.kind,
            **spec.described(),
            "classes": f"{classes} ({names})" if names else classes,
            "tokenizer": made,
            "parameters": f"{sum(p.numel() for p in generator.parameters()):,}",
        },
        weights=(
            *generator.origin_lines(),
            f"{learned} (hash of its weights: {digest[:12]})." if digest else f"{learned}.",
        ),
        config=config.model_dump(mode="json"),
        license=", ".join(generator.licenses) or None,
        notes=notes,
    )
