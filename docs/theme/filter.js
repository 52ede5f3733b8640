// The filter of the index: words in any order, a kind, a family, a tag; kept in the address so that it can be sent.
const form = document.querySelector(".filter");
const entries = [...document.querySelectorAll(".catalog > li")];
const count = document.querySelector(".count");

function show() {
  const { text, kind, family, tag } = Object.fromEntries(new FormData(form));
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const entry of entries) {
    const d = entry.dataset;
    const fits = (!kind || d.kind === kind) && (!family || d.family === family)
      && (!tag || d.tags.split(" ").includes(tag)) && words.every((word) => d.text.includes(word));
    entry.hidden = !fits;
    shown += fits;
  }
  count.textContent = `${shown} of ${entries.length}`;
  const asked = new URLSearchParams(Object.entries({ text, kind, family, tag }).filter(([, value]) => value));
  history.replaceState(null, "", `${location.pathname}${asked.size ? `?${asked}` : ""}`);
}

for (const [name, value] of new URLSearchParams(location.search)) {
  if (form.elements[name]) form.elements[name].value = value;
}
form.addEventListener("input", show);
form.addEventListener("submit", (event) => event.preventDefault());
show();
