"""What an unknown key could have meant: its neighbors, other levels, other kinds, other words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from vistok.config.names import close
from vistok.config.schema_nodes import Node, Schema, form_of
from vistok.config.words import listed

OTHER_WORDS = {
    "lr": ("learning_rate", "base_lr", "max_lr"),
    "batch_size": ("batch", "bs", "global_batch_size", "train_batch_size", "batchsize"),
    "steps": (
        *("max_steps", "num_steps", "iterations", "iters", "max_iters", "train_steps"),
        *("total_steps", "epochs", "num_epochs", "max_epochs", "n_epochs", "training_steps"),
    ),
    "accumulate": ("gradient_accumulation_steps", "grad_accum", "gradient_accumulation"),
    "warmup": ("warmup_steps", "lr_warmup", "warmup_iters", "num_warmup_steps"),
    "final_lr": ("min_lr", "end_lr", "lr_min"),
    "clip": ("grad_clip", "max_grad_norm", "clip_grad", "gradient_clip_val", "grad_norm"),
    "ema": ("ema_decay", "ema_rate", "use_ema"),
    "precision": ("mixed_precision", "dtype", "amp", "fp16", "bf16"),
    "workers": ("num_workers", "n_workers", "loader_workers"),
    "out": ("output", "output_dir", "out_dir", "save_dir", "log_dir", "folder", "dir"),
    "trackers": ("logger", "wandb", "tensorboard", "report_to", "loggers"),
    "save_every": ("save_steps", "checkpoint_every", "ckpt_every", "save_interval", "save_freq"),
    "validate_every": (
        *("eval_every", "val_every", "eval_steps", "val_interval", "eval_interval"),
        *("validate", "validation", "val", "eval"),
    ),
    "log_every": ("log_steps", "log_interval", "logging_steps"),
    "keep_last": ("save_total_limit", "max_checkpoints"),
    "resume": ("resume_from", "checkpoint", "resume_from_checkpoint", "load_from"),
    "compile": ("torch_compile", "use_compile"),
    "image_size": ("size", "resolution", "img_size", "imgsz", "input_size", "crop_size"),
    "size": ("image_size", "resolution", "img_size", "patch_size", "crop_size"),
    "codebook_size": ("vocab_size", "n_embed", "num_embeddings", "num_codes", "n_e", "vocab", "K"),
    "dim": ("code_dim", "codebook_dim", "embed_dim", "embedding_dim", "latent_dim", "z_channels"),
    "latents.count": ("num_tokens", "num_latents", "num_latent_tokens", "tokens", "n_tokens"),
    "patches.size": ("patch_size", "patch"),
    "width": ("hidden_size", "d_model", "embed_dim", "hidden_dim", "n_embd", "dim"),
    "depth": ("num_layers", "n_layers", "layers", "n_layer", "num_hidden_layers"),
    "heads": ("num_heads", "n_heads", "n_head", "num_attention_heads"),
    "sampling": ("temperature", "top_k", "top_p"),
    "guidance": ("cfg", "cfg_scale", "guidance_scale"),
    "tokenizer": ("model", "vae", "vqgan"),
    "data": ("dataset", "train_data", "data_path", "datasets"),
    "path": ("root", "folder", "dir", "data_dir", "data_path", "train_path", "train_dir"),
    "losses": ("loss", "criterion"),
    "weight_decay": ("wd",),
    "betas": ("beta1", "beta2", "adam_betas"),
    "kind": ("type", "name", "class", "target", "_target_"),
    "batch": ("batch_size", "bs"),
    "limit": ("max_samples", "num_samples", "count", "max_images", "n"),
    "protocols": ("metrics", "metric", "protocol", "evals"),
    "report": ("out", "output", "html"),
    "features": ("feature_network", "inception", "feature_extractor"),
}
"""Key of vistok -> what other programs call it."""

OTHER_KINDS = {
    "adamw": ("adam", "lion"),
    "reconstruction": ("l1", "l2", "mse", "mae", "recon", "pixel"),
    "perceptual": ("lpips", "vgg"),
    "adversarial": ("gan", "discriminator", "hinge", "patchgan"),
    "alignment": ("repa", "dino", "vf"),
    "folder": ("imagenet", "imagefolder", "images", "image_folder", "dataset", "directory"),
    "webdataset": ("wds", "tar", "tars", "shards"),
    "huggingface": ("hf", "datasets", "hub"),
    "video": ("videos", "clips"),
    "autoregressive": ("gpt", "ar", "llamagen", "transformer", "causal"),
    "masked": ("maskgit", "muse", "mask", "maskgen"),
    "next_scale": ("var",),
    "random_order": ("rar",),
    "flow_ar": ("xar", "mar", "flow_matching", "continuous_ar"),
    "neighbouring": ("nar", "neighboring"),
    "vq": ("vqvae", "vqgan", "vector_quantize", "ema_vq", "simvq", "codebook"),
    "residual": ("rvq", "residual_vq", "rq"),
    "lfq": ("bsq", "magvit2"),
    "kl": ("vae", "none", "continuous", "gaussian"),
    "cnn": ("conv", "resnet", "vqgan", "unet"),
    "vit": ("transformer", "titok", "dit"),
    "tokenizer": ("train", "vae", "autoencoder", "vqgan"),
    "generator": ("gpt", "lm", "sample"),
    "nested_dropout": ("nested", "dropout", "matryoshka"),
}
"""Kind of a part -> what other programs call it."""

_FAMILIES = ("quantizer", "generator", "encoder", "decoder", "data", "optimizer", "task")
_NEIGHBORS = 20  # names of one level that stand beside a suggestion
_LIKE, _HARDLY = 0.75, 0.6  # how much names look alike


def unknown_key(
    schema: Schema, tree: Any, path: Sequence[str | int], value: Any, prefix: Sequence[Any] = ()
) -> str:
    """The end of an error about an unknown key: what it could have meant, and the valid names.

    Args:
        path: of the key inside `tree`; `prefix`: of `tree` inside the whole config.
    """
    *parents, key = path
    key = str(key)
    node, data = _walk(schema, tree, parents)
    form = schema.mapping(node, data) if node is not None else None
    here = [name for name in form["properties"] if name != "base"] if form else []
    hint = _hint(schema, tree, (tuple(parents), key, value, tuple(prefix)), here, node, data)
    if not here or (hint and len(here) > _NEIGHBORS):
        return hint
    return f"{hint}{'' if hint[-1:] in ('?', '') else ';'} valid: {', '.join(here)}".strip()


def other_kind(kind: str, valid: Iterable[str]) -> list[str]:
    """The valid kinds that other programs call so."""
    return [name for name in valid if kind.lower() in OTHER_KINDS.get(name, ())]


def _hint(
    schema: Schema,
    tree: Any,
    asked: tuple[tuple, str, Any, tuple],
    here: list[str],
    node: Node | None,
    data: Any,
) -> str:
    parents, key, value, prefix = asked
    like = close(key, here, _LIKE)
    if like:
        return f"did you mean '{like}'?"
    meant = [name for name, others in OTHER_WORDS.items() if key.lower() in others]
    for name in meant:
        if name in here:
            below = form_of(schema.resolve(schema.below(node, name, data))) == "object"
            return f"did you mean '{name}{f'.{key}' if below and name == 'sampling' else ''}'?"
    places = list(_places(schema, schema.root, tree))
    inside = [(place, inner) for place, inner in places if place[: len(parents)] == parents]
    for name in (key, *meant):
        found = _best(schema, inside, name, parents, value) if parents else []
        if found:
            return f"did you mean {listed([_text(prefix, one) for one in found])}?"
    family = schema.family(node) if node is not None else None
    if family is not None:
        having = _kinds_with(schema, family, (key, *meant))
        if having:
            kind = data.get("kind") if isinstance(data, Mapping) else None
            name, kinds = having
            whole = f"{_text(prefix, parents)[1:-1]}={{kind: {kind}}}"
            return (
                f"`{name}` is a key of {listed(kinds)}, and this {family['x-family']} is {kind}: "
                f"leave it out, or give the whole mapping, such as {whole}"
            )
    names = {place[-1] for place, _ in places}
    for name in filter(None, (key, *meant, close(key, names, _LIKE))):
        found = _best(schema, places, name, parents, value)
        if found:
            return f"did you mean {listed([_text(prefix, one) for one in found])}?"
    for place, inner in sorted(places, key=lambda one: _rank(schema, one[1])):
        family = schema.family(inner)
        having = _kinds_with(schema, family, (key, *meant)) if family is not None else None
        if having:
            name, kinds = having
            _, part = _walk(schema, tree, place)
            kind = (part if isinstance(part, Mapping) else inner.get("default") or {}).get("kind")
            is_now = f", and {_text(prefix, place)} is {kind}" if kind else ""
            return f"`{name}` is a key of the {family['x-family']} {listed(kinds)}{is_now}"
    like = close(key, here, _HARDLY)
    return f"did you mean '{like}'?" if like else ""


def _rank(schema: Schema, node: Node) -> int:
    """The order in which families are searched for a key that only other kinds have."""
    family = schema.family(node)
    name = family["x-family"] if family is not None else ""
    return _FAMILIES.index(name) if name in _FAMILIES else len(_FAMILIES)


def _text(prefix: Sequence[Any], place: Sequence[Any]) -> str:
    return "'" + ".".join(map(str, (*prefix, *place))) + "'"


def _walk(schema: Schema, tree: Any, path: Sequence[str | int]) -> tuple[Node | None, Any]:
    """(node, value) at a path; None where nothing is."""
    node, data = schema.root, tree
    for step in path:
        node = schema.below(node, step, data) if node is not None else None
        if isinstance(data, Mapping):
            data = data.get(step)
        else:
            inside = isinstance(data, list | tuple) and isinstance(step, int) and step < len(data)
            data = data[step] if inside else None
    return node, data


def _kinds_with(schema: Schema, family: Node, names: Sequence[str]) -> tuple[str, list[str]] | None:
    """(the first name that some kinds of a family have as a key, those kinds)."""
    for name in names:
        kinds = [k for k in family["x-kinds"] if name in schema.of_kind(family, k)["properties"]]
        if kinds and name != "kind":
            more = [f"{len(kinds) - 5} more"] if len(kinds) > 6 else []
            return name, [*kinds[: 5 if more else 6], *more]
    return None


def _places(
    schema: Schema, node: Node, data: Any, path: tuple = ()
) -> Iterator[tuple[tuple[str | int, ...], Node]]:
    """(path, node) of every key that this config can hold, in what it says or has as a default."""
    if isinstance(data, list | tuple):
        for place, inner in enumerate(data):
            items = schema.below(node, place)
            if isinstance(items, Mapping):
                yield from _places(schema, items, inner, (*path, place))
        return
    if data is None:
        data = node.get("default")
    form = schema.mapping(node, data)
    if form is None or len(path) > 16:
        return
    own = data if isinstance(data, Mapping) else {}
    for name, inner in form["properties"].items():
        if name in ("kind", "base"):
            continue
        yield (*path, name), inner
        given = own.get(name, inner.get("default", {}))
        if isinstance(given, Mapping | list | tuple):
            yield from _places(schema, inner, given, (*path, name))


def _best(
    schema: Schema, places: list, name: str, parents: tuple, value: Any
) -> list[tuple[str | int, ...]]:
    """The paths of a key that are likeliest meant: that take such a value, inside the place where
    it was written or else the shortest; at most three, none if there are more."""
    ends = tuple(name.split("."))
    found = [one for one in places if one[0][-len(ends) :] == ends and one[0][:-1] != parents]
    fitting = [place for place, node in found if _suits(schema, node, value)]
    below = [place for place in fitting if place[: len(parents)] == parents]
    chosen = below or fitting or [place for place, _ in found]
    shortest = min((len(place) for place in chosen), default=0)
    chosen = [place for place in chosen if len(place) == shortest]
    return chosen if len(chosen) <= 3 else []


def _suits(schema: Schema, node: Node, value: Any) -> bool:
    """True if a value is of a form that the node takes, whatever its size."""
    if isinstance(value, Mapping):
        wanted = {"object"}
    elif isinstance(value, list | tuple):
        wanted = {"array"}
    elif isinstance(value, bool):
        wanted = {"boolean", "text"}
    elif isinstance(value, int | float):
        wanted = {"integer", "number", "text", "array"}
    else:
        family = schema.family(node)
        if family is not None and value in family["x-kinds"]:
            return True
        wanted = {"text", "choice", "null", "boolean", "integer", "number", "array"}
    return any(form_of(form) in {*wanted, "any"} for form in schema.choices(node))
