"use strict";
// Shows the server's newest view every second, and says how old what is shown is. Text is only
// ever placed as text: nothing from the network becomes markup.

const EVERY_MS = 1000;
const TIMEOUT_MS = 3000;
const STALE_MS = 3500; // a missed poll or two

const age = document.getElementById("age");
const alertBox = document.getElementById("alert");
let shownAt = null; // when what is shown was asked for, by the clock that never jumps
let asOf = age.dataset.asOf;
let failure = "";
let timer;
let polling = false;

function child(parent, name, text) {
  const element = document.createElement(name);
  element.textContent = text;
  parent.append(element);
}

function bar(width) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  svg.setAttribute("class", "bar");
  svg.setAttribute("aria-hidden", "true");
  rect.setAttribute("width", `${width * 100}%`);
  rect.setAttribute("height", "100%");
  svg.append(rect);
  return svg;
}

function row(cells) {
  const tr = document.createElement("tr");
  for (const cell of cells) {
    const td = document.createElement("td");
    if (cell.mark) td.className = cell.mark;
    if (cell.bar !== null) td.append(bar(cell.bar));
    if (cell.text) child(td, "b", cell.text);
    if (cell.note) child(td, "small", cell.note);
    tr.append(td);
  }
  return tr;
}

function show(view) {
  for (const element of document.querySelectorAll("[data-text]")) {
    const text = view.texts[element.dataset.text];
    if (element.textContent !== text) element.textContent = text;
  }
  for (const body of document.querySelectorAll("[data-table]")) {
    const rows = view.tables[body.dataset.table].map(row);
    // Rows that did not change stay, so that a selection in them does.
    rows.forEach((tr, i) => {
      const old = body.rows[i];
      if (!old) body.append(tr);
      else if (!old.isEqualNode(tr)) old.replaceWith(tr);
    });
    while (body.rows.length > rows.length) body.lastElementChild.remove();
  }
}

function showAge() {
  const old = shownAt === null ? 0 : performance.now() - shownAt;
  const stale = failure !== "" || old > STALE_MS;
  document.body.classList.toggle("stale", stale);
  alertBox.hidden = !stale;
  if (stale) {
    const text = `Not live: these are the numbers of ${asOf}. ${failure || "The poll is late."}`;
    if (alertBox.textContent !== text) alertBox.textContent = text;
  }
  if (!stale && shownAt === null) return; // the page as it came
  age.className = stale ? "stale" : "live";
  age.textContent = shownAt === null ? "stale" : `${age.className}, ${Math.round(old / 1000)} s old`;
}

async function poll() {
  if (polling) return;
  polling = true;
  clearTimeout(timer);
  const asked = performance.now();
  try {
    const response = await fetch(document.body.dataset.poll, {
      cache: "no-store",
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    if (!response.ok) throw new Error(`The server says ${response.status}: ${await response.text()}`);
    const { view } = await response.json();
    show(view);
    asOf = view.texts.as_of;
    shownAt = asked;
    failure = "";
  } catch (error) {
    failure = error.message.startsWith("The server") ? error.message : "The server does not answer.";
  }
  polling = false;
  showAge();
  timer = setTimeout(poll, EVERY_MS);
}

setInterval(showAge, 250);
document.addEventListener("visibilitychange", () => document.hidden || poll());
poll();
