# `make quickstart` and `make quickstart-video` (FAST=1 for the short ones), `make test`, `make docs`.
# All make their own environment in .venv; everything but the installation is offline.
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
VISTOK := $(VENV)/bin/vistok
export HF_HUB_OFFLINE ?= 1

ifdef FAST
RUN := runs/quickstart-fast
TOKENIZER_ARGS := steps=500 task.losses.1.start=400 warmup=50 ema=0.98 validate_every=0 grid_every=0 data.val_count=256
TOKENS_ARGS := limit=4096 data.val_count=256
GENERATOR_ARGS := steps=150 warmup=15 validate_every=0
EVAL_ARGS := limit=256 gfid.samples=210 gfid.seeds=1 gfid.guidance=[1.0,1.5]
VIDEO := runs/quickstart-video-fast
VIDEO_TOKENIZER_ARGS := steps=150 warmup=15 ema=0.95 validate_every=0 grid_every=0 data.val_count=64
VIDEO_TOKENS_ARGS := limit=512 data.val_count=64
VIDEO_GENERATOR_ARGS := steps=60 warmup=10 ema=0.9 validate_every=0
VIDEO_EVAL_ARGS := limit=64 gfid.samples=63 gfid.seeds=1 gfid.train_images=64 gfid.guidance=1.0
else
RUN := runs/quickstart
TOKENS_ARGS := limit=32768
EVAL_ARGS := gfid.guidance=[1.0,1.5] gfid.train_images=10000
VIDEO := runs/quickstart-video
VIDEO_TOKENS_ARGS := limit=8192
VIDEO_EVAL_ARGS := limit=256 gfid.samples=252 gfid.train_images=1024 gfid.guidance=1.5
endif

.PHONY: quickstart quickstart-video test lint docs clean

quickstart: $(VENV)/installed
	$(VISTOK) train quickstart out=$(RUN) $(TOKENIZER_ARGS)
	$(VISTOK) cache $(RUN) $(TOKENS_ARGS)
	$(VISTOK) train quickstart/generator data.path=$(RUN) out=$(RUN)/generator $(GENERATOR_ARGS)
	$(VISTOK) eval $(RUN) $(RUN)/generator report=$(RUN)/report.html $(EVAL_ARGS)

quickstart-video: $(VENV)/installed  # clips of moving photographs
	$(VISTOK) train quickstart/video out=$(VIDEO) $(VIDEO_TOKENIZER_ARGS)
	$(VISTOK) cache $(VIDEO) $(VIDEO_TOKENS_ARGS)
	$(VISTOK) train quickstart/video_generator data.path=$(VIDEO) out=$(VIDEO)/generator $(VIDEO_GENERATOR_ARGS)
	$(VISTOK) eval $(VIDEO) $(VIDEO)/generator report=$(VIDEO)/report.html pfid.mode=quick $(VIDEO_EVAL_ARGS)

test: $(VENV)/installed  # a worker a core, a file a worker, the slowest files first
	OMP_NUM_THREADS=1 $(PY) -m pytest tests -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/installed
	$(PY) -m ruff check .

docs: $(VENV)/installed  # broken links and references end it
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --clean
	@echo "open site/index.html"

$(VENV)/installed: pyproject.toml setup.py
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet -e ".[dev,hf,video,features,vae,coding,demo,docs]"
	touch $@

clean:
	rm -rf $(VENV) runs site build dist *.egg-info
