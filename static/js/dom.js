// @ts-check
/** The only place that makes elements. Whatever comes from outside becomes a text node. */

export function el(tag, attributes = {}, ...content) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null) made.setAttribute(name, String(value));
  }
  made.append(...content);
  return made;
}

/** A status: a shape and a word, so that colour is never alone. */
export const state = (kind, word) => el("span", { class: `state ${kind}` }, word);

/** Show `made` in `root`. What is the same stays; what was scrolled or focused stays so. */
export function put(root, made) {
  const old = root.firstElementChild;
  if (old?.isEqualNode(made)) return;
  const hadFocus = old !== null && old === document.activeElement;
  const left = old?.scrollLeft ?? 0;
  root.replaceChildren(made);
  made.scrollLeft = left;
  if (hadFocus) made.focus();
}

/**
 * @param {Record<string, (row: any) => any>} columns a heading that begins with # is a number's
 * @param {string} empty what to say when there are no rows
 */
export function table(columns, rows, caption, empty) {
  if (!rows.length) return el("p", { class: "muted" }, empty);
  const cell = (tag, heading, content, more) =>
    el(tag, { class: heading.startsWith("#") ? "num" : null, ...more }, content);
  const head = Object.keys(columns).map((heading) =>
    cell("th", heading, heading.replace("#", ""), { scope: "col" }));
  const body = rows.map((row) => el("tr", {}, ...Object.entries(columns).map(([heading, show]) => {
    const value = show(row);
    return cell("td", heading, value, { title: typeof value === "string" ? value : null });
  })));
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    el("table", {}, el("caption", {}, caption),
      el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body)));
}
