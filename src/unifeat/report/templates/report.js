"use strict";
(() => {
  const { colours, figures, elsewhere, folder } = JSON.parse(document.getElementById("data").textContent);
  const config = { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: false };

  // Figures have the colours of the light page; each colour is replaced by the one that the page uses now.
  const themed = (value) => {
    const style = getComputedStyle(document.documentElement);
    const swap = (v) => {
      if (typeof v === "string") return v in colours ? style.getPropertyValue(colours[v]).trim() : v;
      if (Array.isArray(v)) return v.map(swap);
      if (v && typeof v === "object") return Object.fromEntries(Object.entries(v).map(([k, w]) => [k, swap(w)]));
      return v;
    };
    return swap(value);
  };
  const draw = (plot) => {
    const figure = themed(figures[plot.dataset.figure]);
    Plotly.react(plot, figure.data, figure.layout, config);
    if ("pick" in plot.dataset && !plot.dataset.drawn)
      plot.on("plotly_click", (event) => {
        select(String(event.points[0].customdata));
        document.getElementById("cell").scrollIntoView();
      });
    plot.dataset.drawn = "yes";
  };

  // Draw one figure at a time, top to bottom, so that the page stays responsive; hidden ones when they are shown.
  const plots = [...document.querySelectorAll(".plot")];
  const visible = (plot) => plot.offsetParent !== null;
  const drawRest = () => {
    const next = plots.find((plot) => !plot.dataset.drawn && visible(plot));
    if (!next) return;
    draw(next);
    setTimeout(drawRest);
  };
  document.addEventListener("toggle", drawRest, true);
  const redraw = () => plots.filter((plot) => plot.dataset.drawn).forEach(draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  // Paper cannot be unfolded.
  let unfolded = [];
  addEventListener("beforeprint", () => {
    unfolded = [...document.querySelectorAll("details:not([open])")];
    unfolded.forEach((element) => (element.open = true));
    plots.filter(visible).forEach(draw);
  });
  addEventListener("afterprint", () => unfolded.forEach((element) => (element.open = false)));
  const unfold = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const fold = target && target.closest("details:not([open])");
    if (!fold) return;
    fold.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", unfold);

  // What the heatmaps show: a measure, and its value, that of chance, or the corrected one.
  const choice = document.getElementById("heat-choice");
  const views = [...document.querySelectorAll('[name="heat-view"]')];
  const choose = () => {
    const { views: has, low, high, gloss } = choice.selectedOptions[0].dataset;
    views.forEach((view) => (view.disabled = !has.split(" ").includes(view.value)));
    if (views.some((view) => view.checked && view.disabled)) views[0].checked = true;
    const view = views.find((element) => element.checked);
    const said = `${gloss} ${view.dataset.gloss}`.trim();
    for (const [id, text] of [["heat-low", low], ["heat-high", high], ["heat-gloss", said]])
      document.getElementById(id).textContent = text;
    plots.filter((plot) => "heat" in plot.dataset).forEach((plot) => {
      plot.dataset.figure = `${plot.dataset.heat}-${choice.value}-${view.value}`;
      const what = `${choice.selectedOptions[0].text}, ${view.parentElement.textContent.trim()}`;
      plot.setAttribute("aria-label", `${plot.dataset.title}: ${what}`);
      if (plot.dataset.drawn) draw(plot);
    });
  };
  if (choice) [choice, ...views].forEach((element) => element.addEventListener("change", choose));

  const picker = document.getElementById("pick");
  const cells = [...document.querySelectorAll(".cell")];
  const steps = { previous: -1, next: 1 };
  // A large grid's page shows only some pairs of spaces in detail; for the others it says how to see them.
  const note = document.getElementById("elsewhere");
  const select = (cell) => {
    if (note) note.hidden = !(cell in elsewhere);
    if (cell in elsewhere) {
      note.querySelector("b").textContent = elsewhere[cell].join(" × ");
      note.querySelector("code").textContent = `unifeat show ${folder} ${elsewhere[cell].join(" ")}`;
      return;
    }
    picker.value = cell;
    cells.forEach((element) => (element.hidden = element.dataset.cell !== cell));
    drawRest();
    for (const [id, step] of Object.entries(steps))
      document.getElementById(id).disabled = !picker.options[picker.selectedIndex + step];
  };
  picker.addEventListener("change", () => select(picker.value));
  for (const [id, step] of Object.entries(steps))
    document.getElementById(id).addEventListener("click", () => select(picker.options[picker.selectedIndex + step].value));

  // The choice of strongest or random pairs applies to all pairs of spaces.
  const tabs = [...document.querySelectorAll("[data-list]")];
  const list = (name) => {
    tabs.forEach((tab) => tab.setAttribute("aria-pressed", tab.dataset.list === name));
    document.querySelectorAll("[data-of]").forEach((element) => (element.hidden = element.dataset.of !== name));
  };
  tabs.forEach((tab) => tab.addEventListener("click", () => list(tab.dataset.list)));

  // Sorting: numbers by data-v, words by their text; missing values come last.
  const key = (row, column) => {
    const cell = row.cells[column];
    return "v" in cell.dataset ? parseFloat(cell.dataset.v) : cell.textContent.trim();
  };
  const compare = (a, b) => {
    if (typeof a === "string") return a.localeCompare(b, undefined, { numeric: true });
    return Number.isNaN(a) - Number.isNaN(b) || a - b;
  };
  document.querySelectorAll(".sortable th button").forEach((button) =>
    button.addEventListener("click", () => {
      const heading = button.parentElement;
      const down = heading.getAttribute("aria-sort") === "descending";
      const numeric = heading.classList.contains("n");
      const order = heading.hasAttribute("aria-sort") ? (down ? "ascending" : "descending") : numeric ? "descending" : "ascending";
      const body = heading.closest("table").tBodies[0];
      const sign = order === "ascending" ? 1 : -1;
      const known = (v) => typeof v === "string" || !Number.isNaN(v);
      const rows = [...body.rows].map((row) => [key(row, heading.cellIndex), row]);
      rows.sort(([a], [b]) => (known(a) && known(b) ? sign * compare(a, b) : known(b) - known(a)));
      heading.parentElement.querySelectorAll("[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", order);
      body.append(...rows.map(([, row]) => row));
    }),
  );

  select(picker.dataset.first);
  if (choice) choose();
  unfold();
})();
