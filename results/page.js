"use strict";
// Everything shown comes from this one document. It enters the page as text, never as markup.
const study = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const known = (value) => value !== null && value !== undefined;
const configurationOf = (point) => study.configurations[point.configuration];

// ---- words and numbers ------------------------------------------------------------------------

/** So many significant digits, but every one before the point, and never a power of ten. */
function digits(value, count = 3) {
  if (!known(value)) return "";
  const whole = Math.abs(value) >= 10 ** (count - 1);
  return whole ? Math.round(value).toLocaleString("en") : String(+value.toPrecision(count));
}
const interval = (low, high) =>
  known(low) && known(high) ? `${digits(low)} – ${digits(high)}` : "undetermined";
const figures = (p) =>
  `${digits(p.throughput_rps)}/s [${interval(p.throughput_low_rps, p.throughput_high_rps)}] ` +
  `at p99 ${digits(p.p99_ms)} ms [${interval(p.p99_low_ms, p.p99_high_ms)}]`;
/** Plotly takes some tags for markup, so nothing may look like one. */
const harmless = (text) =>
  String(text).replace(/[&<>]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c]);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (known(value) && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}
const terms = (entries) =>
  element("dl", {}, ...entries.flatMap(([term, text]) => [element("dt", {}, term), element("dd", {}, text)]));

// ---- colours ----------------------------------------------------------------------------------

const media = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ?? (media.matches ? "dark" : "light")) === "dark";
/** Okabe and Ito's, those with the most contrast first. */
const palette = () =>
  isDark()
    ? ["#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#0072B2"]
    : ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"];
const DASHES = ["solid", "dash", "dot", "dashdot"];
const SYMBOLS = { circle: "M8 4.5a3.5 3.5 0 1 0 .01 0", square: "M5 5h6v6h-6z", diamond: "M8 3.5l4.5 4.5-4.5 4.5-4.5-4.5z", "triangle-up": "M8 4l4.5 7.5h-9z" };

