"""Tokens and bits per image of the released tokenizers, so that a list of them builds no network.

A test compares them with the networks that the recipes describe.
"""

from __future__ import annotations

SIZES: dict[str, tuple[str, int | None]] = {
    "maskgit-vqgan": ("256", 2_560),
    "titok-l32": ("32", 384),
    "titok-b64": ("64", 768),
    "titok-s128": ("128", 1_536),
    "titok-bl64-vq8k": ("64", 832),
    "titok-bl128-vq8k": ("128", 1_664),
    "titok-sl256-vq8k": ("256", 3_328),
    "titok-ll32-vae-c16": ("32", None),
    "titok-bl64-vae-c16": ("64", None),
    "titok-bl128-vae-c16": ("128", None),
    "tatitok-bl32-vq": ("32", 416),
    "tatitok-bl64-vq": ("64", 832),
    "tatitok-bl128-vq": ("128", 1_664),
    "tatitok-bl32-vae": ("32", None),
    "tatitok-bl64-vae": ("64", None),
    "tatitok-sl128-vae": ("128", None),
    "one-d-piece-s256": ("1..256", 3_072),
    "one-d-piece-b256": ("1..256", 3_072),
    "one-d-piece-l256": ("1..256", 3_072),
    "retok-sb256": ("1..256", 3_584),
    "retok-ss256": ("1..256", 3_584),
    "vq_ds16_c2i": ("256", 3_584),
    "vq_ds8_c2i": ("1024", 14_336),
    "vq_ds16_t2i": ("256", 3_584),
    "vq_ds16_c2i_384": ("576", 8_064),
    "vq_ds16_t2i_512": ("1024", 14_336),
    "robustok-main": ("256", 3_072),
    "robustok-post": ("256", 3_072),
    "robusttok-zero": ("256", 3_072),
    "imagefolder-msvr10p2-4096": ("286 in 10 scales", 6_864),
    "imagefolder-msvr10p2-8192": ("286 in 10 scales", 7_436),
    "imagefolder-msvr10p2-16384": ("286 in 10 scales", 8_008),
    "imagefolder-msvr10p2-4096-imed": ("286 in 10 scales", 6_864),
    "imagefolder-msvr10p2-4096-laion": ("286 in 10 scales", 6_864),
    "imagefolder-msbr10p2-4096": ("286 in 10 scales", 6_864),
    "imagefolder-msbr10p2-16384": ("286 in 10 scales", 8_008),
    "xqgan-vp2-4096": ("256", 6_144),
    "xqgan-vp2-16384": ("256", 7_168),
    "xqgan-vq-4096": ("256", 3_072),
    "xqgan-vq-8192": ("256", 3_328),
    "flextok-d12-d12-in1k": ("1..256", 4_096),
    "flextok-d18-d18-in1k": ("1..256", 4_096),
    "flextok-d18-d28-in1k": ("1..256", 4_096),
    "flextok-d18-d28-dfn": ("1..256", 4_096),
    "instella-bae": ("128", 8_192),
    "var-vqvae": ("680 in 10 scales", 8_160),
    "var-vqvae-512": ("2240 in 10 scales", 26_880),
}
"""Released name -> (tokens per image, bits per image; None for continuous tokens). "1..256" can be
cut to any length."""
