// Colours that every kind of colour vision tells apart, in the light and in the dark.

const media = matchMedia("(prefers-color-scheme: dark)");
const root = document.documentElement;
const isPrinting = () => root.classList.contains("printing");
const isDark = () =>
  !isPrinting() && (root.dataset.theme ?? (media.matches ? "dark" : "light")) === "dark";
/** Okabe and Ito's, those with the most contrast first. */
const palette = () =>
  isDark()
    ? ["#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#0072B2"]
    : ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"];
const PART_COLOURS = ["#CC79A7", "#F0E442", "#E69F00", "#0072B2", "#56B4E9"];
const DASHES = ["solid", "dash", "dot", "dashdot"];
/** Plotly's name of a mark -> how a chip draws it. */
const SYMBOLS = {
  circle: "M8 4.5a3.5 3.5 0 1 0 .01 0",
  square: "M5 5h6v6h-6z",
  diamond: "M8 3.5l4.5 4.5-4.5 4.5-4.5-4.5z",
  "triangle-up": "M8 4l4.5 7.5h-9z",
};
const BASELINES = {
  naive: { tone: "muted", symbol: "square" },
  default: { tone: "ink", symbol: "diamond" },
};

const probe = document.body.appendChild(element("i", { hidden: true }));
/** A colour of page.css as Plotly takes it. */
function tone(name) {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

/** Searched configurations, those on the front first: they get the colours that show best. */
const ranked = (() => {
  const names = Object.keys(study.configurations).filter((name) => !(name in BASELINES));
  const best = new Set(study.points.filter((p) => p.on_front).map((p) => p.configuration));
  return [...names.filter((name) => best.has(name)), ...names.filter((name) => !best.has(name))];
})();

/** How a configuration is drawn, everywhere the same. */
function style(name) {
  if (name in BASELINES) {
    return { colour: tone(BASELINES[name].tone), dash: "dot", symbol: BASELINES[name].symbol };
  }
  const [place, colours, symbols] = [ranked.indexOf(name), palette(), Object.keys(SYMBOLS)];
  return {
    colour: colours[place % colours.length],
    dash: DASHES[Math.floor(place / colours.length) % DASHES.length],
    symbol: symbols[place % symbols.length],
  };
}
