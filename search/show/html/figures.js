// Draws every element with `data-figure` (JSON: data and layout, as plotly has them), again when the
// attribute, the colour scheme or the page changes. Colours such as "@front" are those of the style
// sheet. With the keyboard one goes from point to point; what is there is read aloud too.
"use strict";
(() => {
  const OPTIONS = { responsive: true, displayModeBar: false, doubleClick: "reset" };
  const STEPS = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };

  function coloured(value, style) {
    if (typeof value === "string") {
      return style.getPropertyValue("--" + value.slice(1)).trim();
    }
    return value;
  }

  function dressed(value, style, key = "") {
    if (Array.isArray(value)) return value.map((item) => dressed(item, style, key));
    if (value && typeof value === "object") {
      const pairs = Object.entries(value).map(([k, v]) => [k, dressed(v, style, k)]);
      return Object.fromEntries(pairs);
    }
    const named = /color$/.test(key) && typeof value === "string" && value.startsWith("@");
    return named ? coloured(value, style) : value;
  }

  function draw(place) {
    const figure = JSON.parse(place.dataset.figure);
    const style = getComputedStyle(document.documentElement);
    const { data, layout } = dressed(figure, style);
    const font = { ...layout.font, family: getComputedStyle(document.body).fontFamily };
    const narrow = place.clientWidth < 480 ? { margin: { ...layout.margin, l: 44, r: 8 } } : {};
    const label = layout.hoverlabel || {};
    const hoverlabel = { ...label, font: { ...label.font, family: font.family } };
    return Plotly.react(place, data, { ...layout, ...narrow, font, hoverlabel }, OPTIONS);
  }

  function drawAll(root = document) {
    if (root.matches && root.matches("[data-figure]")) draw(root);
    root.querySelectorAll("[data-figure]").forEach(draw);
  }

  // the points that can be pointed at, from left to right
  function points(place) {
    const found = [];
    (place.data || []).forEach((trace, curveNumber) => {
      if (trace.hoverinfo === "skip" || trace.visible === "legendonly") return;
      const along = trace.orientation === "h" ? trace.y : trace.x;
      along.forEach((at, pointNumber) => found.push({ at, curveNumber, pointNumber }));
    });
    const numbers = found.every((point) => typeof point.at === "number");
    return numbers ? found.sort((a, b) => a.at - b.at) : found;
  }

  function words(place, { curveNumber, pointNumber }) {
    const trace = place.data[curveNumber];
    const marked = trace.text ? trace.text[pointNumber] : "";
    const text = marked || `${trace.x[pointNumber]}, ${trace.y[pointNumber]}`;
    const plain = new DOMParser().parseFromString(text.replaceAll("<br>", ", "), "text/html");
    return `${trace.name}: ${plain.body.textContent}`;
  }

  function step(event) {
    const place = event.target.closest("[data-figure]");
    if (!place || !place.data || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "Escape") {
      Plotly.Fx.unhover(place);
      return;
    }
    if (!(event.key in STEPS)) return;
    event.preventDefault();
    const all = points(place);
    if (!all.length) return;
    const before = place.at === undefined ? (STEPS[event.key] > 0 ? -1 : all.length) : place.at;
    place.at = Math.min(Math.max(before + STEPS[event.key], 0), all.length - 1);
    Plotly.Fx.hover(place, [all[place.at]]);
    spoken().textContent = words(place, all[place.at]);
  }

  // what is put there is read aloud
  function spoken() {
    const known = document.getElementById("spoken");
    if (known) return known;
    const made = document.createElement("div");
    made.id = "spoken";
    made.className = "hidden";
    made.setAttribute("role", "status");
    document.body.append(made);
    return made;
  }

  function begin() {
    spoken(); // it must be there before it says something
    drawAll();
    document.addEventListener("keydown", step);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll());
    const printing = (on) => {
      document.documentElement.classList.toggle("printed", on);
      drawAll();
    };
    addEventListener("beforeprint", () => printing(true));
    addEventListener("afterprint", () => printing(false));
    new MutationObserver((changes) => {
      for (const change of changes) {
        if (change.type === "attributes") draw(change.target);
        if (change.target.closest("[data-figure]")) continue; // what plotly does
        for (const node of change.addedNodes) {
          if (node.dataset && node.tagName !== "SCRIPT") drawAll(node);
        }
      }
    }).observe(document.body, {
      subtree: true, childList: true, attributes: true, attributeFilter: ["data-figure"],
    });
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