const probe = document.body.appendChild(element("i", { hidden: true }));
function tone(name) {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

/** How a configuration is drawn: baselines in grey tones, the others by their order. */
function style(name) {
  const symbols = Object.keys(SYMBOLS);
  if (study.configurations[name].baseline) {
    return { colour: tone(name === "naive" ? "muted" : "ink"), dash: "dot", symbol: name === "naive" ? "square" : "diamond" };
  }
  const searched = Object.keys(study.configurations).filter((n) => !study.configurations[n].baseline);
  const place = searched.indexOf(name);
  const colours = palette();
  return { colour: colours[place % colours.length], dash: DASHES[Math.floor(place / colours.length) % 4], symbol: symbols[place % symbols.length] };
}

// ---- the recommendation -----------------------------------------------------------------------

const front = study.points.filter((p) => study.finished && p.on_front);
const highest = (points, field) => points.reduce((a, b) => (b[field] > a[field] ? b : a));
const lowest = (points, field) => points.reduce((a, b) => (b[field] < a[field] ? b : a));

/** Met or missed only if the whole 95 % interval says so (tuner/recommend.py). */
function standing(point, boundMs) {
  if (known(point.p99_high_ms) && point.p99_high_ms <= boundMs) return "met";
  return known(point.p99_low_ms) && point.p99_low_ms > boundMs ? "missed" : "undecided";
}

/** The highest throughput that surely holds the bound; if none does, the likeliest to. */
function recommend(boundMs) {
  const sure = front.filter((p) => standing(p, boundMs) === "met");
  if (sure.length) return { point: highest(sure, "throughput_rps"), verdict: "met" };
  const open = front.some((p) => standing(p, boundMs) === "undecided");
  return { point: lowest(front, "p99_ms"), verdict: open ? "undecided" : "missed" };
}

/** The slider is logarithmic, from below the lowest end of an interval to above the highest. */
const ends = (() => {
  if (!front.length) return [1, 1000];
  const slowest = highest(front, "p99_ms").p99_ms;
  const highs = front.map((p) => Math.min(p.p99_high_ms ?? p.p99_ms, 10 * slowest));
  return [0.8 * Math.min(...front.map((p) => p.p99_low_ms ?? p.p99_ms)), 1.2 * Math.max(...highs)];
})();
const toBound = (place) => ends[0] * (ends[1] / ends[0]) ** (place / 1000);
const toPlace = (boundMs) => (1000 * Math.log(boundMs / ends[0])) / Math.log(ends[1] / ends[0]);
let boundMs = toBound(500);

const VERDICTS = {
  met: (p, b) => `holds ${b} ms: the whole 95 % interval is within it`,
  undecided: (p, b) => `undecided: nothing is sure to hold ${b} ms; the likeliest is ${p.point}`,
  missed: (p, b) => `missed: nothing holds ${b} ms; the nearest is ${p.point}`,
};

function showPick() {
  const pane = byId("pick");
  if (!front.length) {
    pane.replaceChildren(study.finished ? "No point held up when it was measured again." : "This study is under way: nothing has been measured again yet, so nothing is recommended.");
    return;
  }
  const { point, verdict } = recommend(boundMs);
  const figure = (value, name, between) =>
    element("div", { class: "figure" }, element("span", {}, name), element("span", {}, element("b", {}, value), element("br"), between));
  pane.dataset.point = verdict === "met" ? point.point : "";
  pane.dataset.verdict = verdict;
  pane.replaceChildren(
    element("p", { class: "name" }, verdict === "met" ? point.point : "undecided".replace("undecided", verdict)),
    element("p", { class: `standing ${verdict}` }, VERDICTS[verdict](point, digits(boundMs))),
    figure(`${digits(point.throughput_rps)} /s`, "throughput", interval(point.throughput_low_rps, point.throughput_high_rps)),
    figure(`${digits(point.p99_ms)} ms`, "p99", interval(point.p99_low_ms, point.p99_high_ms)),
    ...(known(point.server_cpu) ? [figure(`${digits(point.server_cpu)} cores`, "processor", known(point.server_rss_mb) ? `${digits(point.server_rss_mb)} MB of memory` : "")] : []),
    element("ul", {}, ...configurationOf(point).changes.split(", ").map((text) => element("li", {}, text))),
    element("button", { type: "button", class: "main", onclick: () => copyToml(point) }, "Copy as TOML"),
  );
}

function setBound(value, source) {
  if (!(value > 0)) return;
  boundMs = value;
  if (source !== "slider") byId("slo").value = toPlace(value);
  if (source !== "number") byId("slo-ms").value = +value.toPrecision(3);
  byId("slo").setAttribute("aria-valuetext", `${digits(value)} ms`);
  showPick();
  draw("front-chart");
}

// ---- copying ----------------------------------------------------------------------------------

const toml = (point) => `# ${point.point}: ${figures(point)}`.replace(/[\u0000-\u001f\u007f]/g, " ") + `\n${configurationOf(point).toml}`;

async function copyToml(point) {
  const text = toml(point);
  try {
    await navigator.clipboard.writeText(text);
    say(`${point.point} copied; save it as a file for dlbench serve --config`);
  } catch {
    const dialog = byId("toml");
    dialog.querySelector("textarea").value = text;
    dialog.showModal();
    dialog.querySelector("textarea").select();
  }
}

let silence = 0;
function say(text) {
  byId("said").textContent = text;
  byId("said").classList.add("shown");
  clearTimeout(silence);
  silence = setTimeout(() => byId("said").classList.remove("shown"), 3000);
}

// ---- charts -----------------------------------------------------------------------------------

const coarse = matchMedia("(pointer: coarse)").matches;
const CONFIG = { displaylogo: false, responsive: true, displayModeBar: coarse ? false : "hover", modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

/** What all charts have in common; axes are merged, the rest is replaced. */
function layout(own) {
  const axis = { gridcolor: tone("line"), linecolor: tone("line"), zeroline: false, automargin: true, title: { font: { size: 13 }, standoff: 8 } };
  const merged = (theirs = {}) => ({ ...axis, ...theirs, title: { ...axis.title, text: theirs.title ?? "" } });
  return {
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: tone("ink") },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", dragmode: coarse ? false : "zoom", hovermode: "closest",
    hoverlabel: { align: "left", bgcolor: tone("ground"), bordercolor: tone("line"), font: { color: tone("ink"), size: 12 } },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12 } },
    margin: { l: 10, r: 14, t: 10, b: 10 },
    ...own, xaxis: merged(own.xaxis), yaxis: merged(own.yaxis),
  };
}

