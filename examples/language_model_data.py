"""Images as words of a language model: ids, special tokens, offsets, and the way back.

A language model with a vocabulary of V words gets further ids for images:

    V       <image>        begins an image
    V + 1   </image>       ends it
    V + 2 + ...            codes; each factor of a token has ids of its own

    python language_model_data.py a.jpg b.png        # vistok-128; writes sequences.jsonl
    python language_model_data.py                    # scikit-image's photographs

Each line of sequences.jsonl is {"text", "ids"}: the caption's ids first (bytes here; take your
tokenizer's), then the image. A tokenizer of flexible length writes as few tokens as you ask for.
"""

import json
import sys
from pathlib import Path

import torch
from skimage import data

from vistok import Tokenizer, Tokens

TEXT_VOCABULARY = 256  # V: bytes of UTF-8 stand for the words of your tokenizer


class ImageWords:
    """Ids of a tokenizer's codes in a language model's vocabulary.

    Args:
        first: the first id that is free, V.
    """

    def __init__(self, tokenizer: Tokenizer, first: int) -> None:
        self.spec = tokenizer.spec()
        self.begin, self.end, self.codes = first, first + 1, first + 2
        sizes = torch.tensor(self.spec.vocab)
        self.offsets = self.codes + sizes.cumsum(0) - sizes  # [F], of each factor
        self.size = 2 + sum(self.spec.vocab)  # rows to add to the language model's embedding

    def to_ids(self, tokens: Tokens) -> list[list[int]]:
        """Tokens of B images -> B lists of ids, special tokens included; kept tokens alone."""
        ids = tokens.indices.long() + self.offsets  # [B, L, F]
        rows = [one[kept].flatten().tolist() for one, kept in zip(ids, tokens.kept(), strict=True)]
        return [[self.begin, *row, self.end] for row in rows]

    def to_tokens(self, ids: list[int]) -> Tokens:
        """The image in a sequence of ids -> Tokens [1, L, F], which `decode` takes."""
        start = ids.index(self.begin) + 1
        codes = torch.tensor(ids[start : ids.index(self.end, start)])
        indices = codes.view(1, -1, len(self.spec.vocab)) - self.offsets
        if bool(((indices < 0) | (indices >= torch.tensor(self.spec.vocab))).any()):
            raise ValueError("ids of another kind between <image> and </image>")
        whole = torch.zeros(1, self.spec.length, len(self.spec.vocab), dtype=torch.long)
        whole[:, : indices.shape[1]] = indices
        tokens = Tokens.of(self.spec, whole)
        lengths = {self.spec.positions_in(n): n for n in range(1, self.spec.max_prefix + 1)}
        length = lengths[indices.shape[1]]
        return tokens if length == self.spec.max_prefix else tokens.prefix(length)


def sequences(tokenizer: Tokenizer, images: list, captions: list[str], length=None) -> list[dict]:
    """One line of training data for each image: its caption, then its tokens."""
    words = ImageWords(tokenizer, TEXT_VOCABULARY)
    tokens = tokenizer.encode(tokenizer.preprocess(images), length)
    return [
        {"text": caption, "ids": [*caption.encode("utf-8"), *ids]}
        for caption, ids in zip(captions, words.to_ids(tokens), strict=True)
    ]


def main(*files: str, model: str = "vistok-128", length: int | None = None) -> Path:
    tokenizer = Tokenizer.from_pretrained(model)
    images = list(files) or [data.chelsea(), data.coffee()]
    captions = [Path(file).stem for file in files] or ["a cat", "a cup of coffee"]
    lines = sequences(tokenizer, images, captions, length)
    out = Path("sequences.jsonl")
    out.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    print(f"wrote {out}: {len(lines)} sequences of {[len(line['ids']) for line in lines]} ids")
    back = ImageWords(tokenizer, TEXT_VOCABULARY).to_tokens(lines[0]["ids"])
    tokenizer.to_pil(tokenizer.decode(back))[0].save("first_image.png")
    return out


if __name__ == "__main__":
    main(*sys.argv[1:])
