// Puts the page together: text, choices, charts, theme.

const CHARTS = {
  "front-chart": frontChart,
  "curves-chart": curvesChart,
  "parts-chart": partsChart,
  "importance-chart": importanceChart,
  "search-chart": searchChart,
};
// What is drawn anew with another choice of configurations, and of what slices show.
const CHOSEN = ["curves-chart", "parts-chart"];
const SLICES = [];

/** A small chart gets a place of its own, under a caption. */
function addSmall(container, name, caption, chart, group) {
  const id = `${container}-${name}`;
  const place = element("div.chart", { id });
  byId(container).append(element("figure", {}, element("figcaption", {}, caption), place));
  CHARTS[id] = chart;
  group.push(id);
}

function draw(...ids) {
  if (!window.Plotly) return;
  for (const id of ids) {
    const { traces, layout: own } = CHARTS[id]();
    Plotly.react(byId(id), traces, layout({ ...own, ...sizeOf(byId(id)) }), config(byId(id)));
  }
}

/** Printing does not wait for a chart to notice what room it has on paper. */
function sizeOf(place) {
  if (!isPrinting()) return { autosize: true };
  return { width: place.clientWidth, height: place.clientHeight };
}

function drawAll() {
  showChips();
  draw(...Object.keys(CHARTS));
}

/** Plotly lies packed in the page, and the browser unpacks it. */
async function loadPlotly() {
  const packed = Uint8Array.from(atob(byId("plotly").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  document.head.append(element("script", {}, await new Response(stream).text()));
}

/** The best configuration within each bound on p99: what the answer follows from. */
function boundsTable() {
  const heads = ["p99 within", "best configuration", "requests/s", "95 %", "the default", "times the default"];
  const row = (cells, kind) => element("tr", {}, ...cells.map((text) => element(kind, {}, text)));
  const rows = study.bounds.map((b) => row([
    `${digits(b.p99_ms)} ms`, b.changes, digits(b.rate_rps), `${digits(b.low_rps)}-${digits(b.high_rps)}`,
    digits(b.default_rps), known(b.ratio) ? `${digits(b.ratio)} [${digits(b.ratio_low)}-${digits(b.ratio_high)}]` : "",
  ], "td"));
  return element("table", { id: "bounds" }, element("thead", {}, row(heads, "th")), element("tbody", {}, ...rows));
}

function setUpText() {
  const facts = study.facts;
  const about = [facts.Study["time spent"], facts.Machine?.processor, study.device, study.study];
  byId("heading").textContent = `How to serve ${study.model}`;
  byId("about").textContent = about.filter(Boolean).join(" · ");
  byId("reference").textContent = digits(study.progress.reference_ms);
  const said = Object.entries(study.answer);
  byId("answer").append(said.length ? terms(said) : byId("under-way").content);
  if (study.bounds.length) byId("answer").append(element("div.scroll", {}, boundsTable()));
  const cards = Object.entries(facts).map(([heading, entries]) =>
    element(
      "div.card",
      { id: heading },
      element("h3", {}, heading),
      terms(Object.entries(entries)),
    ),
  );
  byId("facts-list").append(...cards);
  byId(study.importances ? "importance-unknown" : "importance-known").remove();
  const missing = Object.keys(RESOURCES).filter((field) => !measuredResources.includes(field));
  if (missing.length) byId("unmeasured").textContent = `Not measured here: ${missing.join(", ")}.`;
}

function option(value, text, selected = false) {
  return element("option", { value, selected }, text);
}

function setUpChoices() {
  const quantiles = LATENCIES.filter((field) => columns.includes(field));
  const shares = [...new Set(study.points.map((p) => p.share).filter(known))].sort(order);
  byId("quantile").append(
    ...quantiles.map((name) => option(name, name.replace("_ms", ""), name === "p99_ms")),
  );
  byId("slice-of").append(...shares.map((share) => option(share, `p99 at ${share} of capacity`)));
  byId("quantile").addEventListener("change", () => draw("curves-chart"));
  byId("bars").addEventListener("change", () => draw("parts-chart"));
  byId("slice-of").addEventListener("change", () => draw(...SLICES));
  for (const field of measuredResources) {
    addSmall("resources", field, RESOURCES[field], resourceChart(field), CHOSEN);
  }
  for (const knob of varied) addSmall("slices", knob, knob, sliceChart(knob), SLICES);
}

function setUpTheme() {
  byId("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    drawAll();
  });
  media.addEventListener("change", drawAll);
  phone.addEventListener("change", drawAll);
  addEventListener("beforeprint", () => {
    root.classList.add("printing");
    drawAll();
  });
  addEventListener("afterprint", () => {
    root.classList.remove("printing");
    drawAll();
  });
}

async function main() {
  for (const setUp of [setUpText, setUpTable, setUpUncounted, setUpChooser, setUpChoices]) setUp();
  setUpBound();
  setUpTheme();
  document.querySelector("main").hidden = false;
  try {
    await loadPlotly();
    drawAll();
  } catch (error) {
    console.error(error);
    for (const place of document.querySelectorAll(".chart")) {
      place.textContent = "The charts need a browser of 2023 or later.";
    }
  }
  root.dataset.ready = "";
}

main();
