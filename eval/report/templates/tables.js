"use strict";
// Sorting of tables, and shades at the edges of what scrolls. No text becomes markup: textContent
// and setAttribute only.

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

function edges(outer) {  // a shade where a table or a row of images goes on
  const inner = outer.querySelector(".scroll");
  const kept = outer.querySelector("tbody th, .label");
  const update = () => {
    const rest = inner.scrollWidth - inner.clientWidth;
    outer.classList.toggle("before", inner.scrollLeft > 1);
    outer.classList.toggle("after", rest - inner.scrollLeft > 1);
    const how = kept && getComputedStyle(kept);
    const width = how && how.position === "sticky" ? kept.offsetWidth + (parseFloat(how.left) || 0) : 0;
    outer.style.setProperty("--kept", `${width < inner.clientWidth ? width : 0}px`);
  };
  inner.addEventListener("scroll", update, { passive: true });
  new ResizeObserver(update).observe(inner);
  update();
}
