// Charts of what was measured. Each is a function that gives traces and a layout.

const PLACE = ["throughput_rps", "p99_ms"];
// What is infinite has no place on a chart; the table has it.
const withP99 = study.points.filter((p) => Number.isFinite(p.p99_ms) && known(p.share));

/** Points with both of their intervals. */
function cloud(name, points, marker, own = {}) {
  const colour = own.faint ?? marker.color;
  const error_x = errorBars(points, "throughput", "rps", colour);
  const error_y = errorBars(points, "p99", "ms", colour);
  return trace(name, points, PLACE, { mode: "markers", marker, error_x, error_y, ...own });
}

function baselineCloud(name, points) {
  const { symbol, colour } = style(name);
  const mine = points.filter((p) => p.configuration === name);
  const marks = mine.map((p) => (p.phase === "verify" ? symbol : `${symbol}-open`));
  return cloud(name, mine, { symbol: marks, size: 11, color: colour, line: { width: 1.5 } });
}

function frontLine() {
  const steps = [...front].sort((a, b) => a.throughput_rps - b.throughput_rps);
  const line = { shape: "vh", color: palette()[0], width: 2 };
  return trace("front", steps, PLACE, {
    mode: "lines",
    line,
    hoverinfo: "skip",
    hovertemplate: null,
  });
}

function picked() {
  const { point, verdict } = front.length ? recommend(boundMs) : {};
  return verdict === "met" ? [point] : [];
}

function frontChart() {
  const good = withP99.filter((p) => p.counts);
  const searched = good.filter((p) => !(p.configuration in BASELINES));
  const again = (wanted) => searched.filter((p) => (p.phase === "verify") === wanted);
  const [colour, faint] = [palette()[0], tone("faint")];
  const ring = { symbol: "circle-open", size: 22, color: tone("good"), line: { width: 3 } };
  const cross = { symbol: "x-thin", size: 8, line: { width: 1.5, color: tone("bad") } };
  const traces = [
    cloud(
      "in the search",
      again(false),
      { symbol: "circle-open", size: 7, color: tone("muted") },
      { faint },
    ),
    cloud(
      "not counted",
      withP99.filter((p) => !p.counts),
      cross,
      { visible: "legendonly", faint },
    ),
    frontLine(),
    cloud("measured again", again(true), { symbol: "circle", size: 10, color: colour }),
    ...Object.keys(BASELINES).map((name) => baselineCloud(name, good)),
  ];
  const pick = trace("recommended", picked(), PLACE, {
    mode: "markers",
    marker: ring,
    hoverinfo: "skip",
    hovertemplate: null,
  });
  const seen = (good.length ? good : withP99).map((p) => p.p99_ms);
  return {
    traces: [...traces.filter((t) => t.x.length), pick],
    layout: {
      uirevision: "front",
      margin: ROOMY,
      xaxis: RATE,
      yaxis: logarithmic("p99, ms", seen),
      ...boundMarks(),
    },
  };
}

/** The bound as a line, and the name of what it recommends. */
function boundMarks() {
  if (!front.length) return {};
  const [color, y] = [tone("good"), Math.log10(boundMs)];
  const line = { type: "line", xref: "paper", x0: 0, x1: 1, y0: boundMs, y1: boundMs };
  const font = { color, size: 12 };
  const said = {
    xref: "paper",
    x: 1,
    xanchor: "right",
    y,
    yanchor: "bottom",
    showarrow: false,
    font,
  };
  const names = picked().map((p) => ({
    ...{ x: p.throughput_rps, y: Math.log10(p.p99_ms), text: harmless(p.point), font },
    ...{ ax: 34, ay: 34, arrowcolor: color, arrowwidth: 1, standoff: 12, bgcolor: tone("card") },
  }));
  return {
    shapes: [{ ...line, line: { color, width: 1.5, dash: "dash" } }],
    annotations: [{ ...said, text: `p99 ≤ ${digits(boundMs)} ms` }, ...names],
  };
}

