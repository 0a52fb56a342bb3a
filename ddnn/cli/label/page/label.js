// The contact sheet: rows are samples, columns are cameras. The server holds the state; after each
// change it sends all samples again.

const PAGE_ROWS = 100;
const $ = (id) => document.getElementById(id);

let board = { cameras: [], classes: [], samples: [] };
let shown = [];          // samples that the filter admits
let first = 0;           // the first row of the page
let row = 0;             // the cursor, in `shown`
let column = 0;          // a camera
let pending = 0;         // requests that are not answered yet
let failed = false;      // one of them
let last = Promise.resolve();
const selected = new Set();

function element(tag, attributes = {}, ...children) {
  const node = Object.assign(document.createElement(tag), attributes);
  node.append(...children);
  return node;
}

// Requests are sent one after the other, and none is left out. What the page shows meanwhile is what
// they will do; the last answer shows what they did.
function request(path, body) {
  if (pending === 0) $("message").textContent = "";
  pending += 1;
  $("sheet").ariaBusy = "true";
  last = last.then(() => send(path, body));
}

async function send(path, body) {
  try {
    const options = body === undefined ? {} : {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-DDNN": "1" },
      body: JSON.stringify(body),
    };
    const response = await fetch(path, options);
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    if (pending === 1) board = answer;
  } catch (error) {
    $("message").textContent = `${error.message}`;
    failed = path !== "api/samples";
  }
  pending -= 1;
  if (pending > 0) return;
  if (failed) {
    failed = false;
    pending = 1;
    last = last.then(() => send("api/samples"));
    return;
  }
  $("sheet").ariaBusy = "false";
  draw();
}

function findSamples(names) {
  const wanted = new Set(names);
  return board.samples.filter((sample) => wanted.has(sample.name));
}

// ------------------------------------------------------------------------ filter

function admits(sample) {
  const filter = $("filter").value;
  if (filter === "dropped") return sample.dropped;
  if (sample.dropped) return false;
  if (filter === "waiting") return sample.label === board.unlabelled;
  return filter === "" || filter === `class ${sample.label}`;
}

function drawFilter() {
  const counted = board.classes.reduce((sum, each) => sum + each.samples, 0);
  const options = [
    ["", `all (${counted + board.waiting})`],
    ["waiting", `not labelled (${board.waiting})`],
    ...board.classes.map((each) => [`class ${each.name}`, `${each.name} (${each.samples})`]),
    ["dropped", `dropped (${board.dropped})`],
  ];
  const before = $("filter").value;
  $("filter").replaceChildren(
    ...options.map(([value, text]) => element("option", { value, textContent: text })),
  );
  if (options.some(([value]) => value === before)) $("filter").value = before;
}

// ------------------------------------------------------------------------- sheet

function drawView(sample, camera, place, index) {
  const cell = element("td");
  cell.classList.toggle("cursor", index === row && place === column);
  if (!(camera in sample.views)) {
    cell.className += " none";
    cell.textContent = "–";
    return cell;
  }
  const isIn = sample.views[camera];
  cell.classList.toggle("aside", !isIn);
  const button = element("button", { type: "button" });
  button.setAttribute("aria-label", `${camera}, ${sample.label}${isIn ? "" : ", sees nothing"}`);
  const path = `picture/${encodeURIComponent(sample.name)}/${encodeURIComponent(camera)}`;
  button.append(element("img", { src: path, alt: "", loading: "lazy" }));
  if (!isIn) button.append(element("small", { textContent: "sees nothing" }));
  button.addEventListener("click", (event) => {
    column = place;
    choose(index, event.shiftKey);
  });
  button.addEventListener("dblclick", () => enlarge(path));
  cell.append(button);
  return cell;
}

function drawRow(sample, index) {
  const number = sample.name.slice(sample.name.lastIndexOf("-") + 1);
  const head = element(
    "th", { scope: "row" },
    element("b", { textContent: sample.label }),
    element("small", { textContent: sample.dropped ? "dropped" : `…${number.slice(-6)}` }),
  );
  head.addEventListener("click", (event) => choose(index, event.shiftKey));
  const line = element("tr", {}, head);
  line.dataset.sample = sample.name;
  line.classList.toggle("selected", selected.has(sample.name));
  line.setAttribute("aria-selected", selected.has(sample.name));
  line.classList.toggle("dropped", sample.dropped);
  line.classList.toggle("begins", index > first && shown[index - 1].burst !== sample.burst);
  line.append(...board.cameras.map((camera, place) => drawView(sample, camera, place, index)));
  return line;
}

// Shows the cursor and the selection, where rows stay as they are.
function mark() {
  row = Math.max(0, Math.min(row, shown.length - 1));
  column = Math.max(0, Math.min(column, board.cameras.length - 1));
  if (row < first || row >= first + PAGE_ROWS) { draw(); return; }
  document.querySelectorAll("#sheet tbody tr").forEach((line, place) => {
    const isSelected = selected.has(line.dataset.sample);
    line.classList.toggle("selected", isSelected);
    line.setAttribute("aria-selected", isSelected);
    line.querySelectorAll("td").forEach((cell, at) => {
      cell.classList.toggle("cursor", first + place === row && at === column);
    });
  });
  const picked = selected.size ? `, ${selected.size} selected` : "";
  $("position").textContent = shown.length ? `${row + 1} of ${shown.length}${picked}` : "";
  document.querySelector(`#sheet tbody tr:nth-child(${row - first + 1})`)
    ?.scrollIntoView({ block: "nearest" });
}

