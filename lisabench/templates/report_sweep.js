// How cost grows: the charts and the table of a sweep.
const FIELDS = { device_name: "Device", device: "Device index", scope: "Scope", mode: "Mode", dtype: "Precision", compiled: "Compilation",
  dim: "Width", heads: "Heads", batch: "Batch", grid: "Grid" };
const LOUD = ["oom", "timeout", "crash", "error", "wrong"];

function sweep({ series, places, statuses, reasons, columns, charts, patch }) {
  const AXES = { tokens: ["Tokens N", "tokens"],
    side: patch ? [`Side of the image √(height × width), px; patch ${patch}`, "resolution (image side)"] : ["Side of the grid √N", "resolution (grid side)"],
    batch: ["Batch", "batch"] };
  const count = columns.series.length;
  const grid = (row) => `${columns.height[row]}×${columns.width[row]}`;
  const field = (name, row) => (name === "batch" ? String(columns.batch[row]) : name === "grid" ? grid(row) : places[columns.place[row]][name]);
  const size = { tokens: (row) => columns.tokens[row], side: (row) => (patch || 1) * Math.sqrt(columns.height[row] * columns.width[row]), batch: (row) => columns.batch[row] };
  const oblong = (row) => Math.abs(Math.log(columns.height[row] / columns.width[row]));
  const status = (row) => statuses[columns.status[row]];
  const names = [...Object.keys(places[0]), "batch", "grid"];
  const options = {};
  for (const name of names) {
    const known = new Map();  // in order of size
    for (let row = 0; row < count; row++) known.set(field(name, row), name === "grid" ? columns.tokens[row] : name === "batch" ? columns.batch[row] : 0);
    options[name] = [...known].sort((one, other) => one[1] - other[1]).map(([value]) => value);
  }
  const varied = names.filter((name) => options[name].length > 1);
  const figures = [["latency", "Latency", "seconds"], ["speed_up", "Speed-up", "times"], ["memory", "Memory", "bytes"], ["flops", "FLOPs", "flops"],
    ["energy", "Energy", "joules"], ["share", "Roofline", "percent"], ["error", "Error", "error"]].filter(([name]) => columns[name]);
  const width = (row) => (columns.latency?.[row] && columns.latency_low[row] !== null ? (columns.latency_high[row] - columns.latency_low[row]) / columns.latency[row] / 2 : null);
  const shownColumns = [
    { title: "Operator", value: (row) => series[columns.series[row]].label },
    { title: "Tokens", value: (row) => columns.tokens[row], unit: "plain" },
    { title: "Grid", value: grid },
    ...varied.filter((name) => name !== "grid").map((name) => (name === "batch" ? { title: "Batch", value: (row) => columns.batch[row], unit: "plain" } : { title: FIELDS[name], value: (row) => field(name, row) })),
    ...(statuses.length > 1 || statuses[0] !== "ok" ? [{ title: "Status", value: status }] : []),
    ...figures.flatMap(([name, title, unit]) => [
      { title, value: (row) => columns[name][row], unit },
      ...(name === "latency" ? [{ title: "±", value: width, unit: "percent", digits: 2 }] : []),
    ]),
  ];
  table("sweep-table", count, shownColumns, "results.csv has all", "cells");
  if (!charts.length) return;

  const state = { x: "tokens", logX: true, logY: true, bands: true, where: {},
    hidden: new Set(series.flatMap((one, place) => (one.off ? [place] : []))) };
  const fixed = () => names.filter((name) => (state.x === "batch" ? name !== "batch" : name !== "grid"));

  // The nearest place there is to the one asked for: rows are measured in combinations, not all of them.
  function settle(name = null) {
    let best = 0, most = -1;
    for (let row = 0; row < count; row++) {
      if (name && field(name, row) !== state.where[name]) continue;
      const agreeing = fixed().filter((other) => field(other, row) === state.where[other]).length + (status(row) === "ok" ? 0.5 : 0);
      if (agreeing > most) [best, most] = [row, agreeing];
    }
    for (const other of names) state.where[other] = field(other, best);
  }

  function chosen() {
    const rows = series.map(() => []);
    const asked = fixed();
    const good = places.map((place) => asked.every((name) => !(name in place) || place[name] === state.where[name]));
    for (let row = 0; row < count; row++) {
      if (!good[columns.place[row]]) continue;
      if (state.x === "batch" ? grid(row) === state.where.grid : String(columns.batch[row]) === state.where.batch) rows[columns.series[row]].push(row);
    }
    for (const own of rows) own.sort((one, other) => size[state.x](one) - size[state.x](other) || oblong(one) - oblong(other));
    return rows;
  }

  const hover = (chart, one, row) => {
    const [value, low, high] = [chart.name, `${chart.name}_low`, `${chart.name}_high`].map((name) => columns[name]?.[row]);
    const span = low !== undefined && low !== null ? `<br>95%: ${text(low, chart.unit)} to ${text(high, chart.unit)}` : "";
    const batch = columns.batch[row] === 1 ? "" : `, batch ${columns.batch[row]}`;
    return `<b>${escaped(one.label)}</b><br>${text(columns.tokens[row], "plain")} tokens (${grid(row)})${batch}<br>${text(value, chart.unit)}${span}`;
  };

  function tracesOf(chart, one, rows, top) {
    const values = columns[chart.name], at = size[state.x], colour = colourOf(one);
    const done = rows.filter((row) => status(row) === "ok" && values[row] !== null && (values[row] > 0 || !state.logY));
    const curve = done.filter((row, place) => !place || at(row) !== at(done[place - 1]));
    const others = done.filter((row) => !curve.includes(row));
    const traces = [];
    const marks = { mode: "lines+markers", name: one.label, line: { color: colour, width: one.width, dash: one.dash },
      marker: { color: colour, symbol: one.symbol, size: 5 + one.width, line: { width: 1, color: colour } }, hovertemplate: "%{text}<extra></extra>" };
    const low = columns[`${chart.name}_low`], high = columns[`${chart.name}_high`];
    const banded = low && state.bands ? curve.filter((row) => low[row] !== null && high[row] !== null) : [];
    if (banded.length > 1) {
      traces.push({ x: [...banded.map(at), ...banded.map(at).reverse()], y: [...banded.map((row) => low[row]), ...banded.map((row) => high[row]).reverse()],
        fill: "toself", fillcolor: colour, opacity: isDark() ? 0.25 : 0.18, line: { width: 0 }, mode: "lines", hoverinfo: "skip" });
    } else if (banded.length) {
      marks.error_y = { type: "data", symmetric: false, array: banded.map((row) => high[row] - values[row]), arrayminus: banded.map((row) => values[row] - low[row]), thickness: 1, color: colour };
    }
    if (curve.length) traces.push({ ...marks, x: curve.map(at), y: curve.map((row) => values[row]), text: curve.map((row) => hover(chart, one, row)) });
    if (others.length) traces.push({ ...marks, mode: "markers", error_y: undefined, x: others.map(at), y: others.map((row) => values[row]), text: others.map((row) => hover(chart, one, row)) });
    const finished = Math.max(0, ...rows.filter((row) => status(row) === "ok").map(at));
    const failed = rows.find((row) => LOUD.includes(status(row)) && at(row) > finished);
    if (failed !== undefined) {
      const [last, before] = [curve[curve.length - 1], curve[curve.length - 2]];
      let y = top;
      if (last !== undefined) {
        const slope = before === undefined || !(values[before] > 0) ? 1 : Math.log(values[last] / values[before]) / Math.log(at(last) / at(before));
        y = chart.name === "speed_up" ? values[last] : values[last] * (at(failed) / at(last)) ** Math.min(3, Math.max(0, slope));
        traces.push({ x: [at(last), at(failed)], y: [values[last], y], mode: "lines", line: { color: colour, width: 1, dash: "dot" }, hoverinfo: "skip" });
      }
      const why = reasons[columns.reason[failed]] || "";
      const words = `<b>${escaped(one.label)}</b><br>${status(failed)} at ${text(columns.tokens[failed], "plain")} tokens (${grid(failed)})${why ? `<br>${escaped(why).replace(/(.{1,60})(\s|$)/g, "$1<br>")}` : ""}`;
      traces.push({ x: [at(failed)], y: [y], mode: "markers", name: one.label, text: [words], hovertemplate: "%{text}<extra></extra>",
        marker: { symbol: status(failed) === "timeout" ? "hourglass-open" : "x-thin-open", size: 10, color: colour, line: { width: 2 } } });
    }
    return traces;
  }

  const controls = document.getElementById("sweep-controls");
  const drawings = charts.map((chart) => figure(document.getElementById("sweep-charts"), chart.title));
  const selects = {};
  for (const name of varied) {
    selects[name] = choice(controls, FIELDS[name], options[name].map((value) => [value, value]), "", (value) => {
      state.where[name] = value;
      settle(name);
      draw();
    });
  }
  const axes = Object.keys(AXES).filter((name) => name !== "batch" || options.batch.length > 1);
  choice(controls, "Horizontal axis", axes.map((name) => [name, AXES[name][1]]), state.x, (value) => { state.x = value; settle(); draw(); });
  tick(controls, "log x", true, (on) => { state.logX = on; draw(); });
  tick(controls, "log y", true, (on) => { state.logY = on; draw(); });
  tick(controls, "intervals", true, (on) => { state.bands = on; draw(); });

  function draw() {
    for (const [name, select] of Object.entries(selects)) {
      select.value = state.where[name];
      select.parentElement.style.display = fixed().includes(name) ? "" : "none";
    }
    const rows = chosen();
    const shown = series.map((_, place) => place).filter((place) => !state.hidden.has(place) && rows[place].length);
    const at = [...new Set(shown.flatMap((place) => rows[place].map(size[state.x])))].sort((one, other) => one - other);
    const apart = Math.log(at[at.length - 1] / at[0]) / room(drawings[0][0]) * 0.999;
    const told = at.reduceRight((kept, value) => (kept.length && Math.log(kept[0] / value) < apart ? kept : [value, ...kept]), []);
    const words = (value) => (state.x === "tokens" && value % 1024 === 0 ? `${value / 1024}k` : text(Number(value.toFixed(1)), "plain"));
    const ticks = state.logX && at.length ? told.map((value) => [value, words(value)]) : null;
    charts.forEach((chart, place) => {
      const [drawing, caption] = drawings[place];
      const there = [chart.name, `${chart.name}_low`, `${chart.name}_high`].filter((name) => columns[name]);
      const values = shown.flatMap((one) => rows[one].flatMap((row) => there.map((name) => columns[name][row]))).filter((value) => value !== null);
      const top = Math.max(...values.filter((value) => value > 0), 0) || 1;
      const traces = [...shown].reverse().flatMap((one) => tracesOf(chart, series[one], rows[one], top));
      const layout = { xaxis: axis(AXES[state.x][0], state.logX, ticks), yaxis: axis("", state.logY, ticksOf(values, chart.unit, state.logY)) };
      if (chart.name === "speed_up") layout.shapes = [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: 1, y1: 1, line: { color: theme("soft"), width: 1, dash: "dash" }, layer: "below" }];
      const drawn = new Set(traces.map((trace) => trace.name));
      const absent = shown.filter((one) => !drawn.has(series[one].label) && !(series[one].baseline && chart.name === "speed_up")).map((one) => series[one].label);
      const zero = absent.length ? `; not on this axis: ${absent.join(", ")}` : "";
      const device = varied.includes("device_name") ? `${state.where.device_name}: ` : "";
      caption.textContent = `${device}${chart.note}${zero}`;
      plot(drawing, traces, layout, `${chart.title} against ${AXES[state.x][1]} of ${shown.length} series; the figures stand in the table of all cells`);
    });
  }
  settle();
  key(document.getElementById("sweep-operators"), series, state.hidden, draw);
}

if (data.sweep) sweep(data.sweep);
