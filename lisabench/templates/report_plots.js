// What all charts of the page have in common.
const coarse = matchMedia("(pointer: coarse)").matches;
const PRINTED = { width: 335, height: 260 };  // pixels: two beside each other on A4 and Letter
const redraws = [];

// The key of all charts of a section: a button a series, of many series grouped by family.
function key(holder, series, hidden, draw) {
  const buttons = series.map((one, place) => make("button", { type: "button", onclick: () => { hidden.delete(place) || hidden.add(place); show(); } }, swatch(one), one.label));
  function show() {
    buttons.forEach((button, place) => button.setAttribute("aria-pressed", String(!hidden.has(place))));
    draw();
  }
  function only(kept) {
    series.forEach((one, place) => (kept(one) ? hidden.delete(place) : hidden.add(place)));
    show();
  }
  const families = new Map();
  const grouped = series.length > 12 && new Set(series.map((one) => one.family)).size > 1;
  series.forEach((one, place) => {
    const family = grouped ? one.family || "others" : "";
    if (!families.has(family)) families.set(family, make("ul", { "aria-label": family || "Series that are drawn" }));
    families.get(family).append(make("li", {}, buttons[place]));
  });
  const quick = (words, kept) => make("button", { type: "button", class: "quiet", onclick: () => only(kept) }, words);
  const main = series.filter((one) => one.main);
  if (series.length > 2) {
    holder.append(make("p", { class: "quick" }, quick("Show all", () => true), quick("Hide all", () => false),
      ...(main.length && main.length < series.length ? [quick(main.length < 3 ? `Only ${main.map((one) => one.label).join(", ")}` : "Only LiSA and the baseline", (one) => one.main)] : [])));
  }
  for (const [family, list] of families) holder.append(make("div", {}, ...(family ? [make("p", { class: "family" }, family)] : []), list));
  holder.classList.toggle("grouped", grouped);
  show();
  redraws.push(() => {
    buttons.forEach((button, place) => button.firstChild.replaceWith(swatch(series[place])));
    draw();
  });
}

function swatch(one) {
  const colour = colourOf(one);
  const open = one.symbol.includes("open");
  const dashes = one.dash === "solid" ? null : one.dash.replaceAll("px", "").split(",").map((part) => part / 5).join(",");
  return make("svg", { viewBox: "-3.5 -1.8 7 3.6", "aria-hidden": "true" },
    make("path", { d: "M-3.5,0H3.5", stroke: colour, "stroke-width": 0.2 * one.width, "stroke-dasharray": dashes }),
    make("path", { d: one.path, transform: "scale(1.25)", fill: open ? theme("paper") : colour, stroke: colour, "stroke-width": 0.35 }),
    ...(one.symbol.endsWith("dot") ? [make("path", { d: "M-.3,0H.3", stroke: colour, "stroke-width": 0.6 })] : []));
}

function axis(title, log, ticks) {
  const plain = { title: { text: title, standoff: 8 }, type: log ? "log" : "linear", gridcolor: theme("rule"), linecolor: theme("rule"),
    zeroline: false, automargin: true, tickangle: 0, fixedrange: coarse, rangemode: log ? "normal" : "tozero" };
  return ticks ? { ...plain, tickmode: "array", tickvals: ticks.map(([value]) => value), ticktext: ticks.map(([, words]) => words) } : plain;
}

// Where an axis has a text: decades (in base 2 powers of it) on a log axis that is long, else round steps, on a linear one from 0 on.
function ticksOf(values, unit, log, low = 0, most = 7) {
  const known = values.filter((value) => value > 0);
  if (!known.length) return null;
  const least = Math.min(...known), high = Math.max(...known);
  const base = unit === "bytes" ? 2 : 10;
  const at = [];
  if (high === least) at.push(high);
  else if (log && high > 5 * least) {
    const [first, last] = [Math.floor(Math.log(least) / Math.log(base)), Math.ceil(Math.log(high) / Math.log(base))];
    const step = [1, 2, 3, 5, 10, 20].find((step) => (last - first) / step < most) || 40;
    const parts = base === 10 && last - first <= 2 ? [1, 2, 5] : [1];
    for (let power = Math.floor(first / step) * step; power <= last; power += step) at.push(...parts.map((part) => part * base ** power));
  } else {
    const from = log ? least : low;
    const rough = (high - from || high) / (most - 2);
    const size = base ** Math.floor(Math.log(rough) / Math.log(base));
    const step = [1, 2, 5, 10].find((part) => part * size >= rough) * size;
    for (let count = Math.floor(from / step); count * step <= high + step; count++) at.push(count * step);
  }
  return at.filter((value) => value || !log).map((value) => [value, text(value, unit).replace(/(\.\d*?)0+(?!\d)/, "$1").replace(/\.(?!\d)/, "")]);
}

const isPrinting = () => root.classList.contains("printing");
const widthOf = (holder) => (isPrinting() ? PRINTED.width * (holder.closest(".one") ? 2 : 1) : holder.clientWidth);
const room = (holder) => Math.min(7, Math.max(3, Math.floor(widthOf(holder) / 90)));  // for so many texts below an axis

function plot(holder, traces, layout, words) {
  const printed = isPrinting() ? { ...PRINTED, width: widthOf(holder) } : {};
  const soft = { family: getComputedStyle(document.body).fontFamily, color: theme("soft"), size: 12 };
  const whole = { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: soft, showlegend: false, hovermode: "closest", dragmode: coarse ? false : "zoom",
    margin: { l: 8, r: 12, t: 10, b: 8 }, ...printed, autosize: !printed.width,
    hoverlabel: { bgcolor: theme("paper"), bordercolor: theme("soft"), font: { ...soft, color: theme("ink") }, align: "left", namelength: -1 }, ...layout };
  const config = { responsive: true, displaylogo: false, displayModeBar: coarse ? false : "hover",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "pan2d", "zoomIn2d", "zoomOut2d"] };
  holder.setAttribute("aria-label", words);
  return Plotly.react(holder, traces, whole, config);
}

function figure(holder, title) {
  const drawing = make("div", { class: "plot", role: "img" });
  const caption = make("figcaption");
  holder.append(make("figure", {}, make("h3", {}, title), drawing, caption));
  return [drawing, caption];
}

const redraw = () => redraws.forEach((draw) => draw());
const folded = [...document.querySelectorAll("details:not([open])")];
const printing = (on) => {
  root.classList.toggle("printing", on);
  for (const details of folded) details.open = on;
  redraw();
};
addEventListener("beforeprint", () => printing(true));
addEventListener("afterprint", () => printing(false));
darkness.addEventListener("change", redraw);
