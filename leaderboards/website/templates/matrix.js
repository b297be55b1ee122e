// Matrices: the switch between the boards of a dataset, sorting by an IPC, and highlighting of a row's curves.
"use strict";
// Show only the first rows of a long group, in their present order, unless its button is pressed. Other settings of a
// method that are hidden do not count.
function fold(body) {
  const all = body.querySelector(".all"), withVariants = body.closest(".with-variants") !== null;
  const rows = [...body.querySelectorAll("tr[data-m]")].filter((row) => withVariants || !row.classList.contains("variant"));
  const pressed = all.getAttribute("aria-expanded") === "true";
  rows.forEach((row, i) => row.hidden = !pressed && i >= Number(body.dataset.shown));
  all.textContent = pressed ? `show the first ${body.dataset.shown}` : `show all ${rows.length}`;
  all.hidden = rows.length <= Number(body.dataset.shown);
}
function foldable(body) {
  const all = Object.assign(document.createElement("button"), { type: "button", className: "all" });
  all.setAttribute("aria-expanded", "false");
  all.addEventListener("click", () => {
    all.setAttribute("aria-expanded", String(all.getAttribute("aria-expanded") !== "true"));
    fold(body);
  });
  body.querySelector(".group th").append(" ", all);
  fold(body);
}
// Sort a matrix by an IPC, and highlight the curves of a row.
function enliven(table) {
  for (const head of table.querySelectorAll("th[data-ipc]")) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: head.textContent });
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const value = (row) => Number(row.querySelectorAll("td:not(.pub)")[head.dataset.ipc].dataset.v ?? -Infinity);
      const sign = head.getAttribute("aria-sort") === "descending" ? -1 : 1;
      for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign > 0 ? "descending" : "ascending");
      for (const body of table.tBodies) body.append(...[...body.querySelectorAll("tr[data-m]")].sort((a, b) => sign * (value(b) - value(a) || 0)));
      table.querySelectorAll("[data-shown]").forEach(fold);
    });
  }
  table.querySelectorAll("[data-shown]").forEach(foldable);
  const curves = [...(table.closest(".view")?.querySelectorAll("polyline") ?? [])];
  const highlight = (name) => {
    for (const curve of curves) {
      curve.classList.toggle("on", curve.dataset.m === name);
      curve.classList.toggle("off", name !== null && curve.dataset.m !== name && curves.some((c) => c.dataset.m === name));
    }
  };
  for (const row of table.querySelectorAll("tr[data-m]")) {
    row.querySelector(".paper")?.setAttribute("aria-label", `paper of ${row.dataset.m}`);
    for (const start of ["mouseenter", "focusin"]) row.addEventListener(start, () => highlight(row.dataset.m));
    for (const end of ["mouseleave", "focusout"]) row.addEventListener(end, () => highlight(null));
  }
}
for (const table of document.querySelectorAll("table.matrix")) enliven(table);
// The boards that are not shown at first are in another file: a script, because a page in a folder cannot fetch JSON.
const boardViews = {}, folder = document.currentScript.src.replace(/[^/]*$/, "");
function loadViews(name) {
  return new Promise((resolve, reject) => {
    if (boardViews[name]) return resolve(boardViews[name]);
    document.head.append(Object.assign(document.createElement("script"), { src: folder + name, onload: () => resolve(boardViews[name]), onerror: reject }));
  });
}
for (const section of document.querySelectorAll(".dataset")) {
  const views = [...section.querySelectorAll(".view, .board-view")], selects = [...section.querySelectorAll("[data-switch]")];
  const agree = (view, select) => view.dataset[select.dataset.switch] === select.value;
  const shown = async (at) => {  // the element of a board, which is made when it is first chosen
    if (views[at].classList.contains("view")) return views[at];
    const template = document.createElement("template");
    template.innerHTML = (await loadViews(section.dataset.views))[at - 1];
    if (views[at].classList.contains("view")) return views[at];  // made while the file was loaded
    const made = template.content.firstElementChild;
    views[at].replaceWith(made);
    views[at] = made;
    made.querySelectorAll("table.matrix").forEach(enliven);
    return made;
  };
  let latest = 0;
  for (const select of selects) {
    select.addEventListener("change", async () => {
      // Of the boards with the new choice, show the first one that agrees in most other choices.
      const found = views.filter((view) => agree(view, select));
      const score = (view) => selects.filter((other) => agree(view, other)).length;
      const best = found.reduce((a, b) => (score(b) > score(a) ? b : a));
      for (const other of selects) other.value = best.dataset[other.dataset.switch];
      const at = latest = views.indexOf(best), made = await shown(at);
      if (at === latest) for (const view of views) view.hidden = view !== made;
    });
  }
  for (const name of ["published", "variants"]) {
    const box = section.querySelector(`.show-${name}`);
    const toggle = () => {
      section.classList.toggle(`with-${name}`, box.checked);
      section.querySelectorAll("[data-shown]").forEach(fold);
    };
    box.closest("label").hidden = !views.some((view) => view.dataset.has.includes(name));
    box.addEventListener("change", toggle);
    toggle();
  }
}
// On a phone, only the first dataset is open at first. A link to a dataset opens it.
const datasets = [...document.querySelectorAll(".dataset > details")];
if (matchMedia("(max-width: 40rem)").matches) for (const one of datasets.slice(1)) one.open = false;
function openTarget() {
  const section = document.getElementById(decodeURIComponent(location.hash.slice(1))), one = datasets.find((d) => d.parentElement === section);
  if (!one || one.open) return;
  one.open = true;
  section.scrollIntoView();
}
for (const link of document.querySelectorAll(".jump a")) link.addEventListener("click", () => setTimeout(openTarget));
addEventListener("hashchange", openTarget);
openTarget();
