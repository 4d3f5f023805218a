// A page that reads itself again: what the server has written into the elements with `data-part` is
// put in the place of what stands there, and figures with `data-from` are asked for. The keyboard's
// place, what is being written, and where one has scrolled to are kept.
"use strict";

// Raises an Error whose `status` is the server's. A page that says what is wrong with a filter is one.
async function ask(address, kind) {
  const answer = await fetch(address, { headers: { accept: kind }, redirect: "manual" });
  if (answer.type === "opaqueredirect") throw failed(401); // to the login
  const page = (answer.headers.get("content-type") || "").startsWith("text/html");
  if (!answer.ok && !(answer.status === 400 && kind === "text/html" && page)) throw failed(answer.status);
  return answer;
}

function failed(status) {
  return Object.assign(new Error(`the server answered ${status}`), { status });
}

// The address of an element within its part, so that it can be found in the new one.
function pathTo(element, part) {
  const path = [];
  for (let at = element; at !== part; at = at.parentElement) {
    path.unshift([...at.parentElement.children].indexOf(at));
  }
  return path;
}

function found(path, part) {
  return path.reduce((at, child) => at && at.children[child], part);
}

function sameLink(element, part) {
  const address = element.getAttribute("href");
  return address && [...part.querySelectorAll("a")].find((a) => a.getAttribute("href") === address);
}

function put(old, fresh) {
  if (old.innerHTML === fresh.innerHTML) return;
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  const path = focused && focused !== old ? pathTo(focused, old) : [];
  const scrolled = [...old.querySelectorAll(".scroll")].map((box) => [box.scrollTop, box.scrollLeft]);
  old.replaceChildren(...fresh.childNodes);
  old.querySelectorAll(".scroll").forEach((box, at) => {
    if (scrolled[at]) [box.scrollTop, box.scrollLeft] = scrolled[at];
  });
  const again = focused && (sameLink(focused, old) || found(path, old));
  if (again) again.focus({ preventScroll: true });
}

function mayPut(part) {
  const chosen = getSelection();
  return chosen.isCollapsed || !chosen.containsNode(part, true); // somebody is copying it
}

// Asks for all figures; returns whether they are as of now, and nothing once `late` says that
// somebody else has asked since.
export async function figures(late = () => false) {
  let fresh = true;
  for (const place of document.querySelectorAll("[data-from]")) {
    let figure;
    try {
      const answer = await ask(place.dataset.from, "application/json");
      if (answer.headers.get("x-fresh") === "no") fresh = false;
      figure = await answer.json();
    } catch (error) {
      if (error.status !== 404) throw error; // nothing has succeeded yet
      continue;
    }
    if (late()) return undefined;
    const drawn = JSON.stringify(figure.plot);
    if (place.dataset.figure !== drawn) place.dataset.figure = drawn; // figures.js sees to it
    const said = document.getElementById(place.getAttribute("aria-describedby"));
    if (said) said.textContent = figure.said;
  }
  return fresh;
}

let asked = 0; // how often

// Everything anew; returns whether it is as of now: what takes long is not made for every event.
// Nothing is put, and nothing returned, once it has been asked for again: that is newer.
export async function refresh() {
  const mine = ++asked;
  const text = await (await ask(location.href, "text/html")).text();
  const late = () => mine !== asked;
  if (late()) return undefined;
  const fresh = new DOMParser().parseFromString(text, "text/html");
  for (const part of fresh.querySelectorAll("[data-part]")) {
    const old = document.getElementById(part.id);
    if (!old || !mayPut(old)) continue;
    put(old, part);
    Object.assign(old.dataset, part.dataset);
  }
  const now = await figures(late);
  return now && !fresh.querySelector('[data-fresh="no"]');
}