/** What is known best of each load of a configuration: measured again, else as it was searched. */
function operating(name) {
  const best = new Map();
  for (const p of study.points) {
    const usable =
      known(p.share) && p.phase !== "drift" && !["invalid", "failed"].includes(p.verdict);
    if (p.configuration !== name || !usable) continue;
    if (!best.has(p.share) || p.phase === "verify") best.set(p.share, p);
  }
  return [...best.values()].sort((a, b) => a.share - b.share);
}

/** One line per chosen configuration; filled marks were measured again, crosses are saturated. */
function curves(field) {
  return chosen().map((name) => {
    const { colour, dash, symbol } = style(name);
    const points = operating(name).filter((p) => Number.isFinite(p[field]));
    const mark = (p) => (p.phase === "verify" ? symbol : `${symbol}-open`);
    const symbols = points.map((p) => (p.verdict === "saturated" ? "x-thin-open" : mark(p)));
    return trace(name, points, ["throughput_rps", field], {
      mode: "lines+markers",
      line: { color: colour, dash, width: 2 },
      marker: { symbol: symbols, size: 9, color: colour, line: { width: 2, color: colour } },
      showlegend: false,
      ...(field === "p99_ms" ? { error_y: errorBars(points, "p99", "ms", colour) } : {}),
    });
  });
}

function curvesChart() {
  const field = byId("quantile").value;
  const traces = curves(field);
  const title = `${field.replace("_ms", "")}, ms`;
  return {
    traces,
    layout: {
      xaxis: RATE,
      yaxis: logarithmic(
        title,
        traces.flatMap((t) => t.y),
      ),
    },
  };
}

const RESOURCES = {
  server_cpu: "processor of the server, cores",
  client_cpu: "processor of the client, cores",
  server_rss_mb: "memory of the server, MB",
  gpu_util: "GPU, share of time busy",
  gpu_mem_mb: "memory of the GPU, MB",
  cache_hit_ratio: "cache hit ratio",
  mean_batch_size: "mean batch size",
  net_mbps: "network, Mbit/s",
};
const measuredResources = Object.keys(RESOURCES).filter((field) =>
  study.points.some((p) => known(p[field])),
);
const resourceChart = (field) => () => ({
  traces: curves(field),
  layout: {
    xaxis: { title: "requests per second", rangemode: "tozero", nticks: 5 },
    yaxis: { rangemode: "tozero", nticks: 5 },
  },
});

const PARTS = {
  lateness_mean_ms: "sent late",
  connect_mean_ms: "connecting",
  server_queue_ms: "queue",
  server_compute_ms: "compute",
  network_ms: "network",
};

function partsChart() {
  const fields = Object.keys(PARTS);
  const points = chosen()
    .flatMap(operating)
    .filter((p) => known(p.server_queue_ms))
    .reverse();
  const sums = points.map((p) => fields.reduce((sum, field) => sum + (p[field] ?? 0), 0));
  const ms = (sum) => (narrow() ? "" : `  ${digits(sum)} ms`);
  const places = points.map((p, n) => harmless(p.point) + ms(sums[n]));
  const shares = byId("bars").value === "share";
  const traces = fields.map((field, n) => ({
    name: PARTS[field],
    type: "bar",
    orientation: "h",
    y: places,
    x: points.map((p, m) => (p[field] ?? 0) / (shares ? sums[m] : 1)),
    marker: { color: PART_COLOURS[n], line: { color: tone("card"), width: 1 } },
    customdata: points.map((p) => digits(p[field])),
    hovertemplate: `${PARTS[field]} %{customdata} ms<extra>%{y}</extra>`,
  }));
  byId("parts-chart").style.height = `${110 + 24 * points.length}px`;
  const xaxis = shares
    ? { title: "share of the mean latency", tickformat: ".0%", range: [0, 1] }
    : { title: "mean latency, ms" };
  const yaxis = { type: "category", tickfont: { size: 12 } };
  return {
    traces: traces.filter((t) => t.x.some((x) => x > 0)),
    layout: { barmode: "stack", bargap: 0.25, xaxis, yaxis, legend: { traceorder: "normal" } },
  };
}
