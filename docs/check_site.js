// What a browser finds on one page of the built site; docs/check_site.py asks for it at each width.
const article = document.querySelector("article") || document.body;
const width = document.documentElement.clientWidth;
const shown = (node) => node.getClientRects().length > 0;
const outside = (address) => /^https?:/.test(address);
const textOf = (node) => (node.textContent || "").trim();

function nameOf(node) {
  const classes = typeof node.className === "string" ? node.className.trim().split(/\s+/).filter(Boolean) : [];
  return [node.tagName.toLowerCase(), ...classes].join(".") + ` "${textOf(node).slice(0, 50).replace(/\s+/g, " ")}"`;
}

// A block that is cut: its content is wider than itself, and it hides or scrolls the rest. A table may be
// moved within its frame on a narrow screen.
function isCut(node) {
  const style = getComputedStyle(node);
  if (style.display === "inline" || style.overflowX === "visible" || node.clientWidth === 0) return false;
  if (node.scrollWidth <= node.clientWidth + 1) return false;
  const moves = ["auto", "scroll"].includes(style.overflowX);
  return !(moves && width < 1000 && node.querySelector("table, math"));
}

// A block that reaches out of the screen, with nothing around it that could be moved.
function sticksOut(node) {
  if (node.getBoundingClientRect().right <= width + 1) return false;
  for (let frame = node.parentElement; frame; frame = frame.parentElement) {
    if (getComputedStyle(frame).overflowX !== "visible") return false;
  }
  return true;
}

const cut = [];
if (document.documentElement.scrollWidth > width + 1) {
  cut.push(`the page, ${document.documentElement.scrollWidth} pixels wide,`);
}
for (const node of article.querySelectorAll("*")) {
  if (shown(node) && !node.parentElement.closest("math, svg") && (isCut(node) || sticksOut(node))) {
    cut.push(nameOf(node));
  }
}

const broken = [...document.images].filter((image) => shown(image) && !(image.complete && image.naturalWidth > 0));
const loaded = [...document.querySelectorAll("script[src], link[rel~=stylesheet], img, iframe")];
const elsewhere = loaded.map((node) => node.src || node.href);
elsewhere.push(...performance.getEntriesByType("resource").map((entry) => entry.name));

const prose = article.cloneNode(true);
const rest = "details, table, pre, script, style, math, .toctree-wrapper, .sphx-glr-thumbnails";
prose.querySelectorAll(rest).forEach((node) => node.remove());

const formulas = [...article.querySelectorAll("math")].filter((node) => shown(node.parentElement));

return {
  broken: broken.map((image) => image.src),
  elsewhere: [...new Set(elsewhere.filter(outside))],
  cut: [...new Set(cut)].slice(0, 5),
  words: textOf(prose).split(/\s+/).filter((word) => /\w/.test(word)).length,
  whole: textOf(article).length,
  flat: formulas.filter((node) => node.getBoundingClientRect().height < 4).length,
};