/** An axis in milliseconds over these values; what lies outside can be zoomed to. */
function logarithmic(title, values) {
  const [low, high] = [Math.min(...values) / 1.5, Math.max(...values) * 1.5];
  const steps = high / low > 300 ? [1] : [1, 2, 5];
  const ticks = Array.from({ length: 14 }, (_, n) => steps.map((s) => s * 10 ** (n - 6))).flat();
  return { type: "log", title, tickvals: ticks, ticktext: ticks.map((t) => digits(t)), range: [Math.log10(low), Math.log10(high)] };
}

function bars(points, field, unit, colour) {
  const ends = (end) => points.map((p) => p[`${field}_${end}_${unit}`]);
  const values = points.map((p) => p[`${field}_${unit}`]);
  const reach = (end, sign) => ends(end).map((e, i) => (known(e) ? sign * (e - values[i]) : 0));
  return { type: "data", symmetric: false, array: reach("high", 1), arrayminus: reach("low", -1), thickness: 1, width: 3, color: colour };
}

function hover(p) {
  const lines = [`<b>${harmless(p.point)}</b>  ${p.phase}, ${p.verdict}`, `${digits(p.throughput_rps)}/s [${interval(p.throughput_low_rps, p.throughput_high_rps)}]`, `p99 ${digits(p.p99_ms)} ms [${interval(p.p99_low_ms, p.p99_high_ms)}]`];
  const knobs = configurationOf(p).changes.split(", ").map(harmless);
  const why = p.reason ? harmless(p.reason).replace(/(.{50,70}) /g, "$1<br>") : [];
  return [...lines, ...knobs, `${digits(p.requests)} requests`].concat(why).join("<br>");
}

function cloud(name, points, marker, extra = {}) {
  const { faint = marker.color, ...rest } = extra;
  return {
    name, type: "scatter", mode: "markers", x: points.map((p) => p.throughput_rps), y: points.map((p) => p.p99_ms),
    error_x: bars(points, "throughput", "rps", faint), error_y: bars(points, "p99", "ms", faint),
    text: points.map(hover), hovertemplate: "%{text}<extra></extra>", marker, ...rest,
  };
}

function frontChart() {
  const measured = study.points.filter((p) => known(p.p99_ms) && known(p.share));
  const good = measured.filter((p) => p.counts);
  const baseline = (p) => configurationOf(p).baseline;
  const verified = (p) => p.phase === "verify";
  const [colour, muted] = [palette()[0], tone("muted")];
  const line = [...front].sort((a, b) => a.throughput_rps - b.throughput_rps);
  const marked = (name, symbol, own) => cloud(name, own, { symbol, size: 12, color: tone("ink"), line: { width: 1, color: tone("card") } });
  const traces = [
    cloud("seen in the search", good.filter((p) => !verified(p) && !baseline(p)), { symbol: "circle-open", size: 7, color: muted }, { opacity: 0.6, faint: tone("line") }),
    cloud("invalid or saturated", measured.filter((p) => !p.counts), { symbol: "x-thin-open", size: 8, color: tone("bad") }, { visible: "legendonly", faint: tone("line") }),
    { name: "front", type: "scatter", mode: "lines", x: line.map((p) => p.throughput_rps), y: line.map((p) => p.p99_ms), line: { shape: "vh", color: colour, width: 2 }, hoverinfo: "skip" },
    cloud("measured again", good.filter((p) => verified(p) && !baseline(p)), { symbol: "circle", size: 10, color: colour }),
    marked("naive", "square", good.filter((p) => p.configuration === "naive")),
    marked("default", "diamond", good.filter((p) => p.configuration === "default")),
  ];
  if (front.length) {
    const { point, verdict } = recommend(boundMs);
    const picked = verdict === "met" ? [point] : [];
    traces.push({ name: "recommended", type: "scatter", mode: "markers+text", x: picked.map((p) => p.throughput_rps), y: picked.map((p) => p.p99_ms), text: picked.map((p) => ` ${harmless(p.point)}`), textposition: "bottom right", textfont: { size: 13, color: tone("good") }, marker: { symbol: "circle-open", size: 22, color: tone("good"), line: { width: 3 } }, hoverinfo: "skip" });
  }
  const shown = good.length ? good : measured;
  const bound = { type: "line", xref: "paper", x0: 0, x1: 1, y0: boundMs, y1: boundMs, line: { color: tone("good"), width: 1.5, dash: "dash" } };
  const label = { xref: "paper", x: 1, xanchor: "right", y: Math.log10(boundMs), yanchor: "bottom", text: `p99 ≤ ${digits(boundMs)} ms`, showarrow: false, font: { color: tone("good"), size: 12 } };
  return { traces: traces.filter((t) => t.x.length || t.name === "recommended"), layout: { uirevision: "front", xaxis: { title: "throughput, requests per second", rangemode: "tozero" }, yaxis: logarithmic("p99, ms", shown.map((p) => p.p99_ms)), shapes: front.length ? [bound] : [], annotations: front.length ? [label] : [] } };
}

