// Numbers, elements and tables of a report's page; the other report_*.js follow it in one script.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement;
const darkness = matchMedia("(prefers-color-scheme: dark)");

// Numbers as people read them; the steps are those of lisabench/units.py.
const STEPS = {
  seconds: [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]],
  bytes: [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"], [1, "B"]],
  flops: [[1e15, "PFLOP"], [1e12, "TFLOP"], [1e9, "GFLOP"], [1e6, "MFLOP"], [1e3, "kFLOP"], [1, "FLOP"]],
  joules: [[1, "J"], [1e-3, "mJ"], [1e-6, "µJ"]],
  count: [[1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]],
  times: [[0, "×"]],
  percent: [[0.01, "%"]],
};

function significant(value, digits) {
  if (value === 0) return "0";
  const rounded = Math.abs(Number(value.toPrecision(digits)));
  return value.toFixed(Math.min(100, Math.max(0, digits - 1 - Math.floor(Math.log10(rounded)))));
}

function text(value, unit, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (unit === "plain") return value.toLocaleString("en-US");
  if (unit === "error") return value === 0 ? "0" : value.toExponential(1);
  if (unit === "bytes" && Math.abs(value) < 1024) return `${value.toFixed(0)} B`;
  const steps = STEPS[unit];
  const [size, name] = steps.find(([size]) => Math.abs(value) >= size * (1 - 0.5 * 10 ** -digits)) || steps[steps.length - 1];
  const gap = name === "×" || name === "%" ? "" : " ";
  const number = significant(value / (size || 1), digits);
  return `${number.includes(".") ? number : Number(number).toLocaleString("en-US")}${gap}${name}`.trim();
}

// Names are anyone's: as text nodes they are only text; what Plotly reads as markup is escaped.
const escaped = (name) => name.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function make(tag, attributes = {}, ...children) {
  const svg = tag === "svg" || tag === "path";
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const theme = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
const isDark = () => darkness.matches && !isPrinting();
const colourOf = (series) => (isDark() ? series.dark : series.colour);

function choice(holder, title, options, chosen, onchange) {
  const select = make("select", { onchange: () => onchange(select.value) });
  for (const [value, words] of options) select.append(make("option", { value }, words));
  select.value = chosen;
  holder.append(make("label", {}, title, select));
  return select;
}

function tick(holder, title, checked, onchange) {
  const box = make("input", { type: "checkbox", onchange: () => onchange(box.checked) });
  box.checked = checked;
  holder.append(make("label", { class: "tick" }, box, title));
}

function table(id, count, columns, elsewhere, what) {
  const holder = document.getElementById(id);
  const search = make("input", { type: "search", oninput: () => { filter(); show(); } });
  const told = make("p", { class: "count", role: "status" });
  const body = make("tbody");
  const heads = columns.map((column, place) => make("th", { scope: "col", "aria-sort": "none", class: column.unit ? "number" : null },
    make("button", { type: "button", onclick: () => order(place) }, column.title)));
  const shown = (column, row) => (column.unit ? text(column.value(row), column.unit, column.digits) : column.value(row));
  holder.append(make("div", { class: "table-head" }, make("label", {}, "Filter", search), told),
    make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Table of ${what}` },
      make("table", {}, make("thead", {}, make("tr", {}, ...heads)), body)));
  let rows = Array.from({ length: count }, (_, row) => row);
  let sorted = rows, texts = null;

  function order(place) {
    const ascending = heads[place].getAttribute("aria-sort") !== "ascending";
    heads.forEach((head, other) => head.setAttribute("aria-sort", other !== place ? "none" : ascending ? "ascending" : "descending"));
    const values = Array.from({ length: count }, (_, row) => columns[place].value(row));
    const sign = ascending ? 1 : -1;
    sorted = Array.from({ length: count }, (_, row) => row).sort((one, other) => {
      const [left, right] = [values[one], values[other]];
      if (left === null || right === null) return (left === null) - (right === null) || one - other;  // what is absent stands last
      return (left < right ? -sign : left > right ? sign : 0) || one - other;
    });
    filter();
    show();
  }
  function filter() {
    const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    texts ??= wanted.length ? sorted.map(() => null) : null;
    const has = (row) => {
      texts[row] ??= columns.filter((column) => !column.unit || column.unit === "plain").map((column) => `${column.value(row)} ${shown(column, row)}`).join(" ").toLowerCase();
      return wanted.every((word) => texts[row].includes(word));
    };
    rows = wanted.length ? sorted.filter(has) : sorted;
  }
  function show() {
    const few = rows.slice(0, data.most);
    body.replaceChildren(...few.map((row) => make("tr", {}, ...columns.map((column) => make("td", column.unit ? { class: "number" } : {}, shown(column, row))))));
    const all = count.toLocaleString("en-US"), found = rows.length.toLocaleString("en-US");
    told.textContent = rows.length > few.length ? `The first ${few.length} of ${found} ${what}: filter to see others; ${elsewhere}.`
      : rows.length < count ? `${found} of ${all} ${what}` : `${all} ${what}`;
  }
  show();
}
