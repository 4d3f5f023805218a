// Keeps a page up to date: a search tells by events that something has happened (`data-live`), a
// list is looked at now and then (`data-look-every` seconds). When the server goes away the page says
// so, tries again ever more seldom, and reads itself anew when it is back.
"use strict";
import { figures, refresh } from "./parts.js";

const main = document.getElementById("main");
const line = document.getElementById("connection");
const spoken = document.getElementById("spoken");
const SILENT_MS = 15000; // the server beats more often
const LEAST_MS = 1000; // between two looks
const SPOKEN_MS = 8000; // between two announcements
const FIRST_MS = 500, LONGEST_MS = 15000; // before another try

let source = null, wait = FIRST_MS, watchdog = 0, again = 0;
let turn = 0; // how often we have begun to listen, or have stopped
let heard = { numbers: [], left: 0 }, speaking = 0;
let busy = false, wanted = false, ended = false;

function show(state, words) {
  if (!line || line.textContent === words) return;
  line.dataset.state = state;
  line.textContent = words;
}

function well() {
  wait = FIRST_MS;
  show("well", main.dataset.live && !ended ? "up to date, live" : "up to date");
}

function lost(error) {
  if (error && error.status === 401) return location.reload(); // to the login
  if (error && error.status === 404) return gone();
  show("lost", "connection lost, trying again");
  rest();
  again = setTimeout(begin, wait * (0.75 + Math.random() / 2));
  wait = Math.min(2 * wait, LONGEST_MS);
}

function gone() {
  ended = true;
  if (source) source.close();
  show("gone", "this is not there any more");
}

// One look at a time, and not more often than once a second.
async function look() {
  wanted = true;
  if (busy) return;
  busy = true;
  try {
    while (wanted) {
      wanted = false;
      const fresh = await refresh();
      if (fresh !== undefined) well();
      await new Promise((done) => setTimeout(done, LEAST_MS));
      if (fresh === false) wanted = true;
    }
  } catch (error) {
    lost(error);
  } finally {
    busy = false;
  }
}

function alive() {
  clearTimeout(watchdog);
  watchdog = setTimeout(lost, SILENT_MS);
}

// Read aloud, so at most once in a while: what comes in between is told together.
function joined(numbers, left) {
  if (!spoken) return;
  heard.numbers.push(...numbers);
  heard.left += left;
  if (!speaking) speak();
}

function speak() {
  speaking = 0;
  const { numbers, left } = heard;
  if (!numbers.length) return;
  const who = numbers.length > 3
    ? `${numbers.length} trials have joined the front`
    : `trial ${numbers.join(", ")} joined the front`;
  spoken.textContent = left ? `${who}, ${left} left it` : who;
  heard = { numbers: [], left: 0 };
  speaking = setTimeout(speak, SPOKEN_MS);
}

function listen() {
  const state = document.getElementById("state");
  const after = state ? state.dataset.sequence : 0;
  if (source) source.close();
  source = new EventSource(`${main.dataset.live}?after=${after}`);
  source.addEventListener("beat", alive);
  source.addEventListener("news", (event) => {
    alive();
    const { joined: numbers, left } = JSON.parse(event.data);
    joined(numbers, left);
    look();
  });
  source.addEventListener("end", (event) => {
    source.close();
    clearTimeout(watchdog);
    const { why } = JSON.parse(event.data);
    if (why === "done") {
      ended = true;
      look();
    } else if (why === "gone") gone();
    else lost(why === "login" ? { status: 401 } : null);
  });
  source.onerror = () => lost(null);
  alive();
}

// After a while without the server: first what was missed, then what comes.
async function begin() {
  const mine = ++turn;
  let fresh;
  try {
    fresh = await refresh();
  } catch (error) {
    if (mine === turn) lost(error);
    return;
  }
  if (mine !== turn) return; // somebody has turned away meanwhile, and may be back
  well();
  if (!fresh) look();
  if (main.dataset.live && !ended && document.visibilityState === "visible") listen();
}

function every(seconds) {
  setInterval(() => {
    if (document.visibilityState === "visible" && line.dataset.state !== "lost") look();
  }, 1000 * seconds);
}

// Choosing draws at once; the button is for those without a script.
for (const form of document.querySelectorAll("form[data-submits]")) {
  form.querySelector("button").hidden = true;
  form.addEventListener("change", () => form.requestSubmit());
}

// A page that nobody sees holds no connection; a browser has few for one server.
function rest() {
  turn += 1;
  if (source) source.close();
  source = null;
  clearTimeout(watchdog);
  clearTimeout(again);
}

document.addEventListener("visibilitychange", () => {
  if (!main.dataset.live || ended) return;
  rest();
  if (document.visibilityState === "visible") begin();
});
addEventListener("pagehide", rest);

figures().then((fresh) => {
  well();
  if (!fresh || document.querySelector('[data-fresh="no"]')) look();
}, lost);
if (main.dataset.live) listen();
if (main.dataset.lookEvery) every(Number(main.dataset.lookEvery));