// What is known best of each load of a configuration: measured again, else as it was searched.
function operating(name) {
  const own = study.points.filter((p) => p.configuration === name && known(p.share) && p.phase !== "drift" && p.verdict !== "invalid" && p.verdict !== "failed");
  const best = new Map();
  for (const p of own) if (!best.has(p.share) || p.phase === "verify") best.set(p.share, p);
  return [...best.values()].sort((a, b) => a.share - b.share);
}

const chosen = () => [...byId("chooser").querySelectorAll(":checked")].map((box) => box.value);

function lines(field, extra = {}) {
  return chosen().map((name) => {
    const { colour, dash, symbol } = style(name);
    const points = operating(name).filter((p) => known(p[field]));
    const marks = points.map((p) => (p.verdict === "saturated" ? "x-thin-open" : p.phase === "verify" ? symbol : `${symbol}-open`));
    const bar = field === "p99_ms" ? { error_y: bars(points, "p99", "ms", colour) } : {};
    return { name, type: "scatter", mode: "lines+markers", x: points.map((p) => p.throughput_rps), y: points.map((p) => p[field]), text: points.map(hover), hovertemplate: `${field} %{y:.3~s}<br>%{text}<extra></extra>`, line: { color: colour, dash, width: 2 }, marker: { symbol: marks, size: 9, color: colour, line: { width: 2, color: colour } }, showlegend: false, ...bar, ...extra };
  });
}

function curvesChart() {
  const field = byId("quantile").value;
  const traces = lines(field);
  const values = traces.flatMap((t) => t.y);
  return { traces, layout: { xaxis: { title: "throughput, requests per second", rangemode: "tozero" }, yaxis: logarithmic(`${field.replace("_ms", "")}, ms`, values.length ? values : [1, 100]) } };
}

const PART_NAMES = { lateness_mean_ms: "sent late", connect_mean_ms: "connecting", server_queue_ms: "queue", server_compute_ms: "compute", network_ms: "network" };

function partsChart() {
  const points = chosen().flatMap(operating).filter((p) => study.parts.some((part) => known(p[part]))).reverse();
  const shares = byId("bars").value === "share";
  const sums = points.map((p) => study.parts.reduce((sum, part) => sum + (p[part] ?? 0), 0));
  const places = points.map((p, i) => `${harmless(p.point)}  ${digits(sums[i])} ms`);
  const colours = ["#CC79A7", "#F0E442", "#E69F00", "#0072B2", "#56B4E9"];
  const traces = study.parts.map((part, n) => ({
    name: PART_NAMES[part], type: "bar", orientation: "h", y: places, x: points.map((p, i) => (known(p[part]) ? (shares ? p[part] / sums[i] : p[part]) : null)),
    marker: { color: colours[n], line: { color: tone("card"), width: 1 } }, customdata: points.map((p) => digits(p[part])), hovertemplate: `${PART_NAMES[part]} %{customdata} ms<extra>%{y}</extra>`,
  }));
  const seen = traces.filter((t) => t.x.some((x) => x > 0));
  byId("parts-chart").style.height = `${90 + 24 * points.length}px`;
  return { traces: seen, layout: { barmode: "stack", bargap: 0.25, xaxis: shares ? { title: "share of the mean latency", tickformat: ".0%", range: [0, 1] } : { title: "mean latency, ms" }, yaxis: { type: "category", tickfont: { size: 12 } }, legend: { ...layout({}).legend, traceorder: "normal" } } };
}

const RESOURCES = { server_cpu: "processor of the server, cores", client_cpu: "processor of the client, cores", server_rss_mb: "memory of the server, MB", gpu_util: "GPU, share of time busy", gpu_mem_mb: "memory of the GPU, MB", cache_hit_ratio: "cache hit ratio", mean_batch_size: "mean batch size", net_mbps: "network, Mbit/s" };
const measuredResources = Object.keys(RESOURCES).filter((field) => study.points.some((p) => known(p[field])));
const resourceChart = (field) => () => ({ traces: lines(field), layout: { xaxis: { title: "requests per second", rangemode: "tozero", nticks: 5 }, yaxis: { rangemode: "tozero", nticks: 5 } } });

