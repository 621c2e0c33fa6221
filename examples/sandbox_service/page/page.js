// Submits a script, and shows what the service tells of it.

import { Plot } from "./plot.js";

const MIB = 1 << 20;
const SHOWN = 200_000; // characters of output that the page keeps

const EXAMPLES = {
  tour: `echo "I am user $(id -u) on $(hostname)"
echo "I see $(ls /proc | grep -c '^[0-9]') processes"
touch /etc/x 2>/dev/null || echo "I can't write there" >&2

for round in 1 2 3 4; do
    echo "round $round: compute"
    i=0
    while [ $i -lt 300000 ]; do i=$((i+1)); done
    echo "round $round: fill memory"
    head -c 9000000 /dev/zero > /tmp/$round
    sleep 1
done
echo done
`,
  memory: `x=
while true; do
    x=$x$(head -c 4000000 /dev/zero | tr '\\0' x)
    echo "$\{#x} bytes"
    sleep 0.3
done
`,
  bomb: `bomb() { bomb | bomb & }
bomb
sleep 5
`,
  flood: `yes "more and more and more"
`,
};

const STATES = {
  exited: (end) => [end.code === 0 ? "good" : "bad", end.code === null ? "ended" : `exited with ${end.code}`],
  killed: (end) => ["bad", `killed by signal ${end.signal}`],
  failed: (end) => ["bad", `not run: ${end.message}`],
};

const $ = (id) => document.getElementById(id);
const percent = (value) => `${Math.round(value)} %`;
const mebibytes = (value) => `${value && value < 10 * MIB ? (value / MIB).toFixed(1) : Math.round(value / MIB)} MiB`;

const cpu = new Plot($("cpu"), { title: "CPU", readout: $("cpu-now"), format: percent, lines: 5 });
const memory = new Plot($("memory"), { title: "Memory", readout: $("memory-now"), format: mebibytes, lines: 4 });

const AWAY = 30; // seconds that the service may be away

let going = null; // the run: its AbortController, its id, and the number of its last message if it has one
let shown = 0;

function say(state, words) {
  $("status").dataset.state = state;
  $("words").textContent = words;
}

function print({ stream, text }) {
  const output = $("output");
  const atEnd = output.scrollTop + output.clientHeight >= output.scrollHeight - 20;
  const piece = document.createElement("span");
  piece.className = stream;
  piece.textContent = text;
  output.append(piece);
  shown += text.length;
  while (shown > SHOWN && output.childElementCount > 1) {
    shown -= output.firstChild.textContent.length;
    output.firstChild.remove();
  }
  if (atEnd) output.scrollTop = output.scrollHeight;
}

function handle(message) {
  switch (message.type) {
    case "waiting":
      say("running", message.ahead ? `waiting, ${message.ahead} ahead` : "starting");
      break;
    case "started":
      say("running", "running");
      break;
    case "output":
      print(message);
      break;
    case "figures":
      say("running", `running, ${message.seconds.toFixed(1)} s, ${message.pids} process${message.pids === 1 ? "" : "es"}`);
      cpu.add(message.seconds, message.cpu);
      memory.add(message.seconds, message.memory);
      break;
    case "ended": {
      const [state, words] = STATES[message.outcome]?.(message) ?? ["warn", message.outcome];
      say(state, `${words} after ${message.seconds.toFixed(1)} s`);
      break;
    }
  }
}

// Yields the messages of a stream of server-sent events; EventSource itself can't send a script.
async function* messages(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    text += part.value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const fields = Object.fromEntries(event.split("\n").map((line) => line.split(/: (.*)/s, 2)));
      if (fields.id) going.last = fields.id;
      yield JSON.parse(fields.data);
    }
  }
}

// Shows what comes, and tells whether that was all.
async function follow(response) {
  if (!response.ok) throw new Error(await response.text());
  try {
    for await (const message of messages(response)) {
      handle(message);
      if (message.type === "started") going.id = message.id;
      if (message.type === "ended") return true;
    }
  } catch (error) {
    if (!going.id || !going.last || error.name === "AbortError") throw error;
  }
  return !going.id || !going.last; // without them nobody can ask for the rest
}

// Asks for the rest of the run, as soon as the service is there again.
async function comeBack() {
  say("running", "waiting for the service");
  for (let tries = 0; ; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 1000));
    try {
      return await fetch(`runs/${going.id}`, { headers: { "last-event-id": going.last }, signal: going.controller.signal });
    } catch (error) {
      if (tries >= AWAY || error.name === "AbortError") throw error;
    }
  }
}

async function run() {
  if (going) return;
  going = { controller: new AbortController() };
  $("run").disabled = true;
  $("stop").disabled = false;
  $("output").replaceChildren();
  shown = 0;
  cpu.reset();
  memory.reset();
  say("running", "sending");
  try {
    let response = await fetch("runs", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ script: $("script").value }),
      signal: going.controller.signal,
    });
    while (!(await follow(response))) response = await comeBack();
    if ($("status").dataset.state === "running") say("bad", "the service hung up");
  } catch (error) {
    if (error.name === "AbortError") say("warn", "stopped");
    else say("bad", error.message);
  } finally {
    going = null;
    $("run").disabled = false;
    $("stop").disabled = true;
  }
}

$("form").addEventListener("submit", (event) => { event.preventDefault(); run(); });
$("stop").addEventListener("click", () => going?.controller.abort());
$("script").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit();
});
for (const button of document.querySelectorAll("[data-example]"))
  button.addEventListener("click", () => { $("script").value = EXAMPLES[button.dataset.example]; });
$("script").value = EXAMPLES.tour;

const limits = await (await fetch("limits")).json();
cpu.scale(100 * limits.cpus, limits.seconds);
memory.scale(limits.memory, limits.seconds);
$("limits").textContent =
  `It may use ${mebibytes(limits.memory)} of memory, ${percent(100 * limits.cpus)} of a core, ` +
  `${limits.pids} processes and ${limits.seconds} seconds. No network.`;
