"use strict";
// The document, numbers as people read them, and the page's elements. What the study says enters
// the page as text, never as markup.

// JSON has no infinity: a latency that falls among failed requests is a text.
const study = JSON.parse(document.getElementById("data").textContent, (name, value) =>
  name.endsWith("_ms") && value === "Infinity" ? Infinity : value,
);
const byId = (id) => document.getElementById(id);
const known = (value) => value !== null && value !== undefined;
const configurationOf = (point) => study.configurations[point.configuration];
const highest = (points, field) => points.reduce((a, b) => (b[field] > a[field] ? b : a));
const lowest = (points, field) => points.reduce((a, b) => (b[field] < a[field] ? b : a));
/** Numbers by size, all else by its letters. */
const order = (a, b) =>
  typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));

/** As `digits` in loadgen/quantity.py: so many significant ones, but never a power of ten. */
function digits(value, count = 3) {
  if (!known(value)) return "";
  if (Math.abs(value) >= 10 ** (count - 1)) return Math.round(value).toLocaleString("en");
  return (+value.toPrecision(count)).toLocaleString("en", { maximumSignificantDigits: count });
}

/** Milliseconds of a point; what falls among failed requests is longer than anything seen. */
const latency = (p, value) => (value === Infinity ? `> ${digits(p.longest_ms)}` : digits(value));
const throughputInterval = (p) =>
  known(p.throughput_low_rps) && known(p.throughput_high_rps)
    ? `${digits(p.throughput_low_rps)}-${digits(p.throughput_high_rps)}`
    : "undetermined";
const p99Interval = (p) => {
  if (!known(p.p99_low_ms) || !known(p.p99_high_ms)) return "undetermined";
  const ends = [p.p99_low_ms, p.p99_high_ms].map((end) => latency(p, end));
  return ends.join(p.p99_high_ms === Infinity ? ", " : "-");
};
const throughput = (p) => `${digits(p.throughput_rps)}/s [${throughputInterval(p)}]`;
const p99 = (p) => `p99 ${latency(p, p.p99_ms)} ms [${p99Interval(p)}]`;

/** `element("p.name", { title }, "text", child)`; attributes named on… are listeners. */
function element(kind, attributes = {}, ...children) {
  const [tag, ...classes] = kind.split(".");
  const made = document.createElement(tag);
  made.classList.add(...classes.filter(Boolean));
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (known(value) && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

const list = (texts) => element("ul", {}, ...texts.map((text) => element("li", {}, text)));
const terms = (entries) =>
  element(
    "dl",
    {},
    ...entries.flatMap(([term, text]) => [element("dt", {}, term), element("dd", {}, text)]),
  );

let silence = 0;
/** A word at the foot of the page, for three seconds. */
function say(text) {
  byId("said").textContent = text;
  byId("said").classList.add("shown");
  clearTimeout(silence);
  silence = setTimeout(() => byId("said").classList.remove("shown"), 3000);
}
