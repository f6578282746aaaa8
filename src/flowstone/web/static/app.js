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
if (!html.dataset.zone && html.dataset.stream) {
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
    const dialog = document.createElement("dialog");
    dialog.append(page.querySelector("h1"), asked);
    dialog.setAttribute("aria-label", dialog.querySelector("h1").textContent);
    dialog.addEventListener("click", (click) => {
      if (!click.target.closest("[data-close]")) return;
      click.preventDefault();
      dialog.close();
    });
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  } catch {
    location.assign(address);
  }
});
