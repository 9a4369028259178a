// The table of a survey: only the rows in view are in the document, so that 100 000 take no longer than 100.
"use strict";

const ROW = 76, SPARE = 6;
let survey, index = {}, order = [], visible = [], sorting = { column: -1, down: false }, drawn = "";

function showSurvey(data) {
  survey = data;
  survey.columns.forEach((column, k) => { index[column.name] = k; });
  fill("grade", counted(survey.values[index.grade]));
  fill("flag", counted([].concat(...survey.values[index.flags].map(text => (text ? text.split(",") : [])))));
  const box = byId("columns");
  survey.columns.forEach((column, k) => {
    const label = make("label"), tick = make("input");
    tick.type = "checkbox";
    tick.checked = column.shown;
    tick.addEventListener("change", () => { column.shown = tick.checked; head(); draw(true); });
    label.append(tick, " " + column.name);
    label.title = column.description;
    box.append(label);
  });
  for (const name of ["grade", "flag", "search", "where"]) byId(name).addEventListener("input", filter);
  byId("view").addEventListener("scroll", () => draw(false));
  window.addEventListener("resize", () => draw(false));
  order = survey.values[index.id].map((_, k) => k);
  head();
  filter();
  document.documentElement.dataset.ready = "yes";
}

function counted(values) {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) || 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]);
}

function fill(name, counts) {
  for (const [value, count] of counts) {
    const option = make("option", `${value} (${count})`);
    option.value = value;
    byId(name).append(option);
  }
}

// "R_E > 1.2 and flags has bad_chi2": a list of [column, test], or the first part that is none.
function conditions(text) {
  const found = [];
  for (const part of text.split(/\s+and\s+|,/i)) {
    if (!part.trim()) continue;
    const match = part.match(/^\s*([\w.+-]+?)\s*(<=|>=|!=|==?|<|>|\s+has\s+)\s*(.*?)\s*$/);
    if (!match || !(match[1] in index)) return part.trim();
    const [, name, sign, right] = match, number = Number(right), text = survey.columns[index[name]].text;
    if (!text && (right === "" || Number.isNaN(number))) return part.trim();
    const wanted = text ? right : number;
    const tests = {
      "<": value => value < wanted, ">": value => value > wanted, "<=": value => value <= wanted,
      ">=": value => value >= wanted, "=": value => value === wanted, "==": value => value === wanted,
      "!=": value => value !== wanted, has: value => String(value).includes(right),
    };
    found.push([survey.values[index[name]], tests[sign.trim()]]);
  }
  return found;
}

function filter() {
  const grade = byId("grade").value, flag = byId("flag").value, part = byId("search").value.toLowerCase();
  const tests = conditions(byId("where").value), wrong = typeof tests === "string";
  byId("where").classList.toggle("wrong", wrong);
  byId("problem").textContent = wrong ? `"${tests}": write a column, one of < > <= >= = != has, and a value` : "";
  const grades = survey.values[index.grade], flags = survey.values[index.flags], ids = survey.values[index.id];
  visible = order.filter(k =>
    (!grade || grades[k] === grade) && (!flag || flags[k].split(",").includes(flag)) &&
    (!part || ids[k].toLowerCase().includes(part)) &&
    (wrong || tests.every(([values, test]) => values[k] !== null && test(values[k]))));
  byId("count").textContent = `${visible.length} of ${order.length}`;
  byId("view").scrollTop = 0;
  draw(true);
}

function sort(k) {
  sorting = { column: k, down: sorting.column === k ? !sorting.down : false };
  const values = survey.values[k], sign = sorting.down ? -1 : 1, text = survey.columns[k].text;
  const compare = text ? new Intl.Collator("en", { numeric: true }).compare : (a, b) => a - b;
  order.sort((a, b) => {
    const x = values[a], y = values[b];
    if (x === null || y === null) return (x === null) - (y === null) || a - b;  // what is not known comes last
    return sign * compare(x, y) || a - b;
  });
  head();
  filter();
}

function head() {
  const row = byId("head");
  row.replaceChildren();
  survey.columns.forEach((column, k) => {
    if (!column.shown) return;
    const arrow = sorting.column === k ? (sorting.down ? " \u25bc" : " \u25b2") : "";
    const cell = make("th", column.name + arrow, column.text ? "" : "number");
    cell.title = column.description;
    cell.dataset.column = column.name;
    cell.append(make("small", column.unit || "\u00a0"));
    cell.addEventListener("click", () => sort(k));
    row.append(cell);
  });
}

function draw(anew) {
  const view = byId("view"), first = Math.max(Math.floor(view.scrollTop / ROW) - SPARE, 0);
  const last = Math.min(first + Math.ceil(view.clientHeight / ROW) + 2 * SPARE, visible.length);
  if (!anew && drawn === `${first}-${last}`) return;
  drawn = `${first}-${last}`;
  const rows = [gap(first * ROW)];
  for (let k = first; k < last; k++) rows.push(line(visible[k]));
  rows.push(gap((visible.length - last) * ROW));
  byId("body").replaceChildren(...rows);
}

function gap(height) {
  const row = make("tr", undefined, "gap"), cell = make("td");
  cell.style.height = `${height}px`;
  row.append(cell);
  return row;
}

function line(k) {
  const row = make("tr");
  survey.columns.forEach((column, c) => {
    if (!column.shown) return;
    const value = survey.values[c][k], cell = make("td", undefined, column.text ? "" : "number");
    if (column.name === "id") {
      const link = make("a", value);
      link.href = `lens.html#${Math.floor(k / LENSES_A_FILE)}/${k % LENSES_A_FILE}`;
      cell.append(link);
    } else if (column.name === "thumbnail") {
      if (value) {
        const image = make("img");
        image.src = address(value);
        image.alt = "";
        cell.append(image);
      } else {
        cell.append(make("div", survey.values[index.failure][k], "bad"));
      }
    } else if (column.name === "grade") {
      cell.append(make("span", value, GRADES[value] || ""));
    } else if (column.text) {
      cell.append(make("div", value.replaceAll(",", ", ")));
    } else {
      cell.textContent = shown(value);
    }
    row.append(cell);
  });
  return row;
}