function importanceChart() {
  const { capacity, p99 } = study.importances ?? { capacity: {}, p99: {} };
  const knobs = [...new Set([...Object.keys(capacity), ...Object.keys(p99)])].reverse();
  const together = (shares) => Math.max(0, 1 - Object.values(shares).reduce((a, b) => a + b, 0));
  const places = ["several together", ...knobs];
  const colours = palette();
  const trace = (name, shares, colour) => ({ name, type: "bar", orientation: "h", y: places, x: [Object.keys(shares).length ? together(shares) : null, ...knobs.map((k) => shares[k])], marker: { color: colour }, texttemplate: "%{x:.0%}", textposition: "outside", cliponaxis: false, hovertemplate: "%{y}: %{x:.1%}<extra></extra>" });
  byId("importance-chart").style.height = `${110 + 44 * places.length}px`;
  return { traces: knobs.length ? [trace("p99", p99, colours[1]), trace("throughput", capacity, colours[0])] : [], layout: { barmode: "group", bargap: 0.3, xaxis: { title: "share of the variance over all configurations", tickformat: ".0%", range: [0, 1.08] }, yaxis: { type: "category" }, legend: { ...layout({}).legend, traceorder: "reversed" } } };
}

const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
/** The knobs that really had more than one value among what was measured. */
const varied = Object.keys(study.searched).filter((knob) => new Set(Object.values(study.configurations).map((c) => c.knobs[knob])).size > 1);

const sliceChart = (knob) => () => {
  const share = byId("slice-of").value;
  const field = share === "" ? "throughput_rps" : "p99_ms";
  const of = (name) => (share === "" ? study.points.filter((p) => p.configuration === name && !known(p.share) && p.phase !== "drift").slice(0, 1) : operating(name).filter((p) => p.counts && p.share === Number(share)));
  const points = Object.keys(study.configurations).flatMap(of).filter((p) => known(p[field]));
  const value = (p) => configurationOf(p).knobs[knob];
  const values = [...new Set(points.map(value))].sort(order);
  const best = values.map((v) => points.filter((p) => value(p) === v).map((p) => p[field])).map((own) => (share === "" ? Math.max(...own) : Math.min(...own)));
  const dots = { type: "scatter", mode: "markers", x: points.map((p) => String(value(p))), y: points.map((p) => p[field]), text: points.map(hover), hovertemplate: "%{text}<extra></extra>", marker: { size: 9, color: points.map((p) => style(p.configuration).colour), symbol: points.map((p) => style(p.configuration).symbol), line: { width: 1, color: tone("card") } } };
  const line = { type: "scatter", mode: "lines", x: values.map(String), y: best, line: { color: tone("muted"), width: 1, dash: "dot" }, hoverinfo: "skip" };
  const scale = share === "" ? { rangemode: "tozero", nticks: 5 } : logarithmic("", points.length ? points.map((p) => p.p99_ms) : [1, 100]);
  return { traces: [line, dots], layout: { showlegend: false, xaxis: { type: "category", categoryorder: "array", categoryarray: values.map(String) }, yaxis: scale } };
};

function searchChart() {
  const { reached, stages, spent_s, verified, default: reference } = study.progress;
  const minutes = (s) => s / 60;
  const level = (name, height, dash, colour) => (known(height) ? [{ name, type: "scatter", mode: "lines", x: [0, minutes(spent_s)], y: [height, height], line: { dash, color: colour, width: 2 }, hovertemplate: "%{y:.2f}<extra></extra>" }] : []);
  const until = stages.map((_, n) => stages[n + 1]?.[1] ?? spent_s);
  const shapes = stages.map(([, from], n) => ({ type: "rect", yref: "paper", y0: 0, y1: 1, x0: minutes(from), x1: minutes(until[n]), layer: "below", line: { width: 0 }, fillcolor: n % 2 ? tone("ground") : "rgba(0,0,0,0)" }));
  const annotations = stages.map(([name, from], n) => {
    const narrow = (until[n] - from) / spent_s < (innerWidth < 640 ? 0.3 : 0.12);
    return { x: minutes(narrow ? (from + until[n]) / 2 : from), y: 0.02, yref: "paper", yanchor: "bottom", xanchor: narrow ? "center" : "left", text: ` ${name}`, textangle: narrow ? -90 : 0, showarrow: false, font: { size: 12, color: tone("muted") } };
  });
  const seen = { name: "seen in the search", type: "scatter", mode: "lines+markers", x: reached.map(([s]) => minutes(s)), y: reached.map(([, v]) => v), line: { shape: "hv", color: tone("muted"), width: 2 }, marker: { size: 5 }, hovertemplate: "%{x:.1f} min: %{y:.2f}<extra></extra>" };
  return { traces: [seen, ...level("front that was measured again", verified, "solid", palette()[0]), ...level("default", reference, "dot", tone("ink"))], layout: { shapes, annotations, xaxis: { title: "minutes of the study", range: [0, minutes(spent_s)] }, yaxis: { title: "hypervolume", rangemode: "tozero" } } };
}

