// Draws every chart of the page, keeps the chosen class in all of them, and redraws when light turns to dark.
(() => {
  const themes = JSON.parse(document.getElementById("themes").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const select = document.getElementById("chosen");
  const views = new Map();
  let chosen = -1;

  function choose(index) {
    chosen = index;
    if (select) select.value = String(index);
    for (const view of views.values()) view.signal("chosen", index).runAsync();
  }

  async function draw(element) {
    const spec = JSON.parse(element.nextElementSibling.textContent);
    const theme = dark.matches ? "dark" : "light";
    views.get(element)?.finalize();
    const { view } = await vegaEmbed(element, spec, {
      config: themes[theme],
      ast: true, // expressions are interpreted: the page's policy forbids to compile them
      renderer: spec.usermeta?.renderer ?? "svg",
      actions: { export: true, source: false, compiled: false, editor: false },
      downloadFileName: element.dataset.chart,
      tooltip: { theme },
    });
    views.set(element, view);
    view.addEventListener("click", (event, item) => {
      const index = item?.datum?.index;
      if (Number.isInteger(index)) choose(index === chosen ? -1 : index);
    });
    if (chosen >= 0) view.signal("chosen", chosen).runAsync();
  }

  async function drawAll() {
    for (const element of document.querySelectorAll(".chart")) await draw(element);
    document.body.dataset.drawn = "all";
  }

  select?.addEventListener("change", () => choose(Number(select.value)));
  dark.addEventListener("change", drawAll);
  drawAll();
})();
