// Unpacks Plotly's library, which stands in the page, and draws every figure beside its data.
const unpack = async () => {
  const packed = atob(document.getElementById("plotly").textContent);
  const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
  const gunzip = new DecompressionStream("gzip");
  const script = document.createElement("script");
  script.textContent = await new Response(new Blob([bytes]).stream().pipeThrough(gunzip)).text();
  document.head.append(script);
};
const isNarrow = window.innerWidth < 640;
const draw = (chart) => {
  const { data, layout } = JSON.parse(chart.nextElementSibling.textContent);
  const adapted = { ...layout, ...(isNarrow ? layout.meta?.narrow : {}) };
  const bar = isNarrow ? false : "hover";
  return Plotly.newPlot(chart, data, adapted,
    { responsive: true, displaylogo: false, displayModeBar: bar });
};
const charts = [...document.querySelectorAll(".chart")];
const drawAll = async () => {
  if (charts.length) { await unpack(); }
  for (const chart of charts) {
    await draw(chart);
    await new Promise((done) => setTimeout(done)); // so that the page answers in between
  }
};
drawAll().catch((error) => {
  charts.forEach((chart) => { chart.textContent = `The chart cannot be drawn: ${error}`; });
  console.error(error);
});
window.addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((folded) => { folded.open = true; });
});
// What scrolls sideways can be reached by the keyboard, and only that.
const markScrolling = () => document.querySelectorAll(".scroll").forEach((box) => {
  if (box.scrollWidth > box.clientWidth) { box.tabIndex = 0; } else { box.removeAttribute("tabindex"); }
});
window.addEventListener("resize", markScrolling);
document.addEventListener("toggle", markScrolling, true);
markScrolling();
