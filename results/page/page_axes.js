// What all charts have in common: looks, axes, error bars, what hovering shows.

const coarse = matchMedia("(pointer: coarse)").matches;
const phone = matchMedia("(max-width: 640px)");
const narrow = () => phone.matches;
// Plotly's own set of buttons has one that sends a chart away.
const BUTTONS = ["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"];
const CONFIG = { displaylogo: false, responsive: true, modeBarButtons: [BUTTONS] };
const config = (place) => ({
  ...CONFIG,
  displayModeBar: coarse || !place.classList.contains("tall") ? false : "hover",
});
const MARGIN = { l: 10, r: 14, t: 10, b: 10 };
// With room for the buttons.
const ROOMY = { ...MARGIN, t: coarse ? 10 : 36 };
const RATE = { title: "throughput, requests per second", rangemode: "tozero" };

function axis(own = {}) {
  const look = { gridcolor: tone("line"), linecolor: tone("line"), zeroline: false };
  const title = { text: own.title ?? "", font: { size: 13 }, standoff: 8 };
  return { automargin: true, ...look, ...own, title };
}

/** Below the chart, out of the way of the buttons. */
function legend(own = {}) {
  const place = { orientation: "h", x: 0, yref: "container", y: 0, yanchor: "bottom" };
  return { ...place, font: { size: 12 }, itemsizing: "constant", ...own };
}

function layout(own) {
  const clear = "rgba(0,0,0,0)";
  return {
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: tone("ink") },
    paper_bgcolor: clear,
    plot_bgcolor: clear,
    dragmode: coarse ? false : "zoom",
    hovermode: "closest",
    hoverlabel: {
      align: "left",
      bgcolor: tone("ground"),
      bordercolor: tone("line"),
      font: { color: tone("ink"), size: 12 },
    },
    margin: MARGIN,
    ...own,
    legend: legend(own.legend),
    xaxis: axis(own.xaxis),
    yaxis: axis(own.yaxis),
  };
}

/** An axis in milliseconds over these values; what lies outside can be zoomed to. */
function logarithmic(title, values) {
  const [low, high] = values.length ? [Math.min(...values), Math.max(...values)] : [1, 100];
  const steps = high / low > 100 ? [1] : [1, 2, 5];
  const ticks = [-6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6].flatMap((power) =>
    steps.map((step) => step * 10 ** power),
  );
  const range = [Math.log10(low / 1.5), Math.log10(high * 1.5)];
  return { type: "log", title, tickvals: ticks, ticktext: ticks.map((t) => digits(t)), range };
}

// An interval without an upper end leaves the chart.
const BEYOND = 1e6;

/** The ends of a 95 % interval as Plotly's error bars; `of` is "throughput" or "p99". */
function errorBars(points, of, unit, color) {
  const far = (p, end) => {
    const value = p[`${of}_${unit}`];
    return Math.min(Math.abs((p[`${of}_${end}_${unit}`] ?? value) - value), BEYOND * value);
  };
  const reach = (end) => points.map((p) => far(p, end));
  const ends = { array: reach("high"), arrayminus: reach("low") };
  return { type: "data", symmetric: false, ...ends, thickness: 1, width: 3, color };
}

/** Plotly takes some tags for markup, so nothing may look like one. */
const harmless = (text) =>
  String(text).replace(/[&<>]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c]);
const folded = (text) => text.replace(/(.{50,70}?) /g, "$1<br>");

function hover(p) {
  const lines = [`${p.phase}, ${p.verdict}`, throughput(p), p99(p), ...configurationOf(p).changes];
  lines.push(`${digits(p.requests)} requests`, p.reason ?? "", ...p.disturbances);
  const shown = lines.filter(Boolean).map((line) => folded(harmless(line)));
  return [`<b>${harmless(p.point)}</b>`, ...shown].join("<br>");
}

/** Points as a trace: `x` and `y` name fields, hovering tells the rest. */
function trace(name, points, [x, y], own) {
  return {
    name,
    type: "scatter",
    x: points.map((p) => p[x]),
    y: points.map((p) => p[y]),
    text: points.map(hover),
    hovertemplate: "%{text}<extra></extra>",
    ...own,
  };
}
