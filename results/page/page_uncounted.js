// What may not stand on a front, or has to be taken with care, and why.

const KINDS = {
  failed: "the configuration did not run",
  invalid: "the load generator was the limit, so it says nothing about the server",
  saturated: "the server did not keep up with what was offered",
  lossy: "more than one request in a thousand was lost",
  unsteady: "it did not settle; kept, with a wider interval",
  disturbed: "something else ran meanwhile; kept",
};

function kind(entry) {
  if (entry.verdict !== "ok") return entry.verdict;
  return entry.reason ? "lossy" : "disturbed";
}

function uncountedRow(entry) {
  const repeat = entry.phase === "verify" ? ` ${entry.repeat}` : "";
  const why = element(
    "td.reason",
    {},
    [entry.reason, ...entry.disturbances].filter(Boolean).join("; "),
  );
  if (entry.log_tail) {
    const summary = element("summary", {}, "the end of its log");
    why.append(element("details", {}, summary, element("pre", {}, entry.log_tail)));
  }
  const where = [
    element("th", { scope: "row" }, entry.point),
    element("td", {}, entry.phase + repeat),
  ];
  return element("tr", {}, ...where, element(`td.${kind(entry)}`, {}, kind(entry)), why);
}

function setUpUncounted() {
  const groups = Object.keys(KINDS).map((name) => study.uncounted.filter((e) => kind(e) === name));
  const found = groups.filter((own) => own.length);
  if (!found.length) return byId("uncounted-list").append("Everything that was measured counts.");
  const heads = ["point", "phase", "what", "why"].map((name) =>
    element("th", { scope: "col" }, name),
  );
  const table = element(
    "table",
    {},
    element("thead", {}, element("tr", {}, ...heads)),
    element("tbody", {}, ...found.flat().map(uncountedRow)),
  );
  const counts = found.map((own) => [`${own.length} ${kind(own[0])}`, KINDS[kind(own[0])]]);
  byId("uncounted-list").append(terms(counts), element("div.scroll", {}, table));
}
