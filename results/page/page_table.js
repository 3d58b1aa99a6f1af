// Every point in a table that sorts and filters.

const HEAD = ["point", "phase", "verdict", "offered_rps", "throughput_rps"];
const LATENCIES = ["p50_ms", "p90_ms", "p95_ms", "p99_ms", "p999_ms"];
const COUNTS = ["mean_ms", "error_rate", "requests"];
// A point under the CSV's names, the knobs of its configuration among them.
const rows = study.points.map((p) => ({ ...configurationOf(p).knobs, ...p }));
const columns = [
  ...[...HEAD, ...LATENCIES, ...COUNTS, ...Object.keys(RESOURCES), ...Object.keys(PARTS)],
  ...Object.keys(study.searched),
].filter((name) => rows.some((row) => known(row[name])));
// As many columns as paper has room for.
const PRINTED = new Set([...HEAD, "p50_ms", "p99_ms", "server_cpu", ...varied]);
const isNumber = (name) => rows.some((row) => typeof row[name] === "number");
let sorted = { by: "throughput_rps", descending: true };

const COMPARISONS = {
  "<": (a, b) => a < b,
  ">": (a, b) => a > b,
  "<=": (a, b) => a <= b,
  ">=": (a, b) => a >= b,
  "=": (a, b) => a === b,
  "!=": (a, b) => a !== b,
};
const COMPARISON = /^(\w+)(<=|>=|!=|<|>|=)(.+)$/;

/** A word is somewhere in what a row says; `p99_ms<20` compares a column. */
function matches(row, word) {
  const [, name, sign, wanted] = word.match(COMPARISON) ?? [];
  if (columns.includes(name)) {
    const value = row[name];
    const other = typeof value === "number" ? Number(wanted) : wanted;
    return known(value) && COMPARISONS[sign](value, other);
  }
  const said = [row.point, row.phase, row.verdict, row.reason, ...configurationOf(row).changes];
  return said.join(" ").toLowerCase().includes(word.toLowerCase());
}

/** The rows that every filter lets through, in order; what is not known comes last. */
function visible() {
  const words = byId("filter").value.split(/\s+/).filter(Boolean);
  const wanted = (name, row) => ["", row[name]].includes(byId(`filter-${name}`).value);
  const kept = rows
    .filter((row) => wanted("phase", row) && wanted("verdict", row))
    .filter((row) => row.on_front || !byId("filter-front").checked)
    .filter((row) => words.every((word) => matches(row, word)));
  const { by, descending } = sorted;
  const present = kept.filter((row) => known(row[by])).sort((a, b) => order(a[by], b[by]));
  return [...(descending ? present.reverse() : present), ...kept.filter((row) => !known(row[by]))];
}

// Shown beside their value where they are determined.
const INTERVALS = { throughput_rps: throughputInterval, p99_ms: p99Interval };

function cell(row, name) {
  const value = row[name];
  const aside = PRINTED.has(name) ? "" : ".aside";
  if (name === "point") {
    return element("th", { scope: "row" }, value + (row.recommended ? " ★" : ""));
  }
  if (name === "verdict") return element(`td.${value}`, { title: row.reason }, value);
  if (typeof value !== "number") return element(`td${aside}`, {}, known(value) ? value : "");
  const determined = known(row[name.replace("_", "_high_")]) && name in INTERVALS;
  const beside = determined ? element("small", {}, ` [${INTERVALS[name](row)}]`) : "";
  return element(`td.number${aside}`, {}, latency(row, value), beside);
}

function tableRow(row) {
  const attributes = { type: "button", "aria-label": `copy ${row.point} as TOML` };
  const copy = element("button", { ...attributes, onclick: () => copyToml(row) }, "TOML");
  const cells = columns.map((name) => cell(row, name));
  return element(row.recommended ? "tr.recommended" : "tr", {}, ...cells, element("td", {}, copy));
}

function showTable() {
  const found = visible();
  byId("count").textContent = `${found.length} of ${rows.length} points`;
  byId("table").tBodies[0].replaceChildren(...found.map(tableRow));
  for (const head of byId("table").tHead.querySelectorAll("th[data-name]")) {
    head.removeAttribute("aria-sort");
    if (head.dataset.name === sorted.by)
      head.ariaSort = sorted.descending ? "descending" : "ascending";
  }
}

function sortBy(name) {
  sorted = { by: name, descending: sorted.by === name ? !sorted.descending : isNumber(name) };
  showTable();
}

function setUpTable() {
  const heads = columns.map((name) => {
    const button = element("button", { type: "button", onclick: () => sortBy(name) }, name);
    const kind = `th${isNumber(name) ? ".number" : ""}${PRINTED.has(name) ? "" : ".aside"}`;
    return element(kind, { scope: "col", "data-name": name }, button);
  });
  byId("table").tHead.append(element("tr", {}, ...heads, element("th", { scope: "col" }, "copy")));
  for (const name of ["phase", "verdict"]) {
    const values = [...new Set(rows.map((row) => row[name]))];
    byId(`filter-${name}`).append(...values.map((value) => element("option", {}, value)));
  }
  document.querySelector(".filters").addEventListener("input", showTable);
  showTable();
}
