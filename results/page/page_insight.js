// Charts of what was learnt: which knobs matter, and how the search went.

const TOGETHER = "several together";

function importanceChart() {
  const { capacity, p99: tail } = study.importances ?? { capacity: {}, p99: {} };
  const knobs = [...new Set([...Object.keys(capacity), ...Object.keys(tail)])].reverse();
  const left = (shares) => Math.max(0, 1 - Object.values(shares).reduce((a, b) => a + b, 0));
  const shown = (shares) => [left(shares), ...knobs.map((knob) => shares[knob] ?? 0)];
  const bar = (name, shares, color) => ({
    name,
    type: "bar",
    orientation: "h",
    y: [TOGETHER, ...knobs],
    x: Object.keys(shares).length ? shown(shares) : [],
    marker: { color },
    texttemplate: "%{x:.0%}",
    textposition: "outside",
    cliponaxis: false,
    hovertemplate: "%{y}: %{x:.1%}<extra></extra>",
  });
  const [blue, vermilion] = palette();
  const traces = [bar("p99", tail, vermilion), bar("throughput", capacity, blue)];
  const yaxis = { type: "category", ticksuffix: " " };
  const longest = Math.max(0.1, ...traces.flatMap((t) => t.x));
  const range = [0, (narrow() ? 1.3 : 1.1) * longest];
  const xaxis = { title: "share of the variance", tickformat: ".0%", range, nticks: 5 };
  byId("importance-chart").style.height = `${120 + 44 * (knobs.length + 1)}px`;
  return {
    traces: traces.filter((t) => t.x.length),
    layout: { bargap: 0.3, xaxis, yaxis, legend: { traceorder: "reversed" } },
  };
}

/** The knobs that really had more than one value among what was measured. */
const varied = Object.keys(study.searched).filter(
  (knob) => new Set(Object.values(study.configurations).map((c) => c.knobs[knob])).size > 1,
);

/** A configuration's capacity, or what it did at the chosen share of it; nothing if unknown. */
function sliced(name, share) {
  if (share !== "") return operating(name).filter((p) => p.counts && p.share === +share);
  const probes = study.points.filter((p) => p.configuration === name && p.phase === "probe");
  return probes.filter((p) => p.throughput_rps).slice(0, 1);
}

/** Those that are chosen come last, so they are drawn above the others, and in their colours. */
function sliceMarks(share) {
  const coloured = chosen();
  const others = Object.keys(study.configurations).filter((name) => !coloured.includes(name));
  const points = [...others, ...coloured].flatMap((name) => sliced(name, share));
  const plain = { colour: tone("muted"), symbol: "circle" };
  const look = (p) => (coloured.includes(p.configuration) ? style(p.configuration) : plain);
  const color = points.map((p) => look(p).colour);
  const symbol = points.map((p) => look(p).symbol);
  return { points, marker: { size: 9, color, symbol, line: { width: 1, color: tone("card") } } };
}

const sliceChart = (knob) => () => {
  const share = byId("slice-of").value;
  const [field, best] = share === "" ? ["throughput_rps", highest] : ["p99_ms", lowest];
  const value = (p) => configurationOf(p).knobs[knob];
  const { points, marker } = sliceMarks(share);
  const values = [...new Set(points.map(value))].sort(order);
  const having = (wanted) => points.filter((p) => value(p) === wanted);
  const bests = values.map((wanted) => best(having(wanted), field));
  const at = (own) => ({ x: own.map((p) => String(value(p))) });
  const line = { color: tone("muted"), width: 1, dash: "dot" };
  const joined = { mode: "lines", line, hoverinfo: "skip", hovertemplate: null };
  const traces = [
    trace("best", bests, [knob, field], { ...at(bests), ...joined }),
    trace("measured", points, [knob, field], { ...at(points), mode: "markers", marker }),
  ];
  const texts = values.map(String);
  const xaxis = { type: "category", categoryarray: texts, range: [-0.4, texts.length - 0.6] };
  const seen = points.map((p) => p[field]);
  const yaxis = share === "" ? { rangemode: "tozero", nticks: 5 } : logarithmic("", seen);
  return { traces, layout: { showlegend: false, xaxis, yaxis } };
};

const minutes = (seconds) => seconds / 60;

function stageMarks() {
  const { stages, spent_s } = study.progress;
  const spans = stages.map(([name, from], n) => ({
    name,
    from,
    to: stages[n + 1]?.[1] ?? spent_s,
  }));
  const bands = spans.map(({ from, to }, n) => ({
    ...{ type: "rect", layer: "below", line: { width: 0 } },
    ...{ yref: "paper", y0: 0, y1: 1, x0: minutes(from), x1: minutes(to) },
    fillcolor: n % 2 ? tone("ground") : "rgba(0,0,0,0)",
  }));
  const labels = spans.map(({ name, from, to }) => {
    const upright = (to - from) / spent_s < (narrow() ? 0.3 : 0.12);
    return {
      ...{ text: ` ${name}`, showarrow: false, font: { size: 12, color: tone("muted") } },
      ...{ yref: "paper", y: 0.98, yanchor: "top", textangle: upright ? -90 : 0 },
      x: minutes(upright ? (from + to) / 2 : from),
      xanchor: upright ? "center" : "left",
    };
  });
  return { shapes: bands, annotations: labels };
}

function level(name, height, line) {
  const x = [0, minutes(study.progress.spent_s)];
  const own = { type: "scatter", mode: "lines", hovertemplate: `${name} %{y:.2f}<extra></extra>` };
  return known(height)
    ? [{ name, x, y: [height, height], line: { width: 2, ...line }, ...own }]
    : [];
}

function searchChart() {
  const { reached, spent_s, verified, default: base } = study.progress;
  const seen = {
    ...{ name: "as the search saw it", type: "scatter", mode: "lines+markers" },
    ...{ x: reached.map(([spent]) => minutes(spent)), y: reached.map(([, volume]) => volume) },
    ...{ line: { shape: "hv", color: tone("muted"), width: 2 }, marker: { size: 5 } },
    hovertemplate: "%{x:.1f} min: %{y:.2f}<extra></extra>",
  };
  const top = 1.35 * Math.max(0.1, verified ?? 0, ...seen.y);
  const traces = [
    seen,
    ...level("front measured again", verified, { color: palette()[0] }),
    ...level("default", base, { dash: "dot", color: tone("ink") }),
  ];
  const xaxis = { title: "minutes of the study", range: [0, minutes(spent_s)] };
  return {
    traces,
    layout: { ...stageMarks(), xaxis, yaxis: { title: "hypervolume", range: [0, top] } },
  };
}
