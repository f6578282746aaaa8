// The picture of the graph: zoom and move by pointer and keyboard, walk along the edges, come back to where one was.
const key = `graph ${location.pathname}${new URL(location.href).searchParams.get("select") ?? ""}${new URL(location.href).searchParams.get("asset") ?? ""}`;
let kept = {};
try { kept = JSON.parse(sessionStorage.getItem(key)) ?? {}; } catch { /* a page without storage forgets */ }
let zoom = kept.zoom ?? 1;

const box = () => document.getElementById("picture");
const drawing = () => box()?.querySelector("svg.graph");
let place = { left: kept.left, top: kept.top };
const keep = () => {
  const { scrollLeft: left, scrollTop: top } = box();
  place = { left, top };
  try { sessionStorage.setItem(key, JSON.stringify({ zoom, left, top })); } catch { /* see above */ }
};

const size = () => {
  const svg = drawing();
  if (!svg) return;
  const { width, height } = svg.viewBox.baseVal;
  if (svg.getAttribute("width") === String(width * zoom)) return;
  svg.setAttribute("width", width * zoom);
  svg.setAttribute("height", height * zoom);
};
const zoomTo = (wish, x, y) => {
  const at = box();
  const next = Math.min(3, Math.max(0.1, wish));
  const [px, py] = [x ?? at.clientWidth / 2, y ?? at.clientHeight / 2];
  const [cx, cy] = [(at.scrollLeft + px) / zoom, (at.scrollTop + py) / zoom];
  zoom = next;
  size();
  at.scrollTo(cx * zoom - px, cy * zoom - py);
  keep();
};
const whole = () => {
  const { width, height } = drawing().viewBox.baseVal;
  zoomTo(Math.min(1, box().clientWidth / width, box().clientHeight / height));
};

const nodes = () => [...document.querySelectorAll("#picture [data-node]")];
const focus = (node) => {
  if (!node) return;
  for (const one of nodes()) one.setAttribute("tabindex", one === node ? 0 : -1);
  node.focus({ preventScroll: true });
  node.querySelector("rect").scrollIntoView({ block: "nearest", inline: "nearest" });
};
const middle = (node) => {
  const { left, top, width, height } = node.querySelector("rect").getBoundingClientRect();
  return [left + width / 2, top + height / 2];
};
const nearest = (from, others) => {
  const [, y] = middle(from);
  return others.sort((a, b) => Math.abs(middle(a)[1] - y) - Math.abs(middle(b)[1] - y))[0];
};
const along = (node, name) => (node.dataset[name] ?? "").split(" ").filter(Boolean)
  .map((at) => document.querySelector(`#picture [data-node="${at}"]`)).filter(Boolean);
const beside = (node, sign) => {
  const [x, y] = middle(node);
  return nodes().filter((one) => Math.abs(middle(one)[0] - x) < 5 && sign * (middle(one)[1] - y) > 1)
    .sort((a, b) => sign * (middle(a)[1] - middle(b)[1]))[0];
};

document.addEventListener("keydown", (event) => {
  const at = event.target.closest?.("#picture");
  if (!at || event.ctrlKey || event.metaKey || event.altKey) return;
  const node = event.target.closest("[data-node]");
  const walk = {
    ArrowRight: () => nearest(node, along(node, "down")),
    ArrowLeft: () => nearest(node, along(node, "up")),
    ArrowDown: () => beside(node, 1),
    ArrowUp: () => beside(node, -1),
    Home: () => nodes()[0],
    End: () => nodes().at(-1),
  }[event.key];
  if (node && walk) {
    event.preventDefault();
    focus(walk());
  } else if (["+", "=", "-", "0"].includes(event.key)) {
    event.preventDefault();
    if (event.key === "0") whole();
    else zoomTo(zoom * (event.key === "-" ? 0.8 : 1.25));
  }
});

let drag = null;
document.addEventListener("pointerdown", (event) => {
  const at = event.target.closest?.("#picture");
  if (!at || event.pointerType !== "mouse" || event.button || event.target.closest("[data-node]")) return;
  drag = { x: event.clientX + at.scrollLeft, y: event.clientY + at.scrollTop };
});
document.addEventListener("pointermove", (event) => drag && box()?.scrollTo(drag.x - event.clientX, drag.y - event.clientY));
document.addEventListener("pointerup", () => { drag = null; });
document.addEventListener("wheel", (event) => {
  const at = event.target.closest?.("#picture");
  if (!at || !event.ctrlKey) return;
  event.preventDefault();
  const { left, top } = at.getBoundingClientRect();
  zoomTo(zoom * (event.deltaY < 0 ? 1.1 : 0.9), event.clientX - left, event.clientY - top);
}, { passive: false });

const start = box();
if (start) {
  const bar = document.createElement("p");
  bar.className = "zoom";
  for (const [label, title, act] of [["+", "Larger", () => zoomTo(zoom * 1.25)], ["−", "Smaller", () => zoomTo(zoom * 0.8)], ["Fit", "The whole graph", whole]]) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.title = title;
    button.addEventListener("click", act);
    bar.append(button);
  }
  const hint = document.createElement("span");
  hint.className = "muted";
  hint.textContent = "Arrow keys go along the edges, Enter says why; + − 0 and Ctrl with the wheel change the size.";
  bar.append(hint);
  start.before(bar);
  size();
  const chosen = start.querySelector(".picked") ?? start.querySelector("[data-node]");
  if (kept.left !== undefined) start.scrollTo(kept.left, kept.top);
  else if (start.querySelector(".picked")) chosen.querySelector("rect").scrollIntoView({ block: "nearest", inline: "center" });
  const enter = () => nodes().forEach((one) => one.setAttribute("tabindex", one === (document.activeElement?.closest?.("[data-node]") ?? chosen) ? 0 : -1));
  enter();
  start.addEventListener("scroll", () => requestAnimationFrame(keep), { passive: true });
  // new states come as a new drawing: same places, same size
  new MutationObserver(() => {
    const { left, top } = place;
    size();
    enter();
    if (left !== undefined) start.scrollTo(left, top);
  }).observe(start, { childList: true });
}
