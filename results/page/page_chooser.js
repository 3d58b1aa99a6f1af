// Which configurations the curves show. A chip carries its curve's colour and mark: it is the legend.

const chosen = () => [...byId("chooser").querySelectorAll(":checked")].map((box) => box.value);

function mark(name) {
  const { colour, symbol } = style(name);
  const path = `<path d="${SYMBOLS[symbol]}" fill="${colour}"/>`;
  return `<svg viewBox="0 0 16 16" width="16" aria-hidden="true">${path}</svg>`;
}

function chip(name, checked) {
  const onchange = () => draw(...CHOSEN, ...SLICES);
  const box = element("input", { type: "checkbox", value: name, checked, onchange });
  const title = study.configurations[name].changes.join(", ");
  return element("label.chip", { title }, box, element("span"), name);
}

function showChips() {
  for (const label of byId("chooser").querySelectorAll(".chip")) {
    label.querySelector("span").innerHTML = mark(label.querySelector("input").value);
  }
}

/** The baselines and what is on the front; without a front the first few. */
function setUpChooser() {
  const names = Object.keys(study.configurations);
  const best = front.length ? front.map((p) => p.configuration) : names.slice(0, 5);
  const first = new Set([...Object.keys(BASELINES), ...best]);
  byId("chooser").append(...names.map((name) => chip(name, first.has(name))));
}
