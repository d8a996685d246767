// The viewer (one slider for the same images of all runs) and the enlarged view; tables.js stands
// before. Nothing is loaded and no text becomes markup: textContent and setAttribute only.

// The enlarged view. A source has: count, title(i), tiles(i) -> [{ images, cells, cell, text }],
// and where there is a slider: slide(by), length().
const light = document.getElementById("lightbox");
const find = name => light.querySelector(`[data-${name}]`);
const GAP = 10, CAPTION = 36;
let source = null, at = 0;

function enlarge(from, place) {
  source = from;
  at = place;
  find("lengths").style.display = source.slide ? "" : "none";
  find("differences").style.display = source.differs ? "" : "none";
  if (!light.open) light.showModal();
  draw();
}

function tile({ images, cells, cell, text }, difference) {
  const box = make("span", { class: difference && images.length > 1 ? "tile diff" : "tile" });
  images.slice(0, difference ? 2 : 1).forEach((image, place) => {
    const copy = make("img", { alt: place ? "" : text, class: place ? "over" : "" });
    copy.src = image.src;
    copy.classList.toggle("pixels", image.classList.contains("pixels"));
    copy.style.width = `${cells * 100}%`;
    copy.style.left = `${-cell * 100}%`;
    box.append(copy);
  });
  return make("figure", {}, box, make("figcaption", {}, text));
}

function draw() {
  const difference = source.differs && find("difference").checked, stage = find("stage");
  const tiles = source.tiles(at, difference);
  find("title").textContent = source.title(at);
  if (source.slide) find("length").textContent = source.length();
  stage.replaceChildren(...tiles.map(one => tile(one, one.difference)));
  const [{ images: [image], cells }] = tiles;
  const native = image.naturalWidth / cells, ratio = image.naturalHeight / native || 1;
  let best = 0, across = 1;
  for (let columns = 1; columns <= tiles.length; columns++) {  // the split with the largest tiles
    const rows = Math.ceil(tiles.length / columns);
    const wide = (stage.clientWidth - GAP * (columns - 1)) / columns;
    const tall = (stage.clientHeight - GAP * (rows - 1)) / rows - CAPTION;
    const side = Math.min(wide, tall / ratio);
    if (side > best) [best, across] = [side, columns];
  }
  const whole = Math.floor(best / native) * native;  // pixels of one size where they are seen
  const side = image.classList.contains("pixels") && whole > best / 2 ? whole : Math.max(best, 40);
  stage.style.setProperty("--across", across);
  stage.style.setProperty("--wide", `${side}px`);
  stage.style.setProperty("--tall", `${side * ratio}px`);
  stage.style.setProperty("--gain", source.gain ? source.gain() : 1);
}

function step(by) {
  at = (at + by + source.count) % source.count;
  draw();
}

light.addEventListener("click", event => {
  const { step: by, slide } = event.target.dataset;
  if (by) step(Number(by));
  if (slide) { source.slide(Number(slide)); draw(); }
  if ("close" in event.target.dataset) light.close();
});
light.addEventListener("keydown", event => {
  const keys = {
    ArrowLeft: () => step(-1), ArrowRight: () => step(1),
    ArrowUp: () => { source.slide?.(1); draw(); }, ArrowDown: () => { source.slide?.(-1); draw(); },
    d: () => { find("difference").checked = !find("difference").checked; draw(); },
  };
  if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  keys[event.key]();
});
find("difference").addEventListener("change", draw);
addEventListener("resize", () => { if (light.open) draw(); });

// Where in a row of images a click fell: the number of the image, over all parts.
function cellOf(stack, clientX) {
  const box = stack.getBoundingClientRect(), cells = Number(stack.dataset.cells);
  const own = Math.min(cells - 1, Math.max(0, Math.floor((clientX - box.left) / box.width * cells)));
  const before = [...stack.parentNode.querySelectorAll(".stack")];
  return own + before.slice(0, before.indexOf(stack)).reduce((sum, one) => sum + Number(one.dataset.cells), 0);
}

// The part of a row that image number `cell` lies in: its file, and its place there.
function partOf(strip, cell) {
  for (const stack of strip.querySelectorAll(".stack")) {
    const cells = Number(stack.dataset.cells);
    if (cell < cells) return { image: stack.querySelector("img"), cells, cell };
    cell -= cells;
  }
  return null;
}

