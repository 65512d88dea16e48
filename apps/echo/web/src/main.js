// The echo page: connects, shows what happens, and says what to do when it cannot.

import { Chart } from "./chart.js";
import { openConversation, VERSIONS } from "./conversation.js";

const HANDSHAKE_MS = 10_000;
const RETRY_MS = 1_000;
const LONGEST_RETRY_MS = 30_000;
const REPEAT_MS = 1_000;
const LOG_LINES = 100;

const element = (id) => document.getElementById(id);
const [form, input, send, repeat, log] = ["form", "message", "send", "repeat", "log"].map(element);
const chart = new Chart(element("chart"));

let conversation = null;
let connectedBefore = false;
let failures = 0;
let repeater = null;
let repeated = 0;
let counted = 0;

const EXPLANATIONS = {
  unreachable: {
    title: "The server does not answer",
    text: "It may have been stopped. This page goes on trying, and connects by itself once the server is back.",
  },
  unsupported: {
    title: "This browser has no WebTransport",
    text:
      "Use a current Chrome, Edge or Firefox, and open this page by https:// on localhost or on the server's own name: " +
      "browsers offer WebTransport to secure pages only.",
  },
  handshake: {
    title: "The WebTransport session was refused",
    text:
      "The page loads, so the server runs. Then it is one of three things: UDP does not get through to its port; the " +
      "browser does not accept its certificate (one that is pinned has to be ECDSA and valid for at most 14 days); or " +
      "the server speaks none of the versions offered here.",
  },
  echo: {
    title: "The session opened, but there is no echo",
    text: "The server at this address may be a different one. Its log says more.",
  },
  ended: {
    title: "The session has ended",
    text: "The server closed it or went away. This page connects again by itself once the server is back.",
  },
  left: {
    title: "The session has ended",
    text: "The server is shutting down and asked this page to leave. It connects again by itself once the server is back.",
  },
};

function showState(state, text) {
  element("state").dataset.state = state;
  element("state-text").textContent = text;
  send.disabled = state !== "connected";
}

function showProblem(kind, detail = "") {
  const { title, text } = EXPLANATIONS[kind];
  element("problem-title").textContent = title;
  element("problem-text").textContent = text;
  element("problem-detail").textContent = detail;
  element("problem-detail").hidden = !detail;
  element("problem").hidden = false;
}

function showFacts(version = "–", transport = "–") {
  element("version").textContent = version;
  element("transport").textContent = transport === "webtransport" ? "WebTransport" : transport;
}

function addToLog(message, sequence) {
  const line = document.createElement("li");
  const text = document.createElement("span");
  const time = document.createElement("span");
  text.className = "text";
  text.textContent = message;
  time.className = "time";
  time.textContent = "on its way";
  line.append(text, time);
  line.dataset.group = sequence;
  log.prepend(line);
  element("empty").hidden = true;
  while (log.children.length > LOG_LINES) log.lastElementChild.remove();
  return line;
}

function showEcho({ sequence, message, roundTrip }) {
  const sent = log.querySelector(`li[data-group="${sequence}"]`);
  const line = sent?.firstChild.textContent === message ? sent : addToLog(message, sequence);
  line.dataset.echoed = "true";
  line.lastChild.textContent = `${roundTrip.toFixed(1)} ms`;
  counted += 1;
  chart.add(roundTrip);
  element("count").textContent = counted;
  element("median").textContent = `${chart.median.toFixed(1)} ms`;
  // A screen reader hears what was typed, not what is repeated every second.
  if (!repeat.checked) element("heard").textContent = `${message}, back after ${roundTrip.toFixed(1)} milliseconds`;
}

function say(message) {
  if (conversation && !send.disabled) addToLog(message, conversation.send(message));
}

function setRepeating(on) {
  clearInterval(repeater);
  repeater = on ? setInterval(() => say(`message ${++repeated}`), REPEAT_MS) : null;
}

async function readSettings() {
  const response = await fetch("session.json", { cache: "no-store", signal: AbortSignal.timeout(HANDSHAKE_MS) });
  if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
  return await response.json();
}

/** Returns the versions to offer: those of `?version=`, if any, else all of them. */
function offeredVersions() {
  const wanted = new URLSearchParams(location.search).getAll("version");
  return wanted.length > 0 ? wanted : VERSIONS;
}

/** Runs one session from its start to its end; returns whether another attempt may help by itself. */
async function converse() {
  showState("connecting", "connecting …");
  let settings;
  try {
    settings = await readSettings();
  } catch (error) {
    showProblem("unreachable", error.message);
    return true;
  }
  try {
    conversation = await openConversation({
      ...settings,
      url: new URL(settings.path, location.href),
      versions: offeredVersions(),
      signal: AbortSignal.timeout(HANDSHAKE_MS),
    });
  } catch (error) {
    showProblem(error.step, error.cause?.message);
    return connectedBefore;
  }
  connectedBefore = true;
  failures = 0;
  const { version, transport } = conversation;
  element("problem").hidden = true;
  showFacts(version, transport);
  showState("connected", "connected");
  const ended = conversation.closed();
  let left = false;
  conversation.askedToLeave.then(() => {
    left = true;
    showState("connecting", "leaving …");
    conversation?.leave();
  });
  try {
    for await (const echo of conversation.echoes()) showEcho(echo);
  } catch {
    // How the session ended says more than how the subscription did.
  }
  conversation.close();
  conversation = null;
  for (const time of log.querySelectorAll("li:not([data-echoed]) .time")) time.textContent = "lost";
  const { reason } = await ended;
  showProblem(left ? "left" : "ended", left ? "" : reason);
  return true;
}

/** Waits before another attempt: longer each time, and not as long as every other page does. */
function pause() {
  const longest = Math.min(LONGEST_RETRY_MS, RETRY_MS * 2 ** failures++);
  return new Promise((resolve) => setTimeout(resolve, longest * (0.75 + 0.5 * Math.random())));
}

async function run() {
  element("again").hidden = true;
  while (await converse()) {
    showFacts();
    showState("failed", "not connected");
    await pause();
  }
  showFacts();
  showState("failed", "not connected");
  element("again").hidden = false;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!conversation || send.disabled || !input.value) return;
  say(input.value);
  input.value = "";
  input.focus();
});
repeat.addEventListener("change", () => setRepeating(repeat.checked));
element("again").addEventListener("click", run);
addEventListener("pagehide", () => conversation?.close());

setRepeating(repeat.checked);
run();
