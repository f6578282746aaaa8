// Suggestions for the selection language: they go on from the last word, whatever stands before it.
const list = document.querySelector("datalist[data-names]");
if (list) {
  const names = JSON.parse(list.dataset.names);
  for (const input of document.querySelectorAll(`input[list="${list.id}"]`)) {
    input.addEventListener("input", () => {
      const [, head, tail] = /^(.*?(?:[\s(]|^)(?:\d*\+)?)("?[^\s()"]*)$/s.exec(input.value) ?? [null, input.value, ""];
      const wish = tail.replace(/^"/, "").toLowerCase();
      const found = names.filter((name) => name.toLowerCase().includes(wish)).slice(0, 30);
      list.replaceChildren(...found.map((name) => new Option("", head + name)));
    });
  }
}