const CHARTS = { "front-chart": frontChart, "curves-chart": curvesChart, "parts-chart": partsChart, "importance-chart": importanceChart, "search-chart": searchChart };
const CHOSEN = ["curves-chart", "parts-chart"];
const SLICES = [];

/** Every small chart gets a place of its own, under a caption. */
function addSmall(container, id, caption, chart, group) {
  CHARTS[id] = chart;
  group.push(id);
  byId(container).append(element("figure", {}, element("figcaption", {}, caption), element("div", { id, class: "chart" })));
}

function draw(...ids) {
  if (!window.Plotly) return;
  for (const id of ids) {
    const { traces, layout: own } = CHARTS[id]();
    Plotly.react(byId(id), traces, layout(own), CONFIG);
  }
}
const drawAll = () => { showChips(); draw(...Object.keys(CHARTS)); };

/** Plotly lies packed in the page; the browser itself unpacks it. */
async function loadPlotly() {
  const packed = Uint8Array.from(atob(byId("plotly").textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  document.head.append(element("script", {}, await new Response(stream).text()));
}

// ---- the configurations to show ---------------------------------------------------------------

function chip(name, checked) {
  const box = element("input", { type: "checkbox", value: name, checked, onchange: () => draw(...CHOSEN) });
  return element("label", { class: "chip", title: study.configurations[name].changes }, box, name);
}

/** A chip carries the colour and the mark of its curve, so it is the charts' legend too. */
function showChips() {
  for (const label of byId("chooser").querySelectorAll(".chip")) {
    const { colour, symbol } = style(label.querySelector("input").value);
    label.querySelector("svg")?.remove();
    const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    picture.setAttribute("viewBox", "0 0 16 16");
    picture.setAttribute("width", "16");
    const path = picture.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "path"));
    path.setAttribute("d", SYMBOLS[symbol]);
    path.setAttribute("fill", colour);
    label.querySelector("input").after(picture);
  }
}

function firstChosen() {
  const best = front.length ? [...new Set(front.map((p) => p.configuration))] : Object.keys(study.configurations).slice(0, 4);
  return new Set(["naive", "default", ...best]);
}

// ---- the table --------------------------------------------------------------------------------

const COLUMNS = [
  ...["point", "phase", "verdict", "offered_rps", "throughput_rps", "p50_ms", "p99_ms", "p999_ms", "mean_ms", "error_rate", "requests"],
  ...["server_cpu", "server_rss_mb", "gpu_util", "gpu_mem_mb", "client_cpu", "cache_hit_ratio", "mean_batch_size", ...study.parts],
  ...Object.keys(study.searched),
];
const rows = study.points.map((p) => ({ ...configurationOf(p).knobs, ...p, _point: p }));
const columns = COLUMNS.filter((name) => rows.some((row) => known(row[name]) && row[name] !== ""));
const isNumber = (name) => rows.some((row) => typeof row[name] === "number");
let sorted = { by: "throughput_rps", descending: true };

