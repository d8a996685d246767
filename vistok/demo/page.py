"""The page: controls, and which view each of them makes again.

The slider's numbers are places in `Dial.steps`. Whatever a visitor can call is one of the views,
which open no file but an uploaded one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from vistok.config.errors import UserError
from vistok.demo import cards, views
from vistok.demo.images import photographs
from vistok.demo.models import Models
from vistok.demo.samples import MOST, class_names, guidance_of
from vistok.demo.visit import FIRST, SECOND, Dial, Visit

STYLE = Path(__file__).with_name("style.css")
_SHOWN = (1, 0)  # photographs that a new visit starts with: a cat and a person
_FORGET = (600, 3600)  # seconds between looks at uploaded files, and their age when they go
_LATER = {"trigger_mode": "always_last", "show_progress": "hidden"}  # of what follows a drag


def upload(label: str, height: int, name: str) -> gr.Image:
    """A place for an image. Handlers get its uploaded file unread: `images.opened` reads it, as
    everywhere in vistok."""
    made = gr.Image(
        label=label,
        sources=["upload"],
        height=height,
        buttons=[],
        elem_id=name,
        placeholder="Drop an image\nor click to choose one",
    )
    # On this one object: gradio looks for the scripts of a subclass beside it.
    made.preprocess = lambda payload: None if payload is None else payload.path
    return made


def theme() -> gr.themes.Base:
    """Calm and gray, in the fonts of the visitor's machine: no font is fetched."""
    return gr.themes.Base(
        primary_hue="teal",
        neutral_hue="zinc",
        font=["ui-sans-serif", "system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
        radius_size="lg",
    ).set(body_text_color_subdued="*neutral_500", body_text_color_subdued_dark="*neutral_400")


def build(models: Models) -> gr.Blocks:
    """The page of these models."""
    with gr.Blocks(
        title="vistok playground", analytics_enabled=False, fill_width=True, delete_cache=_FORGET
    ) as page:
        _Page(models).lay_out(page)
    return page


class _Page:
    """Components and handlers; `models` is shared by all visitors, a `Visit` is one visitor's."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self.photographs = photographs()

    def lay_out(self, page: gr.Blocks) -> None:
        self.visit = gr.State(Visit, time_to_live=_FORGET[1])
        gr.HTML(_TITLE, padding=False)
        with gr.Row(elem_classes="vt-page"):
            with gr.Column(scale=0, min_width=300, elem_classes="vt-side"):
                self._side()
            with gr.Column(scale=1, min_width=320, elem_classes="vt-main"):
                self._dial()
                with gr.Tabs():
                    self._tabs()
        self._wire(page)

    def _side(self) -> None:
        self.image = upload("Image", 240, "vt-image")
        self.shelf = self._shelf("Photographs")
        names = self.models.names
        self.chosen = gr.CheckboxGroup(names, value=names[:1], label="Models", elem_id="vt-models")
        self.typed = gr.Textbox(
            label="Add a model",
            placeholder="run, folder or released name",
            visible=self.models.typed,
            max_lines=1,
            submit_btn=True,
        )
        self.line = gr.HTML(padding=False)

    def _shelf(self, label: str) -> gr.Dataset:
        """Thumbnails of the photographs that come with scikit-image."""
        return gr.Dataset(
            label=label,
            components=[gr.Image(visible=False)],
            samples=[[str(file)] for file in self.photographs.values()],
            samples_per_page=20,
            type="index",
            elem_classes="vt-shelf",
            visible=bool(self.photographs),
        )

    def _dial(self) -> None:
        dial = Dial(self.models, self.models.names[:1])
        self.slider = gr.Slider(
            0,
            max(1, len(dial.steps) - 1),
            value=len(dial.steps) - 1,
            step=1,
            label="Length: drag for fewer or more tokens",
            interactive=len(dial.steps) > 1,
            buttons=[],
            elem_id="vt-length",
        )

    def _tabs(self) -> None:
        with gr.Tab("Reconstruct", id="reconstruct") as self.tab_reconstruct:
            self.out = gr.HTML(padding=False, elem_id="vt-out")
            self.compared = gr.HTML(padding=False, elem_id="vt-compared")
        with gr.Tab("Tokens", id="tokens") as self.tab_tokens:
            with gr.Row(elem_classes="vt-controls"):
                self.share = gr.Slider(
                    0, 100, value=0, step=1, label="Replaced tokens, %", buttons=[]
                )
                self.by = gr.Radio(
                    [("nearby codes", "neighbours"), ("any codes", "random")],
                    value="neighbours",
                    label="Replaced by",
                )
                self.reach = gr.Slider(
                    2, 256, value=16, step=1, label="Nearby: the nearest", buttons=[]
                )
                self.seed = gr.Number(0, precision=0, label="Seed", min_width=80)
            self.map = gr.HTML(padding=False, elem_id="vt-tokens")
        with gr.Tab("Mix", id="mix") as self.tab_mix:
            with gr.Row(elem_classes="vt-controls"):
                with gr.Column(scale=0, min_width=220):
                    self.second = upload("Second image", 180, "vt-second")
                with gr.Column(scale=1, min_width=260):
                    self.other_shelf = self._shelf("Photographs")
                    self.first = gr.Slider(
                        0,
                        100,
                        value=25,
                        step=1,
                        label="Exchanged: the first tokens, %",
                        visible=len(self._scales(self.models.names[:1])) < 2,
                        buttons=[],
                    )
                    named = self._scales(self.models.names[:1])
                    self.blocks = gr.CheckboxGroup(
                        named,
                        value=[place for _, place in named[: len(named) // 2]],
                        label="Exchanged: scales",
                        visible=len(named) > 1,
                    )
            self.mixture = gr.HTML(padding=False, elem_id="vt-mix")
        if self.models.samplers:
            with gr.Tab("Generate", id="generate"):
                self._generate()

    def _generate(self) -> None:
        names = self.models.samplers
        sampler = self.models.sampler(names[0])
        classes, scale = class_names(sampler), guidance_of(sampler)
        with gr.Row(elem_classes="vt-controls"):
            which = gr.Dropdown(names, value=names[0], label="Generator", visible=len(names) > 1)
            label = gr.Dropdown(
                classes,
                value=classes[0] if classes else None,
                label="Class",
                visible=bool(classes),
            )
            count = gr.Slider(1, MOST, value=9, step=1, label="Images", buttons=[])
            seed = gr.Number(0, precision=0, label="Seed", min_width=80)
            guidance = gr.Slider(
                1, 8, value=scale or 1, step=0.1, label="Guidance", visible=scale is not None,
                buttons=[],
            )  # fmt: skip
            temperature = gr.Slider(0.1, 2, value=1, step=0.05, label="Temperature", buttons=[])
        button = gr.Button("Sample", variant="primary", elem_id="vt-sample")
        sheet = gr.HTML(padding=False, elem_id="vt-samples", min_height=60)

        def switched(name: str):
            known, scale = (
                class_names(self.models.sampler(name)),
                guidance_of(self.models.sampler(name)),
            )
            return (
                gr.update(choices=known, value=known[0] if known else None, visible=bool(known)),
                gr.update(value=scale or 1, visible=scale is not None),
            )

        def sampled(*settings: Any, progress=gr.Progress()) -> str:
            tell = lambda done, total: progress((done, total), unit="images")
            return views.samples(self.models, *settings, progress=tell)

        which.change(switched, which, [label, guidance], api_visibility="private")
        button.click(
            sampled,
            [which, label, count, seed, guidance, temperature],
            sheet,
            api_visibility="private",
            concurrency_limit=2,
        )

    # -- handlers -------------------------------------------------------------------------------

    def _take(self, which: str, visit: Visit, path: str | None) -> str:
        try:
            visit.take(which, path)
        except UserError as error:
            visit.take(which, None)
            return cards.message(str(error), "error")
        return ""

    def _photograph(self, place: int) -> str:
        return str(list(self.photographs.values())[place])

    def _add(self, name: str, chosen: list[str]):
        try:
            name = self.models.add(name)
        except UserError as error:
            return gr.skip(), gr.skip(), cards.message(str(error), "error")
        chosen = [*chosen, *([] if name in chosen else [name])]
        return gr.update(choices=self.models.names, value=chosen), "", ""

    def _retune(self, before: list[str], names: list[str], step: float):
        """The slider for other models, at about as many bits as it stood at."""
        bits = None
        if before:
            old = Dial(self.models, before)
            bits = None if step >= len(old.steps) - 1 else old.steps[int(step)]
        dial = Dial(self.models, names)
        scales = self._scales(names)
        half = [place for _, place in scales[: len(scales) // 2]]
        return (
            names,
            gr.update(
                maximum=max(1, len(dial.steps) - 1),
                value=dial.step_near(bits),
                interactive=len(dial.steps) > 1,
            ),
            gr.update(choices=scales, value=half, visible=len(scales) > 1),
            gr.update(visible=len(scales) < 2),
        )

    def _scales(self, names: list[str]) -> list[tuple[str, int]]:
        """(grid, number) of the blocks, of the model that has most of them."""
        specs = [self.models[name].spec for name in names]
        blocks = max((spec.blocks for spec in specs), key=len, default=())
        return [("×".join(map(str, block)), place) for place, block in enumerate(blocks)]

    def _wire(self, page: gr.Blocks) -> None:
        models, quiet = self.models, {"api_visibility": "private"}
        before = gr.State(models.names[:1])
        base = [self.visit, self.chosen, self.slider]
        moved = [*base, self.share, self.by, self.reach, self.seed]
        blend = [self.visit, self.chosen, self.first, self.blocks]
        tab = gr.State("reconstruct")
        seen = lambda view, name: (
            lambda tab, *given: view(models, *given) if tab == name else gr.skip()
        )
        show = (lambda *given: views.reconstructions(models, *given), base, self.out)
        compare = (seen(views.comparison, "reconstruct"), [tab, *base], self.compared)
        tokens = (seen(views.tokens, "tokens"), [tab, *moved], self.map)
        mix = (seen(views.mixed, "mix"), [tab, *blend], self.mixture)

        def again(event):
            """All panels, one after the other; of the tabs only the one that is seen."""
            for view in (show, compare, tokens, mix):
                event = event.then(*view, **quiet, show_progress="minimal")

        for name, chosen, panels in (
            ("reconstruct", self.tab_reconstruct, (show, compare)),
            ("tokens", self.tab_tokens, (tokens,)),
            ("mix", self.tab_mix, (mix,)),
        ):
            event = chosen.select(
                lambda name=name: name, None, tab, **quiet, show_progress="hidden"
            )
            for view in panels:
                event = event.then(*view, **quiet, show_progress="minimal")

        for shelf, image in ((self.shelf, self.image), (self.other_shelf, self.second)):
            shelf.click(self._photograph, shelf, image, **quiet, show_progress="hidden")
        taken = self.image.change(
            lambda visit, path: self._take(FIRST, visit, path),
            [self.visit, self.image],
            self.line,
            **quiet,
            show_progress="hidden",
        )
        again(taken)
        second = self.second.change(
            lambda visit, path: self._take(SECOND, visit, path),
            [self.visit, self.second],
            self.line,
            **quiet,
            show_progress="hidden",
        )
        second.then(*mix, **quiet, show_progress="hidden")
        self.typed.submit(
            self._add, [self.typed, self.chosen], [self.chosen, self.typed, self.line], **quiet
        )
        retuned = self.chosen.change(
            self._retune,
            [before, self.chosen, self.slider],
            [before, self.slider, self.blocks, self.first],
            **quiet,
            show_progress="hidden",
        )
        again(retuned)
        self.slider.input(*show, **quiet, **_LATER, queue=False)
        self.slider.change(*compare, **quiet, **_LATER)
        self.slider.change(*tokens, **quiet, **_LATER)
        for control in (self.share, self.by, self.reach, self.seed):
            control.change(*tokens, **quiet, **_LATER)
        for control in (self.first, self.blocks):
            control.change(*mix, **quiet, **_LATER)
        page.load(
            lambda: (
                [self._photograph(place) for place in _SHOWN] if self.photographs else [None] * 2
            ),
            None,
            [self.image, self.second],
            **quiet,
            show_progress="hidden",
        )


_TITLE = (
    '<header class="vt-title"><h1>vistok</h1><p>Images as short strings of integers. '
    "Everything is computed on the machine that serves this page.</p></header>"
)
