// Draws each figure when it first comes into view, in the colours of the page, and anew when light turns dark.
(function () {
  "use strict";
  const palette = JSON.parse(document.getElementById("theme").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)").matches;

  // Replaces every colour of the figures' own palette by the page's.
  function themed(text) {
    const style = getComputedStyle(document.documentElement);
    for (const [colour, variable] of Object.entries(palette)) {
      text = text.replaceAll('"' + colour + '"', JSON.stringify(style.getPropertyValue(variable).trim()));
    }
    return JSON.parse(text);
  }

  function draw(box) {
    const figure = themed(box.source);
    // On a touch screen a finger on a figure scrolls the page; zooming by dragging would catch it.
    if (touch) figure.layout.dragmode = false;
    Plotly.react(box, figure.data, figure.layout, { responsive: true, displayModeBar: false });
    box.drawn = true;
  }

  const seen = new IntersectionObserver(function (entries) {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      seen.unobserve(entry.target);
      draw(entry.target);
    }
  }, { rootMargin: "400px" });
  for (const box of document.querySelectorAll(".chart")) {
    const data = box.querySelector("script");
    box.source = data.textContent;
    data.remove();
    seen.observe(box);
  }
  dark.addEventListener("change", function () {
    for (const box of document.querySelectorAll(".chart")) if (box.drawn) draw(box);
  });
})();
