// What both pages share. Texts of the catalogue are only ever set as text, never as HTML.
"use strict";

const LENSES_A_FILE = 1000;
const GRADES = { ok: "good", secure: "good", probable: "good", doubtful: "middle", "not ok": "bad", failed: "bad" };

function byId(name) { return document.getElementById(name); }

function make(tag, text, kind) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (kind) node.className = kind;
  return node;
}

// Paths stand in attributes, where "=", "#" and "%" of names need care.
function address(path) { return path.split("/").map(encodeURIComponent).join("/"); }

function shown(value) {
  if (value === null) return "";
  if (typeof value !== "number") return value;
  if (value === 0 || (Math.abs(value) >= 1e-3 && Math.abs(value) < 1e5)) return String(Number(value.toPrecision(5)));
  return value.toExponential(3);
}
