// The page of one lens: lens.html#FILE/ROW.
"use strict";

let place = [0, 0];

function showSurvey(data) {
  const row = place[1], values = {};
  if (row >= data.values[0].length) { byId("problem").textContent = "there is no such lens"; return; }
  data.columns.forEach((column, k) => { values[column.name] = data.values[k][row]; });
  document.title = values.id;
  byId("name").textContent = values.id;
  const flags = values.flags ? `; ${values.flags.replaceAll(",", ", ")}` : "";
  byId("verdict").textContent = values.grade + (values.failure ? `: ${values.failure}` : flags);
  byId("verdict").className = GRADES[values.grade] || "";
  if (values.product) { byId("product").href = address(values.product); byId("product").hidden = false; }
  for (const path of [values.figure || values.thumbnail]) {
    if (!path) continue;
    const image = make("img");
    image.src = address(path);
    image.alt = "";
    byId("pictures").append(image);
  }
  data.columns.forEach((column, k) => {
    const value = data.values[k][row];
    if (value === null || value === "") return;
    const line = make("tr");
    line.append(make("td", column.name), make("td", `${shown(value)} ${column.unit}`), make("td", column.description));
    byId("values").tBodies[0].append(line);
  });
  link("before", row > 0 ? `${place[0]}/${row - 1}` : place[0] > 0 ? `${place[0] - 1}/${LENSES_A_FILE - 1}` : "");
  link("after", row + 1 < data.values[0].length ? `${place[0]}/${row + 1}` :
    data.values[0].length === LENSES_A_FILE ? `${place[0] + 1}/0` : "");
  document.documentElement.dataset.ready = "yes";
}

function link(name, where) {
  if (!where) return;
  byId(name).href = `lens.html#${where}`;
  byId(name).hidden = false;
}

const found = location.hash.match(/^#(\d+)\/(\d+)$/);
if (found) {
  place = [Number(found[1]), Number(found[2])];
  const script = make("script");
  script.src = `page/rows-${found[1].padStart(4, "0")}.js`;
  script.addEventListener("error", () => { byId("problem").textContent = "there is no such lens"; });
  document.body.append(script);
} else {
  byId("problem").textContent = "no lens is named: come from the list";
}
window.addEventListener("hashchange", () => location.reload());
