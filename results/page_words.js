"use strict";
// The document, numbers as people read them, and the page's elements. What the study says enters
// the page as text, never as markup.

const study = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const known = (value) => value !== null && value !== undefined;
const configurationOf = (point) => study.configurations[point.configuration];
const highest = (points, field) => points.reduce((a, b) => (b[field] > a[field] ? b : a));
const lowest = (points, field) => points.reduce((a, b) => (b[field] < a[field] ? b : a));
/** Numbers by size, all else by its letters. */
const order = (a, b) =>
  typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));

/** So many significant digits, but every one before the point, and never a power of ten. */
function digits(value, count = 3) {
  if (!known(value)) return "";
  const whole = Math.abs(value) >= 10 ** (count - 1);
  return whole ? Math.round(value).toLocaleString("en") : String(+value.toPrecision(count));
}

const interval = (low, high) =>
  known(low) && known(high) ? `${digits(low)}-${digits(high)}` : "undetermined";
const throughputInterval = (p) => interval(p.throughput_low_rps, p.throughput_high_rps);
const p99Interval = (p) => interval(p.p99_low_ms, p.p99_high_ms);
const throughput = (p) => `${digits(p.throughput_rps)}/s [${throughputInterval(p)}]`;
const p99 = (p) => `p99 ${digits(p.p99_ms)} ms [${p99Interval(p)}]`;

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
