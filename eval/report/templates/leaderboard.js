// Filters of a leaderboard; ranks are those among the rows that are shown. tables.js stands before.

const form = document.querySelector(".filters");
const filter = name => form.querySelector(`[data-filter=${name}]`);
const all = selector => [...document.querySelectorAll(selector)];
const total = all("[data-row]").length;

function clearlyBetter(one, other, lower) {  // as eval/leaderboard/ranks.py has it
  if (one.dataset.printed === other.dataset.printed) return false;
  return lower ? Number(one.dataset.high) < Number(other.dataset.low)
    : Number(one.dataset.low) > Number(other.dataset.high);
}

function rank(table) {
  const rows = [...table.tBodies[0].rows];
  const good = rows.filter(row => !row.hidden && row.dataset.ranked === "1");
  if (good.length === 1) good.pop();  // nothing to rank it against
  for (const row of rows) {
    const cell = row.cells[0], lower = table.dataset.better === "lower";
    const found = good.includes(row) ? 1 + good.filter(one => clearlyBetter(one, row, lower)).length : "";
    cell.dataset.value = found;
    cell.textContent = found || "–";
  }
}

function update() {
  const words = filter("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const media = filter("media").value, license = filter("license").value, whole = filter("whole").checked;
  const bound = name => filter(name).value === "" ? null : Number(filter(name).value);
  const least = bound("least"), most = bound("most");
  const fits = ({ search, media: own, license: mine, bits, whole: uncut }) =>
    words.every(word => search.includes(word)) && (!media || own === media) && (!license || mine === license)
    && (!whole || uncut === "1")
    && (least === null && most === null || bits !== undefined
      && (least === null || Number(bits) >= least) && (most === null || Number(bits) <= most));
  let shown = 0;
  for (const row of all("[data-row]")) {
    row.hidden = !fits(row.dataset);
    shown += !row.hidden;
  }
  const kept = (node, selector) => [...node.querySelectorAll(selector)].some(one => !one.hidden);
  for (const one of all("[data-protocol]")) one.hidden = !kept(one, "[data-row]");
  for (const one of all("[data-metric]")) one.hidden = !kept(one, "[data-protocol]");
  const further = document.getElementById("further");
  if (further) further.hidden = !kept(further, "[data-metric]");
  for (const link of all("nav a")) link.hidden = document.getElementById(link.hash.slice(1)).hidden;
  all("table.board").forEach(rank);
  document.querySelector("[data-none]").hidden = shown > 0;
  document.querySelector("[data-shown]").textContent = `${shown.toLocaleString("en")} of ${total.toLocaleString("en")} numbers`;
}

form.addEventListener("submit", event => event.preventDefault());
form.addEventListener("input", update);
form.addEventListener("change", update);
form.addEventListener("reset", () => setTimeout(update));
all(".scripted").forEach(one => { one.hidden = false; });
all("table.sortable").forEach(sortable);
all(".table").forEach(edges);
update();