function viewer(root) {
  const find = name => root.querySelector(`[data-${name}]`);
  const slider = find("slider"), unit = find("unit"), gain = find("gain"), all = find("all");
  const original = find("original"), count = Number(root.dataset.cells);
  const lanes = [...root.querySelectorAll("[data-lane]")].map(
    lane => [...lane.querySelectorAll(".strip")]);
  const forward = root.dataset.axis === "perturbation";
  let stops = [], chosen = [];

  const value = strip => Number((unit && unit.value === "bits" && strip.dataset.bits) || strip.dataset.at);

  function pick(strips, stop) {  // the longest that is no longer than the stop, else the shortest
    const short = strips.filter(one => value(one) <= stop);
    const order = (a, b) => value(b) > value(a) ? b : a;
    return short.length ? short.reduce(order) : strips.reduce((a, b) => value(b) < value(a) ? b : a);
  }

  function measure() {
    const values = new Set(lanes.flat().map(value));
    stops = [...values].sort((a, b) => a - b);
    slider.max = Math.max(0, stops.length - 1);
    slider.value = forward ? 0 : slider.max;
    slider.disabled = stops.length < 2;
  }

  function name(stop) {
    if (forward) return lanes[0][Math.min(stop, lanes[0].length - 1)].dataset.label;
    return `${stop} ${unit && unit.value === "bits" ? "bits" : "tokens"}`;
  }

  function show() {
    const stop = stops[Number(slider.value)];
    chosen = lanes.filter(strips => strips.length).map(strips => pick(strips, stop));
    for (const strip of lanes.flat()) {
      const mine = chosen.includes(strip);
      strip.hidden = !all.checked && !mine;
      strip.classList.toggle("forced", mine && !all.checked && value(strip) > stop);
    }
    const text = all.checked ? "all" : name(stop);
    find("shown").textContent = text;
    slider.setAttribute("aria-valuetext", text);
    differ();
  }

  function differ() {
    const times = Number(gain.value);
    root.style.setProperty("--gain", times);
    root.classList.toggle("diff", times > 0);
    if (!times) return;
    const originals = [...original.querySelectorAll("img")];
    for (const strip of lanes.flat()) {
      strip.querySelectorAll(".stack").forEach((stack, part) => {
        if (stack.children.length > 1) return;
        const over = make("img", { alt: "", class: `over ${originals[part].className}` });
        over.src = originals[part].src;
        stack.append(over);
      });
    }
  }

  const columns = [...root.querySelectorAll(".names .cell")];
  const from = {
    count,
    differs: true,
    gain: () => Number(gain.value) || 4,
    title: cell => `${columns[cell]?.textContent ?? ""} (${root.dataset.noun} ${cell + 1} of ${count})`,
    length: () => name(stops[Number(slider.value)]),
    slide(by) {
      slider.value = Number(slider.value) + by;
      all.checked = false;
      show();
    },
    tiles(cell, difference) {
      const real = partOf(original, cell), row = [{ ...real, images: [real.image], text: "original" }];
      for (const strip of all.checked ? lanes.flat() : chosen) {
        const made = partOf(strip, cell), text = `${strip.closest("[data-lane]").dataset.lane}: ${strip.dataset.label}`;
        row.push({ ...made, images: [made.image, real.image], difference,
          text: difference ? `${text}, difference ×${this.gain()}` : text });
      }
      return row;
    },
  };

  columns.forEach((span, place) => {
    const button = make("button", { type: "button", title: `enlarge ${span.textContent}` }, ...span.childNodes);
    button.addEventListener("click", () => enlarge(from, place));
    span.replaceChildren(button);
  });
  root.querySelector(".grid").addEventListener("click", event => {
    const stack = event.target.closest(".stack");
    if (stack) enlarge(from, cellOf(stack, event.clientX));
  });
  slider.addEventListener("input", () => { all.checked = false; show(); });
  if (unit) unit.addEventListener("change", () => { measure(); show(); });
  gain.addEventListener("change", show);
  all.addEventListener("change", show);
  root.querySelectorAll(":scope > [hidden]").forEach(one => { one.hidden = false; });
  measure();
  show();
}

function plainGrid(grid) {  // samples and maps: every image by itself
  const strips = [...grid.querySelectorAll(".strip")];
  const noun = grid.querySelector("[data-moving]") ? "clip" : "image";
  const places = strips.flatMap(strip => [...Array(Number(strip.querySelector(".stack").dataset.cells)).keys()]
    .map(cell => [strip, cell]));
  const from = {
    count: places.length,
    title: place => `${places[place][0].dataset.label} (${noun} ${place + 1} of ${places.length})`,
    tiles(place) {
      const [strip, cell] = places[place], made = partOf(strip, cell);
      return [{ ...made, images: [made.image], text: strip.dataset.label }];
    },
  };
  const open = (stack, cell) => enlarge(from, places.findIndex(
    ([strip, own]) => strip === stack.parentNode && own === cell));
  for (const stack of grid.querySelectorAll(".stack")) {
    const said = `enlarge ${stack.parentNode.dataset.label}`;
    for (const [key, one] of Object.entries({ tabindex: 0, role: "button", "aria-label": said })) stack.setAttribute(key, one);
    stack.addEventListener("click", event => open(stack, cellOf(stack, event.clientX)));
    stack.addEventListener("keydown", event => {
      if (event.key !== "Enter") return;
      event.preventDefault();  // else it would press what is focused in the enlarged view
      open(stack, 0);
    });
  }
}

// Clips play by themselves. Stopped, each is a still of its first frame, which is what a canvas
// draws of an image that moves.
function motion(buttons) {
  let moving = true;
  const turn = on => {
    moving = on;
    for (const image of document.querySelectorAll("img[data-moving]")) {
      if (on) {
        if (image.dataset.moving) image.src = image.dataset.moving;
        continue;
      }
      const still = make("canvas", { width: image.naturalWidth, height: image.naturalHeight });
      still.getContext("2d").drawImage(image, 0, 0);
      image.dataset.moving = image.src;
      image.src = still.toDataURL();
    }
    for (const button of buttons) {
      button.textContent = on ? "stop the clips" : "play the clips";
      button.setAttribute("aria-pressed", String(!on));
    }
  };
  for (const button of buttons) button.addEventListener("click", () => turn(!moving));
  const least = matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (least) Promise.all([...document.querySelectorAll("img[data-moving]")].map(one => one.decode())).then(() => turn(false));
}

motion([...document.querySelectorAll("[data-play]")]);
document.querySelectorAll(".scripted").forEach(one => { one.hidden = false; });
document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll(".viewer").forEach(viewer);
document.querySelectorAll(".grid").forEach(grid => { if (!grid.closest(".viewer")) plainGrid(grid); });
document.querySelectorAll(".table").forEach(edges);
