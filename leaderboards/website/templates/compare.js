// Comparison of ticked rows of a board: differences with 95 % intervals and p-values, as in core/differences.py.
"use strict";
const Comparison = (() => {
  const mean = (x) => x.reduce((a, b) => a + b, 0) / x.length;
  const variance = (x) => { const m = mean(x); return x.reduce((a, b) => a + (b - m) ** 2, 0) / (x.length - 1); };

  // Student's t by the regularised incomplete beta function: continued fraction, Numerical Recipes, section 6.4.
  function logGamma(x) { // Lanczos approximation with g=7
    const c = [0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059, 12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7];
    const t = x + 6.5;
    return 0.5 * Math.log(2 * Math.PI) + (x - 0.5) * Math.log(t) - t + Math.log(c.reduce((sum, a, i) => sum + (i ? a / (x - 1 + i) : a), 0));
  }
  function fraction(a, b, x) {
    const keep = (value) => (Math.abs(value) < 1e-300 ? 1e-300 : value);
    let c = 1, d = 1 / keep(1 - ((a + b) * x) / (a + 1)), result = d;
    for (let m = 1; m < 1000; m++) {
      for (const step of [(m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m)), (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1))]) {
        d = 1 / keep(1 + step * d);
        c = keep(1 + step / c);
        result *= d * c;
      }
      if (Math.abs(d * c - 1) < 1e-15) break;
    }
    return result;
  }
  function beta(a, b, x) {
    if (x <= 0 || x >= 1) return x <= 0 ? 0 : 1;
    const front = Math.exp(logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log1p(-x));
    return x < (a + 1) / (a + b + 2) ? (front * fraction(a, b, x)) / a : 1 - (front * fraction(b, a, 1 - x)) / b;
  }
  const pValue = (t, df) => beta(df / 2, 0.5, df / (df + t * t)); // two-sided
  function critical(df) { // 97.5 % quantile, by bisection
    let low = 0, high = 2;
    while (pValue(high, df) > 0.05) high *= 2;
    for (let i = 0; i < 100; i++) {
      const middle = (low + high) / 2;
      if (pValue(middle, df) > 0.05) low = middle; else high = middle;
    }
    return high;
  }

  function result(test, diff, error, df, n, largest) {
    if (error <= 1e-12 * largest) return { test, mean: diff, low: diff, high: diff, p: Math.abs(diff) <= 1e-12 ? 1 : 0, n };
    const half = critical(df) * error;
    return { test, mean: diff, low: diff - half, high: diff + half, p: pValue(diff / error, df), n };
  }
  // The difference a - b; null if an entry has fewer than two values. Entries of one set each are paired by seed.
  function difference(a, b) {
    const largest = Math.max(...[...a.values, ...b.values].map(Math.abs));
    if (a.seeds && b.seeds) {
      const other = new Map(b.seeds.map((seed, i) => [seed, (b.by_seed ?? b.values)[i]]));
      const pairs = a.seeds.flatMap((seed, i) => (other.has(seed) ? [(a.by_seed ?? a.values)[i] - other.get(seed)] : []));
      if (pairs.length > 1) return result("paired by seed", mean(pairs), Math.sqrt(variance(pairs) / pairs.length), pairs.length - 1, pairs.length, largest);
    }
    if (Math.min(a.values.length, b.values.length) < 2) return null;
    const errors = [a.values, b.values].map((x) => variance(x) / x.length), sum = errors[0] + errors[1];
    const df = sum ** 2 / (errors[0] ** 2 / (a.values.length - 1) + errors[1] ** 2 / (b.values.length - 1));
    return result("Welch", mean(a.values) - mean(b.values), Math.sqrt(sum), df, Math.min(a.values.length, b.values.length), largest);
  }
  // P-values after Holm's correction, in the given order.
  function holm(p) {
    const order = p.map((_, i) => i).sort((a, b) => p[a] - p[b]), adjusted = [];
    let largest = 0;
    order.forEach((i, rank) => { largest = Math.max(largest, Math.min(1, (p.length - rank) * p[i])); adjusted[i] = largest; });
    return adjusted;
  }

  const element = (name, values = {}, ...inside) => { const node = Object.assign(document.createElement(name), values); node.append(...inside); return node; };
  function interval(d, low, high) { // a whisker with a line at zero
    const ns = "http://www.w3.org/2000/svg", at = (x) => 4 + (152 * (x - low)) / (high - low || 1);
    const svg = document.createElementNS(ns, "svg");
    const draw = (kind, values) => { const node = document.createElementNS(ns, kind); Object.entries(values).forEach(([k, v]) => node.setAttribute(k, v)); svg.append(node); };
    draw("path", { d: `M${at(0)} 0V14`, class: "zero" });
    draw("line", { x1: at(d.low), x2: at(d.high), y1: 7, y2: 7 });
    draw("circle", { cx: at(d.mean), cy: 7, r: 3.6 });
    svg.setAttribute("class", "whisker"); svg.setAttribute("viewBox", "0 0 160 14"); svg.setAttribute("aria-hidden", "true");
    return svg;
  }

  const MAX = 10; // rows, which have 45 pairs
  // Show the pairs of the ticked rows. A row has a name, an IPC, and the fields of website/comparison.py. On a phone, the
  // first cell has both names, and the difference has its interval and its test.
  function show(place, rows, { unit, scale, digits, entries }, clear, breakable) {
    place.hidden = rows.length === 0;
    if (!rows.length) return;
    const shown = rows.slice(0, MAX), pairs = [];
    shown.forEach((a, i) => shown.slice(i + 1).forEach((b) => pairs.push({ a, b, d: difference(a, b) })));
    const tested = pairs.filter((pair) => pair.d);
    holm(tested.map((pair) => pair.d.p)).forEach((p, i) => { tested[i].adjusted = p; });
    const low = Math.min(0, ...tested.map((pair) => pair.d.low)), high = Math.max(0, ...tested.map((pair) => pair.d.high));
    const text = (x) => `${x > 0 ? "+" : ""}${(scale * x).toFixed(digits)}`, small = (p) => (p < 1e-4 ? p.toExponential(1) : p.toPrecision(2));

    const warnings = new Set();
    for (const { a, b } of pairs) {
      const different = Object.keys(a.facts).filter((name) => a.facts[name] !== b.facts[name]).map((name) => `${name} (${a.facts[name] || "none"}, ${b.facts[name] || "none"})`);
      if (different.length) warnings.add(`Not comparable: ${a.name} and ${b.name} differ in ${different.join(", ")}. Their difference is not that of the methods.`);
    }
    const ipcs = [...new Set(shown.map((row) => row.ipc))].filter((ipc) => ipc !== "all");
    if (ipcs.length > 1) warnings.add(`The rows have different numbers of samples per class (IPC ${ipcs.join(", ")}). Boards rank entries only at the same IPC.`);
    for (const row of shown) if (row.note) warnings.add(`${row.name} is ${row.note}.`);
    if (rows.length > MAX) warnings.add(`${rows.length} rows are ticked; the first ${MAX} are compared.`);

    const cells = ({ a, b, d, adjusted }) => {
      const start = [element("th", { scope: "row" }, ...breakable(a.name), element("small", { className: "phone" }, "minus ", ...breakable(b.name))), element("td", { className: "text medium" }, ...breakable(b.name))];
      if (!d) return [...start, element("td", { className: "text", colSpan: 6 }, "no test: an entry has fewer than two independent values")];
      const bounds = `${text(d.low)} to ${text(d.high)}`;
      const below = [element("small", { className: "folded" }, bounds, interval(d, low, high)), element("small", { className: "phone" }, `n ${d.n}, ${d.test}, p ${small(d.p)}`)];
      return [...start, element("td", {}, element("span", { className: adjusted < 0.05 ? "significant" : "" }, text(d.mean)), ...below), element("td", { className: "interval" }, bounds, interval(d, low, high)),
        element("td", { className: "medium" }, d.n), element("td", { className: "text medium" }, d.test), element("td", { className: "medium" }, small(d.p)), element("td", {}, small(adjusted))];
    };
    const kinds = ["text", "text medium", "", "interval", "medium", "text medium", "medium", ""];
    const heads = ["First", "Second", `Difference, ${unit}`, "95 % interval", "n", "Test", "p", "p (Holm)"];
    const table = element("table", {}, element("caption", { className: "quiet" }, "differences of the ticked rows, first minus second"),
      element("thead", {}, element("tr", {}, ...heads.map((head, i) => element("th", { scope: "col", className: kinds[i] }, head, ...(i ? [] : [element("small", { className: "phone" }, "minus second")]))))),
      element("tbody", {}, ...pairs.map((pair) => element("tr", {}, ...cells(pair)))));
    const scroll = element("div", { className: "scroll", tabIndex: 0 }, table);
    scroll.setAttribute("role", "region"); scroll.setAttribute("aria-label", "comparison of the ticked rows");
    const button = element("button", { type: "button" }, "Clear");
    button.addEventListener("click", clear);
    const explained = "First minus second. Paired by seed: t-test over networks with the same seeds on one set each; the result is about these sets. Welch: t-test over independent values, the means of the sets if an entry has several. p (Holm): corrected for all pairs shown; below 0.05 the difference is bold.";
    const paired = pairs.length && pairs.every(({ a, b, d }) => d && d.test !== "Welch" && !Object.keys(a.facts).some((name) => a.facts[name] !== b.facts[name]));
    place.replaceChildren(
      element("h2", {}, `Comparison of ${rows.length} row${rows.length > 1 ? "s" : ""}`), button,
      ...(pairs.length ? [...[...warnings].map((words) => element("p", { className: "warning" }, words)), scroll, element("p", { className: "quiet" }, explained)] : [element("p", {}, "Tick one more row.")]),
      ...(paired ? [element("p", { className: "quiet" }, "The same test on the command line:"), element("pre", {}, element("code", {}, `dd-bench leaderboard compare ${entries}/*-{${shown.map((row) => row.id).join(",")}}.json`))] : []),
    );
  }
  return { difference, holm, show };
})();
