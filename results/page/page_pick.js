// What to serve with under a bound on p99, and taking it along.

const front = study.points.filter((p) => study.finished && p.on_front);
const own = study.points.find((p) => p.recommended);

/** Met or missed only if the whole 95 % interval says so, as in tuner/recommend.py. */
function standing(point, bound) {
  if (known(point.p99_high_ms) && point.p99_high_ms <= bound) return "met";
  return known(point.p99_low_ms) && point.p99_low_ms > bound ? "missed" : "undecided";
}

/** The highest throughput that surely holds the bound; if none does, the likeliest to. */
function recommend(bound) {
  const sure = front.filter((p) => standing(p, bound) === "met");
  if (sure.length) return { point: highest(sure, "throughput_rps"), verdict: "met" };
  const open = front.some((p) => standing(p, bound) === "undecided");
  return { point: lowest(front, "p99_ms"), verdict: open ? "undecided" : "missed" };
}

/** From below the lowest end of an interval to above the highest that is of use. */
const [lowestMs, highestMs] = (() => {
  if (!front.length) return [1, 1000];
  const asked = [own?.p99_high_ms, study.slo_p99_ms].filter(Number.isFinite);
  const far = Math.max(10 * highest(front, "p99_ms").p99_ms, ...asked);
  const lows = front.map((p) => p.p99_low_ms ?? p.p99_ms);
  const highs = front.map((p) => Math.min(p.p99_high_ms ?? p.p99_ms, far));
  return [0.8 * Math.min(...lows, ...asked), 1.2 * Math.max(...highs, ...asked)];
})();
// The slider's places, 0 to 1000, are logarithmic.
const toBound = (place) => lowestMs * (highestMs / lowestMs) ** (place / 1000);
const toPlace = (ms) => (1000 * Math.log(ms / lowestMs)) / Math.log(highestMs / lowestMs);
let boundMs = toBound(500);

const VERDICTS = {
  met: (p, ms) => `${ms} ms is held by the whole 95 % interval`,
  undecided: (p, ms) => `nothing is sure to hold ${ms} ms; the likeliest is ${p.point}`,
  missed: (p, ms) => `nothing holds ${ms} ms; the nearest is ${p.point}`,
};
const NO_PICK = {
  true: "No point held up when it was measured again.",
  false: "This study is under way: nothing has been measured again yet, so nothing is recommended.",
};

function figure(name, value, beside) {
  const numbers = element("span", {}, element("b", {}, value), element("br"), beside);
  return element("div.figure", {}, element("span", {}, name), numbers);
}

function pickFigures(p) {
  const found = [
    figure("throughput", `${digits(p.throughput_rps)} /s`, throughputInterval(p)),
    figure("p99", `${latency(p, p.p99_ms)} ms`, p99Interval(p)),
  ];
  const memory = known(p.server_rss_mb) ? `${digits(p.server_rss_mb)} MB of memory` : "";
  if (known(p.server_cpu)) found.push(figure("uses", `${digits(p.server_cpu)} cores`, memory));
  return found;
}

function pickNote(point) {
  const chosen = `These points were chosen and are shown by the same figures, which flatters a close call.`;
  if (!own || own === point) return chosen;
  return `${chosen} The study itself, by its own rule and other repeats, recommends ${own.point}.`;
}

function showPick() {
  const pane = byId("pick");
  if (!front.length) return pane.replaceChildren(NO_PICK[study.finished]);
  const { point, verdict } = recommend(boundMs);
  pane.dataset.point = verdict === "met" ? point.point : "";
  pane.dataset.verdict = verdict;
  pane.replaceChildren(
    element("p.name", {}, verdict === "met" ? point.point : verdict),
    element(`p.standing.${verdict}`, {}, VERDICTS[verdict](point, digits(boundMs))),
    ...pickFigures(point),
    list(configurationOf(point).changes),
    element("button.main", { type: "button", onclick: () => copyToml(point) }, "Copy as TOML"),
    element("p.muted", {}, pickNote(point)),
  );
}

/** Take a bound from one of the two controls and show what it means everywhere. */
function setBound(ms, from) {
  if (!(ms > 0)) return;
  boundMs = ms;
  if (from !== "slider") byId("slo").value = toPlace(ms);
  if (from !== "number") byId("slo-ms").value = +ms.toPrecision(3);
  byId("slo").setAttribute("aria-valuetext", `${digits(ms)} ms`);
  showPick();
  draw("front-chart");
}

function setUpBound() {
  byId("slo").disabled = byId("slo-ms").disabled = !front.length;
  byId("slo").addEventListener("input", (event) =>
    setBound(toBound(+event.target.value), "slider"),
  );
  byId("slo-ms").addEventListener("input", (event) => setBound(+event.target.value, "number"));
  // Rounded upwards, so that what the study itself recommends holds the bound that is shown.
  const start = Number.isFinite(own?.p99_high_ms) ? 1.01 * own.p99_high_ms : toBound(500);
  setBound(study.slo_p99_ms ?? +start.toPrecision(3));
}

/** What `dlbench serve --config` takes, under a line that says what was measured with it. */
function toml(point) {
  const measured = `${point.point}: ${throughput(point)} at ${p99(point)}`;
  return `# ${measured.replace(/\p{Cc}/gu, " ")}\n${configurationOf(point).toml}`;
}

async function copyToml(point) {
  try {
    await navigator.clipboard.writeText(toml(point));
    say(`${point.point} copied: paste it into a file for dlbench serve --config`);
  } catch {
    byId("toml").querySelector("textarea").value = toml(point);
    byId("toml").showModal();
    byId("toml").querySelector("textarea").select();
  }
}