const COMPARISONS = { "<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b, "=": (a, b) => String(a) === String(b) || a === Number(b), "!=": (a, b) => String(a) !== String(b) && a !== Number(b) };

/** A word stands in what a row says; `p99_ms<20` compares a column. All of them have to hold. */
function matches(row, word) {
  const [, name, sign, value] = word.match(/^(\w+)(<=|>=|!=|<|>|=)(.+)$/) ?? [];
  if (!name || !(name in row)) return [row.point, row.phase, row.verdict, row.reason ?? "", configurationOf(row).changes].join(" ").toLowerCase().includes(word.toLowerCase());
  return known(row[name]) && COMPARISONS[sign](row[name], sign.includes("=") && sign.length === 1 ? value : typeof row[name] === "number" ? Number(value) : value);
}

function visible() {
  const words = byId("filter").value.split(/\s+/).filter(Boolean);
  const [phase, verdict] = [byId("filter-phase").value, byId("filter-verdict").value];
  const kept = rows.filter((row) => (!phase || row.phase === phase) && (!verdict || row.verdict === verdict) && (!byId("filter-front").checked || row.on_front) && words.every((word) => matches(row, word)));
  const sign = sorted.descending ? -1 : 1;
  return kept.sort((a, b) => Number(!known(a[sorted.by])) - Number(!known(b[sorted.by])) || sign * order(a[sorted.by] ?? 0, b[sorted.by] ?? 0));
}

function cell(row, name) {
  if (name === "point") return element("th", { scope: "row" }, row.point + (row.recommended ? " ★" : ""));
  const value = row[name];
  if (typeof value !== "number") return element("td", { class: name === "verdict" ? value : null, title: name === "verdict" ? row.reason : null }, known(value) ? String(value) : "");
  const between = name === "p99_ms" || name === "throughput_rps";
  const [stem, unit] = name.split("_");
  const range = between && known(row[`${stem}_low_${unit}`]) ? [" ", element("small", {}, `[${interval(row[`${stem}_low_${unit}`], row[`${stem}_high_${unit}`])}]`)] : [];
  return element("td", { class: "number" }, digits(value, name === "error_rate" ? 2 : 3), ...range);
}

function showTable() {
  const found = visible();
  byId("count").textContent = `${found.length} of ${rows.length} points`;
  byId("table").tBodies[0].replaceChildren(...found.map((row) =>
    element("tr", { class: row.recommended ? "recommended" : null }, ...columns.map((name) => cell(row, name)),
      element("td", {}, element("button", { type: "button", "aria-label": `copy ${row.point} as TOML`, onclick: () => copyToml(row._point) }, "TOML")))));
  for (const head of byId("table").tHead.querySelectorAll("th[data-name]")) {
    if (head.dataset.name === sorted.by) head.setAttribute("aria-sort", sorted.descending ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
}

function sortBy(name) {
  sorted = { by: name, descending: sorted.by === name ? !sorted.descending : isNumber(name) };
  showTable();
}

function setUpTable() {
  const head = (name) => element("th", { scope: "col", "data-name": name, class: isNumber(name) ? "number" : null }, element("button", { type: "button", onclick: () => sortBy(name) }, name));
  byId("table").tHead.append(element("tr", {}, ...columns.map(head), element("th", { scope: "col" }, "copy")));
  for (const [id, name] of [["filter-phase", "phase"], ["filter-verdict", "verdict"]]) {
    byId(id).append(...[...new Set(rows.map((row) => row[name]))].map((value) => element("option", {}, value)));
    byId(id).addEventListener("change", showTable);
  }
  byId("filter").addEventListener("input", showTable);
  byId("filter-front").addEventListener("change", showTable);
  showTable();
}

// ---- text -------------------------------------------------------------------------------------

function tail(entry) {
  return entry.log_tail ? [element("details", {}, element("summary", {}, "the end of its log"), element("pre", {}, entry.log_tail))] : [];
}

function setUpUncounted() {
  const counts = new Map();
  for (const entry of study.uncounted) {
    const kind = entry.verdict === "ok" ? (entry.reason ? "lossy" : "disturbed") : entry.verdict;
    counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  const MEANING = { failed: "the configuration did not run", invalid: "the load generator was the limit, so it says nothing of the server", saturated: "the server did not keep up with what was offered", unsteady: "it did not settle; kept, with a wider interval", lossy: "more than one request in a thousand was lost", disturbed: "something else ran meanwhile; kept" };
  const row = (entry) =>
    element("tr", {}, element("th", { scope: "row" }, entry.point), element("td", {}, entry.phase + (entry.phase === "verify" ? ` ${entry.repeat}` : "")), element("td", { class: entry.verdict }, entry.verdict), element("td", { class: "reason" }, [entry.reason, ...entry.disturbances].filter(Boolean).join("; "), ...tail(entry)));
  const head = element("tr", {}, ...["point", "phase", "verdict", "why"].map((name) => element("th", { scope: "col" }, name)));
  byId("uncounted-list").append(...(study.uncounted.length ? [terms([...counts].map(([kind, count]) => [`${count} ${kind}`, MEANING[kind]])), element("p"), element("div", { class: "scroll" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...study.uncounted.map(row))))] : ["Everything that was measured counts."]));
}

function setUpText() {
  byId("heading").textContent = `How to serve ${study.model}`;
  const machine = study.facts.Machine?.processor;
  byId("about").textContent = [`${study.points.length} points`, machine, study.device, study.study].filter(Boolean).join(" · ");
  const said = Object.entries(study.answer);
  byId("answer").append(said.length ? terms(said) : element("p", {}, "This study is under way. What follows was measured once, so it is indicative; nothing is recommended yet."));
  byId("facts-list").append(...Object.entries(study.facts).map(([heading, entries]) => element("div", { class: "card" }, element("h3", {}, heading), terms(Object.entries(entries)))));
  byId("importance-note").textContent = study.importances && Object.keys(study.importances.capacity).length + Object.keys(study.importances.p99).length
    ? "How much of what all configurations differ by comes of each knob alone: functional ANOVA over the whole space, as predicted and then corrected by what was measured. Of the logarithms of throughput at capacity and of p99 at a middle load."
    : "Not known: either the study is under way, or it predicted nothing, or all configurations are about as good.";
  byId("search-note").textContent = `Hypervolume is what the front gains in throughput (over the best known) and in ln p99 (under ${digits(study.progress.reference_ms)} ms). While searching it counts every point as it was seen, luck included; what is left when the points are measured again is the level that counts.`;
  const missing = Object.keys(RESOURCES).filter((field) => !measuredResources.includes(field));
  byId("unmeasured").textContent = missing.length ? `Not measured here: ${missing.join(", ")}.` : "";
}

// ---- all of it --------------------------------------------------------------------------------

function setUpChoices() {
  const first = firstChosen();
  byId("chooser").append(...Object.keys(study.configurations).map((name) => chip(name, first.has(name))));
  const quantiles = ["p50_ms", "p90_ms", "p95_ms", "p99_ms", "p999_ms"].filter((field) => study.points.some((p) => known(p[field])));
  byId("quantile").append(...quantiles.map((field) => element("option", { value: field, selected: field === "p99_ms" }, field.replace("_ms", ""))));
  const shares = [...new Set(study.points.map((p) => p.share).filter(known))].sort((a, b) => a - b);
  byId("slice-of").append(element("option", { value: "" }, "throughput at capacity"), ...shares.map((share) => element("option", { value: share }, `p99 at ${share} of capacity`)));
  byId("quantile").addEventListener("change", () => draw("curves-chart"));
  byId("bars").addEventListener("change", () => draw("parts-chart"));
  byId("slice-of").addEventListener("change", () => draw(...SLICES));
  measuredResources.forEach((field) => addSmall("resources", `resource-${field}`, RESOURCES[field], resourceChart(field), CHOSEN));
  varied.forEach((knob) => addSmall("slices", `slice-${knob}`, knob, sliceChart(knob), SLICES));
}

function setUpBound() {
  const pick = study.points.find((p) => p.recommended);
  byId("slo").disabled = byId("slo-ms").disabled = !front.length;
  byId("slo").addEventListener("input", (event) => setBound(toBound(Number(event.target.value)), "slider"));
  byId("slo-ms").addEventListener("input", (event) => setBound(Number(event.target.value), "number"));
  setBound(pick?.p99_high_ms && pick.p99_high_ms <= ends[1] ? pick.p99_high_ms : toBound(500));
}

function setUpTheme() {
  const root = document.documentElement;
  byId("theme").addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; drawAll(); });
  media.addEventListener("change", drawAll);
  // Paper is white and narrower than the screen.
  let before;
  addEventListener("beforeprint", () => { before = root.dataset.theme; root.dataset.theme = "light"; drawAll(); });
  addEventListener("afterprint", () => { if (before) root.dataset.theme = before; else delete root.dataset.theme; drawAll(); });
}

async function main() {
  setUpText();
  setUpTable();
  setUpUncounted();
  setUpChoices();
  setUpBound();
  setUpTheme();
  document.querySelector("main").hidden = false;
  try {
    await loadPlotly();
    drawAll();
  } catch (error) {
    for (const place of document.querySelectorAll(".chart")) place.textContent = "This browser is too old to draw the charts.";
    console.error(error);
  }
  document.documentElement.dataset.ready = "";
}
main();
