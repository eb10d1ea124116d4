// Accuracy against cost: the chart and the table of trainings.
function trainings({ points, fronts, costs }) {
  const sets = [...new Set(points.map((point) => point.data))];
  const series = [...new Map(points.map((point) => [point.label, point])).values()];
  const isHidden = (place) => state.hidden.has(series.findIndex((one) => one.label === points[place].label));
  const share = (value) => `${(100 * value).toFixed(1)}%`;
  const columns = [
    { title: "Operator", value: (row) => points[row].label },
    ...(sets.length > 1 ? [{ title: "Data", value: (row) => points[row].data }] : []),
    { title: "Accuracy", value: (row) => points[row].accuracy[0], unit: "percent", digits: 4 },
    { title: "95% interval", value: (row) => (points[row].accuracy[1] === null ? "–" : `${share(points[row].accuracy[1])} to ${share(points[row].accuracy[2])}`) },
    { title: "Seeds", value: (row) => points[row].seeds, unit: "plain" },
    ...(points.some((point) => point.failed) ? [{ title: "Failed", value: (row) => points[row].failed }] : []),
    ...costs.map((cost) => ({ title: cost.short, value: (row) => points[row][cost.name][0], unit: cost.unit })),
    { title: "Training", value: (row) => points[row].seconds, unit: "seconds" },
  ];
  table("training-table", points.length, columns, "accuracy.csv has all", "series");
  if (!costs.length) return;

  const state = { data: sets[0], cost: costs[0].name, logX: true, hidden: new Set() };
  const controls = document.getElementById("training-controls");
  if (sets.length > 1) choice(controls, "Data", sets.map((name) => [name, name]), state.data, (value) => { state.data = value; draw(); });
  choice(controls, "Horizontal axis", costs.map((cost) => [cost.name, cost.title]), state.cost, (value) => { state.cost = value; draw(); });
  tick(controls, "log x", true, (on) => { state.logX = on; draw(); });
  const [drawing, caption] = figure(document.getElementById("training-charts"), "Test accuracy");

  function draw() {
    const cost = costs.find((one) => one.name === state.cost);
    const there = points.map((_, place) => place).filter((place) => points[place].data === state.data);
    const drawn = there.filter((place) => !isHidden(place) && points[place].accuracy[0] !== null && points[place][cost.name][0] !== null);
    const prices = drawn.map((place) => points[place][cost.name][0]);
    const best = fronts[state.data][cost.name].filter((place) => drawn.includes(place));
    const traces = drawn.map((place) => {
      const one = points[place], colour = colourOf(one);
      const [mean, low, high] = one.accuracy, [price, least, most] = one[cost.name];
      const bar = (middle, from, to) => (from === null ? undefined : { type: "data", symmetric: false, array: [to - middle], arrayminus: [middle - from], thickness: 1.2, width: 0, color: colour });
      const spans = [low === null ? "one seed: no interval" : `95%: ${share(low)} to ${share(high)}, ${one.seeds} seeds`, least === null ? "" : ` (${text(least, cost.unit)} to ${text(most, cost.unit)})`];
      return { x: [price], y: [mean], error_x: bar(price, least, most), error_y: bar(mean, low, high), mode: "markers", name: one.label,
        marker: { color: colour, symbol: one.symbol, size: 11, line: { width: 1.2, color: colour } }, hovertemplate: "%{text}<extra></extra>",
        text: [`<b>${escaped(one.label)}</b><br>${share(mean)}<br>${spans[0]}<br>${text(price, cost.unit)}${spans[1]}`] };
    });
    if (best.length > 1) {
      traces.unshift({ x: best.map((place) => points[place][cost.name][0]), y: best.map((place) => points[place].accuracy[0]), mode: "lines",
        line: { color: theme("soft"), width: 1, dash: "dot", shape: "hv" }, hoverinfo: "skip" });
    }
    const layout = { xaxis: { ...axis(cost.title, state.logX, ticksOf(prices, cost.unit, state.logX, Math.min(...prices), room(drawing))), rangemode: "normal" },
      yaxis: { ...axis("", false, null), tickformat: ".1~%", rangemode: "normal" } };
    const absent = there.filter((place) => !isHidden(place) && !drawn.includes(place)).map((place) => points[place].label);
    caption.textContent = `dotted: the front, what nothing else beats in one without losing in the other${absent.length ? `; not shown: ${absent.join(", ")}` : ""}`;
    plot(drawing, traces, layout, `Test accuracy on ${state.data} against ${cost.title} of ${drawn.length} series; the figures stand in the table below`);
  }
  key(document.getElementById("training-operators"), series, state.hidden, draw);
}

if (data.trainings) trainings(data.trainings);