function draw() {
  drawFilter();
  shown = board.samples.filter(admits);
  const names = new Set(shown.map((sample) => sample.name));
  for (const name of selected) if (!names.has(name)) selected.delete(name);
  row = Math.max(0, Math.min(row, shown.length - 1));
  column = Math.max(0, Math.min(column, board.cameras.length - 1));
  first = Math.floor(row / PAGE_ROWS) * PAGE_ROWS;
  const last = Math.min(first + PAGE_ROWS, shown.length);
  $("directory").textContent = board.directory ?? "";
  const heads = ["sample", ...board.cameras];
  document.querySelector("#sheet thead").replaceChildren(
    element("tr", {}, ...heads.map((text) => element("th", { scope: "col", textContent: text }))),
  );
  document.querySelector("#sheet tbody").replaceChildren(
    ...shown.slice(first, last).map((sample, place) => drawRow(sample, first + place)),
  );
  $("empty").hidden = shown.length > 0;
  $("pages").hidden = shown.length <= PAGE_ROWS;
  $("earlier").disabled = first === 0;
  $("later").disabled = last >= shown.length;
  $("classes").replaceChildren(...board.classes.map(({ name }, place) => {
    const button = element("button", { type: "button" }, `${name} `);
    if (place < 9) button.append(element("kbd", { textContent: place + 1 }));
    button.addEventListener("click", () => giveClass(name));
    return button;
  }));
  $("undo").disabled = !board.undoable;
  mark();
}

// ----------------------------------------------------------------------- actions

function findTargets() {
  if (selected.size) return [...selected];
  return shown.length ? [shown[row].name] : [];
}

function giveClass(name) {
  const alone = selected.size === 0;
  const stays = $("filter").value === "";
  const targets = findTargets();
  request("api/label", { samples: targets, label: name });
  for (const sample of findSamples(targets)) Object.assign(sample, { label: name, dropped: false });
  selected.clear();
  if (alone && stays) row += 1;
  draw();
}

function drop() {
  const targets = findTargets();
  request("api/drop", { samples: targets });
  for (const sample of findSamples(targets)) sample.dropped = true;
  selected.clear();
  draw();
}

function blank() {
  const [sample, camera] = [shown[row], board.cameras[column]];
  if (!sample) return;
  request("api/view", { sample: sample.name, camera });
  if (camera in sample.views) sample.views[camera] = !sample.views[camera];
  draw();
}

function choose(index, extend) {
  if (extend) {
    const [from, to] = [Math.min(row, index), Math.max(row, index)];
    for (let i = from; i <= to; i += 1) selected.add(shown[i].name);
  } else {
    toggle(index);
  }
  row = index;
  mark();
}

function toggle(index) {
  const name = shown[index]?.name;
  if (name === undefined) return;
  if (!selected.delete(name)) selected.add(name);
}

function selectBurst() {
  const burst = shown[row]?.burst;
  for (const sample of shown) if (sample.burst === burst) selected.add(sample.name);
  mark();
}

function enlarge(path) {
  $("large").querySelector("img").src = `${path}?large`;
  $("large").showModal();
}

function askName() {
  $("new-form").hidden = false;
  $("new-name").focus();
}

const KEYS = {
  ArrowDown: (event) => move(1, event.shiftKey),
  ArrowUp: (event) => move(-1, event.shiftKey),
  ArrowRight: () => { column += 1; mark(); },
  ArrowLeft: () => { column -= 1; mark(); },
  PageDown: () => move(PAGE_ROWS, false),
  PageUp: () => move(-PAGE_ROWS, false),
  " ": () => { toggle(row); mark(); },
  Enter: () => {
    const camera = board.cameras[column];
    const sample = shown[row];
    if (sample && camera in sample.views) {
      enlarge(`picture/${encodeURIComponent(sample.name)}/${encodeURIComponent(camera)}`);
    }
  },
  Escape: () => { selected.clear(); mark(); },
  x: drop,
  Delete: drop,
  b: blank,
  a: selectBurst,
  u: () => request("api/undo", {}),
  n: askName,
};

function move(by, extend) {
  if (extend && shown.length) selected.add(shown[row].name);
  row = Math.max(0, Math.min(row + by, shown.length - 1));
  if (extend && shown.length) selected.add(shown[row].name);
  mark();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (["INPUT", "SELECT"].includes(event.target.tagName) || $("large").open) return;
  if (event.target.closest("footer, nav") && [" ", "Enter"].includes(event.key)) return;
  const digit = Number(event.key);
  if (digit >= 1 && digit <= board.classes.length) {
    event.preventDefault();
    giveClass(board.classes[digit - 1].name);
  } else if (event.key in KEYS) {
    event.preventDefault();
    KEYS[event.key](event);
  }
});

// Requests that are not answered end with the page: the browser asks before it closes it.
window.addEventListener("beforeunload", (event) => { if (pending > 0) event.preventDefault(); });
$("filter").addEventListener("change", () => { row = 0; selected.clear(); draw(); });
$("earlier").addEventListener("click", () => move(-PAGE_ROWS, false));
$("later").addEventListener("click", () => move(PAGE_ROWS, false));
$("drop").addEventListener("click", drop);
$("blank").addEventListener("click", blank);
$("burst").addEventListener("click", selectBurst);
$("undo").addEventListener("click", KEYS.u);
$("new-class").addEventListener("click", askName);
$("large").addEventListener("click", () => $("large").close());
$("new-name").addEventListener("keydown", (event) => {
  if (event.key === "Escape") { $("new-form").hidden = true; $("sheet-frame").focus(); }
});
$("new-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("new-name").value.trim();
  $("new-form").hidden = true;
  $("new-name").value = "";
  $("sheet-frame").focus();
  if (name) giveClass(name);
});

request("api/samples");
