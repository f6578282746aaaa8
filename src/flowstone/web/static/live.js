// Keeps a page up to date: listens for changes, reads the page again, and replaces the marked parts that differ.
const html = document.documentElement;
const topics = html.dataset.topics ? html.dataset.topics.split(" ") : null;
const marked = new Map(); // id -> what the server sent last
let known, port, busy, again, later, heard = Date.now(), failed = "", ended = "";

for (const part of document.querySelectorAll("[data-live][id]")) marked.set(part.id, part.innerHTML);

const changed = (before, after) =>
  !before || Object.keys(after).some((name) => before[name] !== after[name] && (topics ? topics.includes(name) : name !== "logs"));

export const onPulse = (pulse) => {
  heard = Date.now();
  failed = "";
  const news = changed(known, pulse);
  known = pulse;
  if (news) {
    refresh();
    // what takes the server long is found out meanwhile: one more time when it is quiet again
    clearTimeout(later);
    later = setTimeout(refresh, 3000);
  }
  note();
};

// what a person is doing in a part: it is left alone until that is over
const inUse = (part) => {
  const field = document.activeElement?.closest("input, select, textarea");
  if (field && part.contains(field)) return true;
  const chosen = getSelection();
  return chosen && !chosen.isCollapsed && chosen.rangeCount && chosen.getRangeAt(0).intersectsNode(part);
};

const same = (one) =>
  one.id ? `#${CSS.escape(one.id)}` : `${one.tagName}|${one.getAttribute("href") ?? ""}|${one.textContent.trim()}`;
const find = (part, key) =>
  key.startsWith("#") ? part.querySelector(key) : [...part.querySelectorAll("a, button, summary, [tabindex]")].find((one) => same(one) === key);

// nodes of the parsed page, not text: rows of a table cannot be parsed outside of it
const replace = (part, fresh) => {
  const open = [...part.querySelectorAll("details[open] > summary")].map(same);
  const scrolled = [part, ...part.querySelectorAll(".scroll, pre")].map((one) => [one.scrollLeft, one.scrollTop]);
  const focus = part.contains(document.activeElement) ? same(document.activeElement) : null;
  part.replaceChildren(...[...fresh.childNodes].map((node) => document.importNode(node, true)));
  for (const key of open) find(part, key)?.parentElement.setAttribute("open", "");
  [part, ...part.querySelectorAll(".scroll, pre")].forEach((one, at) => {
    if (scrolled[at]) [one.scrollLeft, one.scrollTop] = scrolled[at];
  });
  if (focus) (find(part, focus) ?? part).focus({ preventScroll: true });
  part.dispatchEvent(new CustomEvent("replaced", { bubbles: true }));
};

const apply = (page) => {
  let waits = false;
  for (const [id, before] of marked) {
    const part = document.getElementById(id);
    const fresh = page.getElementById(id);
    if (!part || (fresh?.innerHTML ?? "") === before) continue;
    if (inUse(part)) {
      waits = true;
      continue;
    }
    if (!fresh) {
      part.replaceChildren(); // it is not there any more
      marked.set(id, "");
      continue;
    }
    const said = fresh.dataset.say;
    if (said && said !== part.dataset.say) document.getElementById("say").textContent = said;
    for (const { name, value } of fresh.attributes) if (part.getAttribute(name) !== value) part.setAttribute(name, value);
    marked.set(id, fresh.innerHTML);
    replace(part, fresh);
  }
  return waits;
};

export const refresh = async () => {
  if (document.hidden || ended) return;
  if (busy) {
    again = true;
    return;
  }
  busy = true;
  try {
    const answer = await fetch(location.href, { credentials: "same-origin", headers: { accept: "text/html" } });
    if (answer.status === 401 || answer.redirected) return end();
    if (answer.status < 500 && !answer.ok) return end("What is shown is not there any more.");
    if (!answer.ok) throw new Error(`${answer.status}`);
    heard = Date.now();
    failed = "";
    if (apply(new DOMParser().parseFromString(await answer.text(), "text/html"))) setTimeout(refresh, 3000);
  } catch {
    failed = "The dashboard does not answer.";
  } finally {
    busy = false;
    if (again) {
      again = false;
      setTimeout(refresh, 500);
    }
    note();
  }
};

const end = (why = "You are logged out: what is shown is not kept up to date.") => {
  ended = why;
  note();
};

// the strip: what is shown is old, and how old
const note = () => {
  const strip = document.getElementById("stale");
  const age = Math.round((Date.now() - heard) / 1000);
  const text = ended
    ? `${ended} Load the page again.`
    : age > 10 || failed ? `What is shown is ${age} s old. ${failed}` : "";
  if (strip.textContent !== text) strip.textContent = text;
  strip.hidden = !text;
  for (const id of marked.keys()) document.getElementById(id)?.classList.toggle("old", Boolean(text) && age > 10);
};

const here = (more) => port?.postMessage({ address: html.dataset.stream, visible: !document.hidden, ...more });

const start = () => {
  try {
    port = new SharedWorker(new URL("./stream.js", import.meta.url), { type: "module", name: html.dataset.stream }).port;
  } catch {
    // no such worker here: the page is read every few seconds instead
    setInterval(refresh, 5000);
    return;
  }
  port.onmessage = ({ data }) => {
    if (data.kind === "pulse") onPulse(data.topics);
    if (data.kind === "failed") failed = data.detail;
    if (data.kind === "gone") end();
    if (data.kind !== "pulse") note();
  };
  here({ first: true });
  setInterval(() => document.hidden || here(), 10000);
  addEventListener("pagehide", () => here({ bye: true }));
  addEventListener("pageshow", (event) => event.persisted && here({ first: true }));
};

if (html.dataset.stream && marked.size) {
  document.addEventListener("visibilitychange", () => {
    here();
    if (!document.hidden) refresh();
  });
  setInterval(() => document.hidden || note(), 2000);
  start();
}
