"use strict";
// Sorting of tables, and the viewer: one slider for the same images of all runs.
// Nothing is loaded and no text becomes markup: textContent and setAttribute only.

function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const worth = cell => {
    const text = cell.dataset.value ?? cell.textContent.trim().replace(/,/g, "");
    const number = { inf: Infinity, "-inf": -Infinity, "∞": Infinity, "-∞": -Infinity }[text] ?? Number.parseFloat(text);
    return { empty: ["", "nan", "NaN", "n/a"].includes(text), number, text: text.toLowerCase() };
  };
  heads.forEach((head, place) => {
    const button = make("button", { type: "button" }, ...head.childNodes);
    head.replaceChildren(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach(one => one.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].map(row => [worth(row.cells[place]), row]);
      const numbers = rows.every(([one]) => one.empty || !Number.isNaN(one.number));
      rows.sort(([a], [b]) => {
        if (a.empty || b.empty) return a.empty - b.empty;  // missing ones last, either way
        const order = !numbers ? a.text.localeCompare(b.text)
          : a.number === b.number ? 0 : a.number - b.number;
        return down ? -order : order;
      });
      body.append(...rows.map(([, row]) => row));
    });
  });
}

function viewer(root) {
  const find = name => root.querySelector(`[data-${name}]`);
  const slider = find("slider"), unit = find("unit"), gain = find("gain"), all = find("all");
  const original = find("original").querySelector("img"), zoom = find("zoom");
  const cells = Number(root.dataset.cells);
  const lanes = [...root.querySelectorAll("[data-lane]")].map(
    lane => [...lane.querySelectorAll(".strip")]);
  const forward = root.dataset.axis === "perturbation";
  let stops = [], chosen = [], cell = null;

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
    return `${stop} ${unit ? unit.value.replace("at", "tokens") : "tokens"}`;
  }

  function show() {
    const stop = stops[Number(slider.value)];
    chosen = lanes.filter(strips => strips.length).map(strips => pick(strips, stop));
    root.classList.toggle("every", all.checked);
    for (const strip of lanes.flat()) {
      const mine = chosen.includes(strip);
      strip.hidden = !all.checked && !mine;
      strip.classList.toggle("forced", mine && !all.checked && value(strip) > stop);
    }
    const text = all.checked ? "all" : name(stop);
    find("shown").textContent = text;
    slider.setAttribute("aria-valuetext", text);
    differ();
    enlarge();
  }

  function differ() {
    const times = Number(gain.value);
    root.style.setProperty("--gain", times);
    root.classList.toggle("diff", times > 0);
    if (!times) return;
    for (const strip of lanes.flat()) {
      const stack = strip.querySelector(".stack");
      if (stack.children.length > 1) continue;
      const over = make("img", { alt: "", class: `over ${original.className}` });
      over.src = original.src;
      stack.append(over);
    }
  }

  function tile(images, text) {
    const box = make("span", { class: images.length > 1 ? "tile-zoom diff" : "tile-zoom" });
    images.forEach((image, place) => {
      const copy = make("img", { alt: text, class: `${image.className} ${place ? "over" : ""}` });
      copy.src = image.src;
      copy.style.width = `${cells * 100}%`;
      copy.style.left = `${-cell * 100}%`;
      box.append(copy);
    });
    return make("figure", {}, box, make("figcaption", {}, text));
  }

  function enlarge() {
    zoom.hidden = cell === null;
    if (cell === null) return;
    const size = original.naturalHeight / (original.naturalWidth / cells);
    zoom.style.setProperty("--ratio", size || 1);
    zoom.style.setProperty("--zoomed", Number(gain.value) || 4);
    const close = make("button", { type: "button" }, "close");
    close.addEventListener("click", () => { cell = null; enlarge(); });
    const step = by => {
      const button = make("button", { type: "button" }, by < 0 ? "previous" : "next");
      button.addEventListener("click", () => { cell = (cell + by + cells) % cells; enlarge(); });
      return button;
    };
    const head = make("div", { class: "controls" },
      make("b", {}, `image ${cell + 1} of ${cells}`), step(-1), step(1), close);
    const pair = (...tiles) => make("div", { class: "pair" }, ...tiles);
    const row = make("div", { class: "tiles-zoom" }, pair(tile([original], "original")));
    for (const strip of chosen) {
      const image = strip.querySelector("img");
      const run = strip.closest("[data-lane]").dataset.lane, said = strip.dataset.label;
      const apart = tile([image, original], `${run}: difference x${Number(gain.value) || 4}`);
      row.append(pair(tile([image], `${run}: ${said}`), apart));
    }
    zoom.replaceChildren(head, row);
  }

  root.querySelectorAll(".names span").forEach((span, place) => {
    const button = make("button", { type: "button", title: "enlarge" }, ...span.childNodes);
    button.addEventListener("click", () => { cell = place; enlarge(); });
    span.replaceChildren(button);
  });
  root.querySelector(".grid").addEventListener("click", event => {
    const stack = event.target.closest(".stack");
    if (!stack) return;
    const box = stack.getBoundingClientRect();
    cell = Math.min(cells - 1, Math.floor((event.clientX - box.left) / box.width * cells));
    enlarge();
  });
  slider.addEventListener("input", () => { all.checked = false; show(); });
  if (unit) unit.addEventListener("change", () => { measure(); show(); });
  gain.addEventListener("change", show);
  all.addEventListener("change", show);
  root.querySelectorAll(":scope > [hidden]:not(.zoom)").forEach(one => { one.hidden = false; });
  measure();
  show();
}

document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll(".viewer").forEach(viewer);
