// Choosing partitions on a heat map, by pointer and by keyboard: the range becomes text in a form and in the address.
const known = new WeakMap();

const open = (box) => {
  if (!known.has(box)) {
    const cells = JSON.parse(box.dataset.cells);
    const places = new Map(cells.map(([row, column], at) => [`${row} ${column}`, at]));
    known.set(box, { cells, places, from: -1, to: -1 });
    box.setAttribute("role", "application");
  }
  return known.get(box);
};

const under = (box, event) => {
  const svg = box.querySelector("svg");
  const { left, top, width } = svg.getBoundingClientRect();
  const scale = svg.viewBox.baseVal.width / width;
  const place = (pixels, offset) => Math.floor((pixels * scale - offset) / box.dataset.size);
  const row = place(event.clientY - top, box.dataset.top);
  return open(box).places.get(`${row} ${place(event.clientX - left, box.dataset.left)}`) ?? -1;
};

const between = (x, a, b) => x >= Math.min(a, b) && x <= Math.max(a, b);

// the cells between two: on a matrix the rectangle, else all that lie between in their order
const chosen = (box, { cells, from, to }) => {
  const [a, b] = [cells[from], cells[to]];
  return cells.filter(([row, column], at) =>
    box.dataset.kind === "matrix" ? between(row, a[0], b[0]) && between(column, a[1], b[1]) : between(at, from, to));
};

const show = (box) => {
  const state = open(box);
  if (state.to < 0) return;
  const { left, top, size } = box.dataset;
  const cells = chosen(box, state);
  const d = cells.map(([row, column]) => `M${+left + column * size} ${+top + row * size}h${size}v${size}h-${size}z`).join("");
  const svg = box.querySelector("svg");
  let mark = svg.querySelector(".chosen");
  if (!mark) {
    mark = document.createElementNS(svg.namespaceURI, "path");
    mark.setAttribute("class", "chosen");
    svg.append(mark);
  }
  mark.setAttribute("d", d);
  const [first, last] = [cells[0], cells.at(-1)];
  const end = last[3] || last[2];
  const text = cells.length > 1 ? `${first[2]} to ${end}: ${cells.length} cells` : `${first[2]}${first[3] ? ` to ${end}` : ""}: ${first[4]}`;
  box.nextElementSibling.textContent = text;
  return [first[2], end];
};

const choose = (box) => {
  const range = show(box);
  if (!range) return;
  const address = new URL(location.href);
  const form = document.getElementById(box.dataset.form);
  ["first", "last"].forEach((name, at) => {
    address.searchParams.set(name, range[at]);
    const input = form?.elements[name];
    if (input) input.value = range[at];
  });
  if (form) history.replaceState(history.state, "", address);
};

// a range that stands in the form, from the address or from before new states came, is marked
const mark = (part) => {
  for (const box of part.querySelectorAll("[data-cells]")) {
    const fields = document.getElementById(box.dataset.form)?.elements;
    if (!fields?.first?.value) continue;
    const state = open(box);
    state.from = state.cells.findIndex(([, , first]) => first === fields.first.value);
    state.to = state.cells.findLastIndex(([, , first, last]) => (last || first) === fields.last?.value);
    const all = state.from === 0 && state.to === state.cells.length - 1; // that is no choice
    if (state.from >= 0 && state.to >= 0 && !all) show(box);
    else state.from = state.to = -1;
  }
};
mark(document);
document.addEventListener("replaced", ({ target }) => mark(target));

let dragged = null;
document.addEventListener("pointerdown", (event) => {
  const box = event.target.closest?.("[data-cells]");
  const at = box && !event.target.closest("a") && event.button === 0 ? under(box, event) : -1;
  if (at < 0) return;
  const state = open(box);
  if (!event.shiftKey || state.from < 0) state.from = at;
  state.to = at;
  dragged = box;
  show(box);
});
document.addEventListener("pointermove", (event) => {
  if (!dragged) return;
  const at = under(dragged, event);
  if (at >= 0) {
    open(dragged).to = at;
    show(dragged);
  }
});
document.addEventListener("pointerup", () => {
  if (dragged) choose(dragged);
  dragged = null;
});

document.addEventListener("focusin", ({ target }) => {
  if (!target.matches?.("[data-cells]") || open(target).to >= 0) return;
  target.nextElementSibling.textContent = "Arrow keys go from cell to cell, with Shift they choose a range; Enter takes it.";
});
document.addEventListener("keydown", (event) => {
  const box = event.target;
  if (!box.matches?.("[data-cells]") || event.ctrlKey || event.altKey || event.metaKey) return;
  const state = open(box);
  const [row, column] = state.cells[Math.max(0, state.to)] ?? [];
  const beside = (step) => {
    for (let at = row + step, tries = 0; tries < 100; at += step, tries++) {
      const found = state.places.get(`${at} ${column}`);
      if (found !== undefined) return found;
    }
  };
  const last = state.cells.length - 1;
  const goal = {
    ArrowLeft: () => Math.max(0, state.to - 1),
    ArrowRight: () => Math.min(last, state.to + 1),
    ArrowUp: () => beside(-1),
    ArrowDown: () => beside(1),
    Home: () => 0,
    End: () => last,
  }[event.key];
  if (goal && last >= 0) {
    event.preventDefault();
    state.to = goal() ?? Math.max(0, state.to);
    if (!event.shiftKey || state.from < 0) state.from = state.to;
    choose(box);
  } else if (event.key === "Enter" && state.to >= 0) {
    document.getElementById(box.dataset.form)?.requestSubmit();
  }
});
