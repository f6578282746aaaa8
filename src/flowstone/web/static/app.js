// What every page does: small comforts on top of HTML that works without them.
import "./live.js";
const html = document.documentElement;

// times: how long ago, kept up to date
const steps = [["s", 1, 60], ["min", 60, 3600], ["h", 3600, 172800], ["days", 86400, Infinity]];
const coarse = (seconds) => {
  const [unit, size] = steps.find(([, , until]) => seconds < until);
  return `${Math.floor(seconds / size)} ${unit}`;
};
export const tick = () => {
  for (const one of document.querySelectorAll("time[data-ago]")) {
    const seconds = (Date.now() - Date.parse(one.dateTime)) / 1000;
    const text = seconds < 0 ? `in ${coarse(-seconds)}` : `${coarse(seconds)} ago`;
    if (one.textContent !== text) one.textContent = text;
  }
};
setInterval(() => document.hidden || tick(), 5000);

// the first visit: times in the zone of the browser
if (!html.dataset.zone && document.querySelector(".menu")) {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const path = html.dataset.prefix || "/";
  if (zone) document.cookie = `flowstone_zone=${zone}; path=${path}; max-age=31536000; samesite=lax`;
}

// search: / and mod+k
document.addEventListener("keydown", (event) => {
  const search = document.getElementById("search");
  const typing = event.target.closest?.("input, select, textarea, [contenteditable]");
  const mod = (event.ctrlKey || event.metaKey) && event.key === "k";
  const slash = event.key === "/" && !typing && html.dataset.shortcuts === "on" && !event.ctrlKey && !event.metaKey;
  if (search && (mod || slash)) {
    event.preventDefault();
    search.focus();
    search.select();
  }
});

// g and a letter goes to a page, ? lists that; off where single keys are switched off
const keys = { o: "/", a: "/assets", r: "/runs", q: "/queues", t: "/automation", p: "/approvals", d: "/audit", s: "/system" };
const pageOf = (letter) => [...document.querySelectorAll(".rail a")].find((one) => one.getAttribute("href") === html.dataset.prefix + keys[letter]);
let going = 0;
document.addEventListener("keydown", (event) => {
  if (html.dataset.shortcuts !== "on" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest?.("input, select, textarea, [contenteditable], dialog")) return;
  if (event.key === "g") going = Date.now();
  else if (Date.now() - going < 1500 && keys[event.key]) {
    going = 0;
    pageOf(event.key)?.click();
  } else if (event.key === "?") {
    const list = document.createElement("ul");
    const line = (text) => list.append(Object.assign(document.createElement("li"), { textContent: text }));
    line("/ or mod+k: search");
    for (const letter of Object.keys(keys)) if (pageOf(letter)) line(`g ${letter}: ${pageOf(letter).firstChild.textContent.trim()}`);
    line("Esc: close this. Single keys can be switched off in the menu with your name.");
    show("Keyboard", list);
  }
});

const show = (title, ...content) => {
  const dialog = document.createElement("dialog");
  const heading = Object.assign(document.createElement("h2"), { textContent: title, id: "dialog-title", tabIndex: -1 });
  dialog.append(heading, ...content);
  dialog.setAttribute("aria-labelledby", heading.id);
  dialog.addEventListener("click", (click) => {
    if (!click.target.closest("[data-close]")) return;
    click.preventDefault();
    dialog.close();
  });
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
};

// the list of time zones is in the browser
document.querySelector(".menu")?.addEventListener("toggle", ({ target }) => {
  const list = document.getElementById("zones");
  if (!target.open || list.children.length) return;
  for (const zone of ["UTC", ...Intl.supportedValuesOf("timeZone")]) list.append(new Option(zone, zone));
});

// actions that ask first: the page of confirmation in a dialog
document.addEventListener("submit", async (event) => {
  const form = event.target.closest("form[data-confirm]");
  if (!form) return;
  event.preventDefault();
  const address = `${form.action}?${new URLSearchParams(new FormData(form))}`;
  try {
    const answer = await fetch(address, { credentials: "same-origin" });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const asked = page.getElementById("confirm");
    if (!asked) throw new Error(answer.status);
    show(page.querySelector("h1").textContent, asked);
  } catch {
    location.assign(address);
  }
});

// what only some pages need
for (const [name, mark] of [["cells", "[data-cells]"], ["graph", "#picture"], ["suggest", "[data-names]"]]) {
  if (document.querySelector(mark)) import(`./${name}.js`);
}
