// Tables with sorting and filtering, whose state is stored in the URL fragment, and plots that follow the colour scheme.
// The page sends no network requests.
"use strict";
(() => {
  const PAGE = window.innerWidth < 640 ? 30 : 100; // rows at first; a phone is narrow, and its rows are high
  const read = (id) => { // the inverse of table_data.py
    const data = JSON.parse(document.getElementById(id).textContent);
    const whole = (cell) => (cell !== null && typeof cell === "object" ? { ...cell, paper: data.papers?.[cell.paper], phone: data.phones?.[cell.phone] } : cell);
    const named = (cell) => (Array.isArray(cell) ? Object.fromEntries(data.fields[cell[0]].map((name, i) => [name, cell[i + 1]])) : cell);
    for (const row of data.rows ?? []) row.cells = row.cells.map((cell) => whole(cell?.is === undefined ? named(cell) : data.shared[cell.is]));
    return data;
  };
  const element = (name, values = {}, ...inside) => {
    const node = Object.assign(document.createElement(name), values);
    node.append(...inside);
    return node;
  };
  const sortValue = (cell) => (cell !== null && typeof cell === "object" ? cell.sort ?? cell.text : cell);
  const shown = (cell) => (cell === null ? "" : typeof cell === "object" ? cell.text : String(cell));

  // Long names may be broken where `_breakable` in pages.py breaks them, not inside a word.
  const BREAKS = /(?<=[_+/|=,])(?=\S)|(?<=[A-Za-z]\.)(?=[A-Za-z])|(?=\()/;
  const breakable = (text) => String(text).split(BREAKS).flatMap((part, i) => (i ? [document.createElement("wbr"), part] : [part]));
  const classesOf = (column) => [column.kind === "text" && "text", column.wide && "wide", column.long && "long", column.extra && "extra", column.roomy && "roomy", column.medium && "medium"].filter(Boolean).join(" ");

  // Commands are pasted into a shell or Python, so SITE is replaced by the address of this site.
  const site = document.querySelector("nav .home").href.replace(/\/index\.html$/, "");
  const address = site.startsWith("file:") ? decodeURIComponent(site) : site;
  const quoted = (text) => (/^[\w./:@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`); // shell quoting
  const withAddress = (text) => text.replace(/"SITE(\/sets[^"]*)"|\bSITE(\/sets\S*)/g, (_, python, shell) => (python ? JSON.stringify(address + python) : quoted(address + shell)));

  function copyButton(text, content, label) {
    const button = element("button", { type: "button", className: "copy" }, text);
    button.setAttribute("aria-label", label);
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(content());
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = text; }, 1500);
    });
    return button;
  }
  for (const code of document.querySelectorAll("main > pre code, details pre code")) {
    code.textContent = withAddress(code.textContent);
    const block = element("div", { className: "code" });
    code.parentNode.replaceWith(block);
    block.append(code.parentNode, copyButton("Copy", () => code.textContent, "copy the code"));
  }

  // The scale of the intervals at an IPC. A few low values would make all others too small to compare: values that are
  // further below the median than the largest value is above it are outside, and have an arrow. If low is best, as for
  // ranks, all values are inside.
  function scale(cells, lowIsBest) {
    const values = cells.map((cell) => cell.sort).sort((a, b) => a - b), median = values[values.length >> 1];
    const low = Math.min(...cells.map((cell) => cell.low)), high = Math.max(...cells.map((cell) => cell.high));
    return [lowIsBest ? low : Math.max(low, 2 * median - high), high, cells.length];
  }
  function whisker(cell, low, high) {
    const ns = "http://www.w3.org/2000/svg", at = (x) => 2 + (108 * Math.max(0, x - low)) / (high - low || 1);
    const svg = document.createElementNS(ns, "svg"), line = document.createElementNS(ns, "line"), dot = document.createElementNS(ns, "circle");
    if (cell.sort < low) {
      const arrow = document.createElementNS(ns, "path");
      arrow.setAttribute("d", "M2 6l7-4v8z");
      svg.append(arrow);
    }
    svg.setAttribute("class", "whisker"); svg.setAttribute("viewBox", "0 0 112 12"); svg.setAttribute("aria-hidden", "true");
    Object.entries({ x1: at(cell.low), x2: at(cell.high), y1: 6, y2: 6 }).forEach(([k, v]) => line.setAttribute(k, v));
    Object.entries({ cx: at(cell.sort), cy: 6, r: 3.2 }).forEach(([k, v]) => dot.setAttribute(k, v));
    svg.append(...(cell.high < low ? [] : [line]), ...(cell.sort < low ? [] : [dot]));
    return svg;
  }

  function board(section) {
    const name = section.dataset.table, { columns, rows, compare, loader, base, files } = read(name);
    const [form, count, head, body, more] = ["form", ".count", "thead", "tbody", ".more"].map((s) => section.querySelector(s));
    const state = { sort: null, down: false, limit: PAGE, filters: {} }, inputs = {};
    const ipcAt = columns.findIndex((column) => column.id === "ipc"), ipcOf = (row) => (ipcAt < 0 ? "" : shown(row.cells[ipcAt]));
    const spans = columns.map((column, i) => {
      const found = {}; // intervals are compared within an IPC
      for (const row of rows) {
        const cell = row.cells[i];
        if (cell && typeof cell === "object" && "low" in cell) (found[ipcOf(row)] ??= []).push(cell);
      }
      return Object.fromEntries(Object.entries(found).map(([ipc, cells]) => [ipc, scale(cells, columns[i].low_is_best)]));
    });
    // On a phone, columns of intervals, and columns with `fold`, are part of the column before them.
    const folds = columns.map((column, i) => i > 1 && (column.fold || Object.keys(spans[i]).length > 0)), several = folds.filter(Boolean).length > 1;
    const classes = columns.map((column, i) => (folds[i] ? `${classesOf(column)} interval` : classesOf(column)));
    const key = (word) => (name === "rows" || name === "boards" ? word : `${name}.${word}`);

    function matches(row) {
      return Object.entries(state.filters).every(([id, value]) => {
        if (id === "q") return value.toLowerCase().split(/\s+/).every((word) => row.text.includes(word));
        const i = columns.findIndex((c) => c.id === id);
        if (id === "ipc" && shown(row.cells[i]) === "all") return true; // the whole training set is shown for every IPC
        return row.control && row.cells[i] === null ? true : shown(row.cells[i]) === value;
      });
    }
    function ordered(found) {
      const i = columns.findIndex((c) => c.id === state.sort);
      if (i < 0) return found;
      const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
      return [...found].sort((x, y) => {
        const a = sortValue(x.cells[i]), b = sortValue(y.cells[i]);
        if (a === null || b === null) return (a === null) - (b === null); // missing values are last in both directions
        return (state.down ? -1 : 1) * compare(a, b);
      });
    }
    function cellOf(cell, column, i, row) {
      const node = element(i === 0 ? "th" : "td", { className: classes[i] });
      if (i === 0) node.scope = "row";
      if (column.kind === "text" && shown(cell).length <= 18) node.classList.add(shown(cell).length <= 12 ? "short" : "brief"); // is broken only on a phone, or in a narrow window
      if (i === 0 && compare) node.append(row.compare ? tick(row) : element("span", { className: "no-tick" }));
      const inside = breakable(shown(cell));
      if (cell === null || typeof cell !== "object") { node.append(...inside); return node; }
      if (cell.picture) {
        const picture = cell.picture.replace("*", row.set[0]), alt = `picture of ${row.cells.slice(0, 3).map(shown).join(", ")}`;
        node.append(element("a", { href: picture }, element("img", { src: picture, loading: "lazy", className: "thumbnail", alt })));
      }
      if (cell.load) node.append(copyButton("Copy", () => withAddress(loader.replace("{url}", JSON.stringify(`${base}/${row.set[0]}`)).replace("{digest}", row.set[1])), `copy the lines that load ${row.set[0]}`));
      else if (cell.files) node.append(...cell.files.flatMap((text) => [element("a", { href: `sets/${row.set[0]}/${files[text]}`, download: "" }, text), " "]));
      else if (cell.more) node.append(element("details", {}, element("summary", {}, ...inside), element("span", {}, ...breakable(cell.more))));
      else if (cell.href) node.append(element("a", { href: cell.href }, ...inside));
      else if (cell.mark) node.append(element("span", { className: cell.mark, title: cell.mark }, ...inside));
      else node.append(...inside);
      if (cell.paper) node.append(" ", element("a", { href: cell.paper, className: "paper", rel: "noreferrer", ariaLabel: `paper of ${cell.text}` }, "paper"));
      if (cell.title) node.title = cell.title;
      if (cell.sub) node.append(element("small", cell.sub.length < 16 ? { className: "one-line" } : {}, ...breakable(cell.sub)));
      for (const name of ["narrow", "phone"]) if (cell[name]) node.append(element("small", { className: name }, ...breakable(cell[name])));
      if ("low" in cell) node.append(...whiskerOf(cell, i, row));
      return node;
    }
    const whiskerOf = (cell, i, row) => (spans[i][ipcOf(row)][2] > 1 ? [whisker(cell, ...spans[i][ipcOf(row)])] : []);
    function rowOf(row) {
      const cells = row.cells.map((cell, i) => cellOf(cell, columns[i], i, row));
      row.cells.forEach((cell, i) => {
        if (!cell || !folds[i]) return;
        let at = i - 1;
        while (folds[at]) at--;
        const label = several ? `${columns[i].label.replace("95 %, ", "")} ` : "", sub = cell.sub ? [element("br"), cell.sub] : [];
        cells[at].append(element("small", { className: "folded" }, ...breakable(label), shown(cell), ...sub, ...("low" in cell ? whiskerOf(cell, i, row) : [])));
      });
      return element("tr", { className: row.control ? "control" : "" }, ...cells);
    }
    // Ticked rows are compared below the table. Their digests are stored in the address.
    const ticked = new Set(), place = compare && document.querySelector(".comparison");
    for (const row of compare ? rows : []) {
      if (row.compare) Object.assign(row.compare, { name: `${shown(row.cells[0])}${row.cells[0].sub ? ` (${row.cells[0].sub})` : ""}, IPC ${ipcOf(row)}`, ipc: ipcOf(row) });
    }
    function tick(row) {
      const box = element("input", { type: "checkbox", className: "pick", checked: ticked.has(row) });
      box.setAttribute("aria-label", `compare ${row.compare.name}`);
      box.addEventListener("change", () => {
        if (box.checked) ticked.add(row); else ticked.delete(row);
        saveState();
        compareTicked();
      });
      return box;
    }
    function compareTicked() {
      if (!compare) return;
      const clear = () => { ticked.clear(); saveState(); show(); compareTicked(); };
      Comparison.show(place, [...ticked].map((row) => row.compare), compare, clear, breakable);
      bar.hidden = ticked.size === 0;
      bar.firstChild.textContent = ticked.size === 1 ? "Tick one more row to compare" : `Compare ${ticked.size} rows`;
    }
    const bar = element("p", { className: "compare-bar", hidden: true }, element("a", { href: "#comparison" }));
    if (compare) {
      place.id = "comparison";
      bar.firstChild.addEventListener("click", (event) => { event.preventDefault(); place.scrollIntoView({ block: "start" }); });
      section.append(bar);
    }

    function show() {
      for (const row of rows) row.text ??= [...row.cells.map((cell) => `${shown(cell)} ${cell?.sub ?? ""}`), ...(row.set ?? [])].join(" ").toLowerCase();
      const found = ordered(rows.filter(matches));
      body.replaceChildren(...found.slice(0, state.limit).map(rowOf));
      count.textContent = `${found.length} of ${rows.length} rows` + (found.length > state.limit ? `, ${state.limit} shown` : "");
      more.hidden = found.length <= state.limit;
      for (const cell of head.querySelectorAll("th")) {
        const on = cell.dataset.id === state.sort;
        cell.setAttribute("aria-sort", on ? (state.down ? "descending" : "ascending") : "none");
      }
    }
    function saveState() {
      const words = new URLSearchParams(location.hash.slice(1));
      for (const id of [...Object.keys(inputs), "sort", "down", "compare"]) words.delete(key(id));
      for (const [id, value] of Object.entries(state.filters)) words.set(key(id), value);
      if (state.sort) words.set(key("sort"), state.sort);
      if (state.down) words.set(key("down"), "1");
      if (ticked.size) words.set(key("compare"), [...ticked].map((row) => row.compare.id).join("."));
      history.replaceState(null, "", words.toString() ? `#${words}` : location.pathname + location.search);
    }
    function loadState() {
      const words = new URLSearchParams(location.hash.slice(1));
      state.filters = {};
      for (const [id, input] of Object.entries(inputs)) {
        input.value = words.get(key(id)) ?? "";
        if (input.value) state.filters[id] = input.value;
      }
      const ids = (words.get(key("compare")) ?? "").split(".");
      ticked.clear();
      for (const row of rows) if (row.compare && ids.includes(row.compare.id)) ticked.add(row);
      [state.sort, state.down, state.limit] = [words.get(key("sort")), words.has(key("down")), PAGE];
    }
    function changed() { state.limit = PAGE; saveState(); show(); }

    head.append(element("tr", {}, ...columns.map((column, i) => {
      const cell = element("th", { scope: "col", className: classes[i] });
      cell.dataset.id = column.id;
      const button = element("button", { type: "button" }, ...breakable(column.label));
      if (column.title) button.title = column.title;
      button.addEventListener("click", () => {
        state.down = state.sort === column.id ? !state.down : column.kind !== "text";
        state.sort = column.id;
        changed();
      });
      cell.append(button);
      return cell;
    })));
    const filter = (id, label, input) => {
      input.addEventListener(input.tagName === "SELECT" ? "change" : "input", () => {
        if (input.value) state.filters[id] = input.value; else delete state.filters[id];
        changed();
      });
      inputs[id] = input;
      form.append(element("label", {}, label, input));
    };
    if (rows.length > 8) filter("q", "Search", element("input", { type: "search", autocomplete: "off" }));
    columns.forEach((column, i) => {
      if (!column.filter) return;
      const values = [...new Set(rows.map((row) => shown(row.cells[i])))].filter(Boolean).sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
      if (values.length < 2) return;
      filter(column.id, column.label, element("select", {}, element("option", { value: "" }, "all"), ...values.map((v) => element("option", { value: v }, v))));
    });
    if (columns.some((column) => column.extra || column.wide || column.roomy || column.medium) || folds.some(Boolean)) {
      const box = element("input", { type: "checkbox" });
      box.addEventListener("change", () => section.classList.toggle("all-columns", box.checked));
      // Without a column that is hidden at first, all columns are hidden or shown by the width of the screen.
      form.append(element("label", { className: columns.some((column) => column.extra) ? "tick" : "tick narrow" }, box, "all columns"));
    }
    form.addEventListener("submit", (event) => event.preventDefault());
    more.addEventListener("click", () => { state.limit += 10 * PAGE; show(); });
    window.addEventListener("hashchange", () => { if (!location.hash || location.hash.includes("=")) { loadState(); show(); compareTicked(); } });
    loadState();
    show();
    compareTicked();
  }

  // Plotly labels minor ticks of a logarithmic axis at three quarters of the size. Only powers of ten are labelled, or 1, 2, 5.
  function logTicks(values) {
    const [low, high] = [Math.log10(Math.min(...values)), Math.log10(Math.max(...values))], steps = high - low > 2 ? [1] : [1, 2, 5];
    const tickvals = [];
    for (let power = Math.floor(low); power <= Math.ceil(high); power++) tickvals.push(...steps.map((step) => step * 10 ** power));
    return { tickvals, ticktext: tickvals.map((value) => value.toLocaleString("en", { maximumSignificantDigits: 1, notation: value >= 1e4 ? "compact" : "standard" })) };
  }

  // Plotly has several megabytes, so it is loaded when the first plot comes near the visible part of the page.
  const plotly = document.currentScript.src.replace(/[^/]*$/, "plotly.min.js");
  let loaded = null;
  const nearby = new IntersectionObserver((seen) => {
    for (const { target } of seen.filter((one) => one.isIntersecting)) {
      nearby.unobserve(target);
      loaded ??= new Promise((resolve) => { document.head.append(element("script", { src: plotly, onload: resolve })); });
      loaded.then(() => plot(target));
    }
  }, { rootMargin: "200px" });

  // The legend of a plot on a phone: a list below it, because a legend of plotly would take its height from the plot.
  function names(place, traces) {
    const drawn = [...place.querySelectorAll(".scatterlayer .trace")].slice(-traces.length);
    return element("ul", { className: "names" }, ...traces.map((trace, i) => {
      const item = element("li"), point = drawn[i]?.querySelector(".point"), line = drawn[i]?.querySelector(".js-line");
      const dash = line?.style.strokeDasharray;
      if (point) item.innerHTML = `<svg viewBox="-12 -7 24 14" aria-hidden="true">${line ? `<path d="M-12 0H12" fill="none" stroke="${point.style.fill}"${dash ? ` stroke-dasharray="${dash}"` : ""}/>` : ""}<path d="${point.getAttribute("d")}" fill="${point.style.fill}"/></svg>`;
      item.append(" ", trace.name);
      return item;
    }));
  }

  function plot(place) {
    const { traces, axes, fronts } = read(place.dataset.plot), select = document.querySelector("[data-axis]");
    const draw = () => {
      const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
      const axis = select ? select.value : "x", grid = colour("--line");
      const symbols = ["circle", "square", "triangle-up", "diamond", "cross", "x", "star", "triangle-down", "pentagon", "hexagram"];
      const phone = window.innerWidth < 640;
      const lines = traces.map(({ colour: name, symbol, dash, ...t }) => {
        const color = colour(`--f-${name}`);
        return { ...t, x: t[axis], type: "scatter", line: { color, dash: dash ?? "solid", width: 1.5 }, marker: { color, symbol: symbols[symbol % symbols.length], size: 9 } };
      });
      if (fronts) lines.unshift({ x: fronts[axis].x, y: fronts[axis].y, mode: "lines", line: { shape: "hv", color: colour("--quiet"), width: 1 }, hoverinfo: "skip", showlegend: false });
      const layout = {
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: colour("--ink"), size: 13 }, margin: { t: 36, r: 10, l: phone ? 50 : 60, b: 50 }, hovermode: "closest", modebar: { bgcolor: "rgba(0,0,0,0)" },
        xaxis: { title: { text: axes[axis].title }, type: axes[axis].type, gridcolor: grid, zeroline: false, ...(axes[axis].ticks ? { tickvals: axes[axis].ticks } : {}), ...(axes[axis].type === "log" ? logTicks(traces.flatMap((t) => t[axis])) : {}) },
        yaxis: { title: { text: axes.y.title }, gridcolor: grid, zeroline: false },
        showlegend: !phone,
      };
      const done = Plotly.react(place, lines, layout, { displaylogo: false, responsive: true, showSendToCloud: false, modeBarButtonsToRemove: ["lasso2d", "select2d", "sendDataToCloud"] });
      done.then(() => {
        place.nextElementSibling?.matches(".names") && place.nextElementSibling.remove();
        if (phone) place.after(names(place, traces));
      });
    };
    draw();
    place.on("plotly_click", ({ points }) => { const to = points[0].customdata; if (to) location.href = to; });
    if (select) select.addEventListener("change", draw);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  }

  document.querySelectorAll("[data-table]").forEach(board);
  document.querySelectorAll("[data-plot]").forEach((place) => nearby.observe(place));
  document.documentElement.dataset.ready = "yes";
})();
