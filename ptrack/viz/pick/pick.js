// Picking points: this page talks to the server that sent it, and to nobody else.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const view = $("view"), pen = view.getContext("2d");
  const state = {
    frame: 0, frames: 1, complete: false, tool: "point", chosen: null, drawing: null, playing: false, dirty: false,
    points: [], // {id, t, x, y, colour}, in the order they were added
    history: [], // earlier versions of points; null stands for a correction, which the server takes back
    tracked: new Map(), // frame -> Map(id -> [x, y, visible, confidence])
    running: false, job: 0, shown: -1, saved: [],
  };
  let about = null, image = null, k = 1, counter = 0, bent = null;

  // -- the server
  async function ask(path, body) {
    const options = body === undefined ? {} : {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
    };
    const answer = await fetch(path, { cache: "no-store", credentials: "omit", ...options });
    const data = await answer.json();
    if (!answer.ok) throw new Error(data.error);
    return data;
  }
  function say(text, bad = false) { $("message").textContent = text; $("message").className = bad ? "bad" : ""; }
  const attempt = (work) => async (...args) => { try { await work(...args); } catch (error) { say(error.message, true); } };

  // -- frames: a small cache of pictures, the wanted one and its neighbours
  const pictures = new Map();
  function picture(i) {
    if (!pictures.has(i)) {
      const img = new Image();
      img.src = `frame?i=${i}`;
      pictures.set(i, img.decode().then(() => img, () => null));
      if (pictures.size > 120) pictures.delete(pictures.keys().next().value);
    }
    return pictures.get(i);
  }
  async function goTo(i) {
    i = Math.max(0, Math.min(state.frames - 1, Math.round(i)));
    state.frame = i;
    readout();
    const got = await picture(i);
    if (state.frame !== i) return; // overtaken by a later wish
    if (got) { image = got; state.shown = i; }
    draw();
    for (let j = i + 1; j < Math.min(i + 4, state.frames); j++) picture(j);
  }
  async function playLoop() {
    while (state.playing) {
      const start = performance.now();
      if (state.frame >= state.frames - 1) { state.playing = false; break; }
      await goTo(state.frame + 1);
      await new Promise((r) => setTimeout(r, Math.max(0, 1000 / about.fps - (performance.now() - start))));
    }
    readout();
  }
  function play(on) { state.playing = on; readout(); if (on) { if (state.frame >= state.frames - 1) state.frame = 0; playLoop(); } }

  // -- where a point is on the shown frame: [x, y, visible] or null
  function placeOf(point) {
    const row = state.tracked.get(state.frame);
    if (row && row.has(point.id)) { const c = row.get(point.id); return c[0] === null ? null : c; }
    return state.frame === point.t ? [point.x, point.y, 1] : null;
  }
  function pastOf(point, length) {
    const path = [];
    for (let t = Math.max(0, state.frame - length); t <= state.frame; t++) {
      const row = state.tracked.get(t), c = row && row.get(point.id);
      path.push(c && c[0] !== null ? c : null);
    }
    return path;
  }

  // -- drawing
  function resize() {
    if (!about) return;
    const box = $("stage").getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
    const fit = Math.min(box.width / about.width, box.height / about.height) || 1;
    view.style.width = `${about.width * fit}px`;
    view.style.height = `${about.height * fit}px`;
    view.width = Math.max(1, Math.round(about.width * fit * ratio));
    view.height = Math.max(1, Math.round(about.height * fit * ratio));
    k = view.width / about.width;
    draw();
  }
  function draw() {
    if (image) pen.drawImage(image, 0, 0, view.width, view.height);
    const radius = Math.max(2.5, Math.min(6, view.width / 200));
    pen.lineCap = "round";
    for (const point of state.points) {
      const c = bent && bent.point === point ? [...bent.to, 1] : placeOf(point);
      if (!c) continue;
      pen.strokeStyle = pen.fillStyle = point.colour;
      trail(pastOf(point, 20), radius * 0.6);
      dot(point, c, point.id === state.chosen ? radius * 1.5 : radius);
    }
    if (state.drawing) outline(state.drawing);
    readout();
  }
  function trail(path, width) {
    pen.lineWidth = width;
    for (let i = 1; i < path.length; i++) {
      if (!path[i - 1] || !path[i] || !path[i][2]) continue;
      pen.globalAlpha = 0.2 + 0.7 * i / path.length;
      pen.beginPath();
      pen.moveTo(path[i - 1][0] * k, path[i - 1][1] * k);
      pen.lineTo(path[i][0] * k, path[i][1] * k);
      pen.stroke();
    }
    pen.globalAlpha = 1;
  }
  function dot(point, [x, y, visible], r) {
    pen.beginPath();
    pen.arc(x * k, y * k, r, 0, 2 * Math.PI);
    pen.lineWidth = r * 0.5;
    if (visible) { pen.fill(); pen.lineWidth = 1.2; pen.strokeStyle = point.id === state.chosen ? "#fff" : "rgba(0,0,0,.6)"; }
    pen.stroke();
    if (point.id !== state.chosen) return;
    pen.font = `${Math.round(r * 2.4)}px system-ui, sans-serif`;
    pen.lineWidth = 3;
    pen.strokeStyle = "rgba(0,0,0,.75)";
    pen.strokeText(point.id, x * k + r + 2, y * k - r);
    pen.fillStyle = "#fff";
    pen.fillText(point.id, x * k + r + 2, y * k - r);
  }
  function outline(polygon) {
    pen.strokeStyle = "#ffdd33";
    pen.lineWidth = 1.5;
    pen.beginPath();
    polygon.forEach(([x, y], i) => (i ? pen.lineTo(x * k, y * k) : pen.moveTo(x * k, y * k)));
    pen.closePath();
    pen.stroke();
  }
  function readout() {
    $("seek").max = state.frames - 1;
    $("seek").value = state.frame;
    const more = state.complete ? "" : "+";
    $("where").textContent = `frame ${state.frame} of ${state.frames}${more} · ${(state.frame / (about ? about.fps : 25)).toFixed(2)} s`;
    $("play").textContent = state.playing ? "Pause" : "Play";
    $("track").textContent = state.running ? "Stop" : "Track";
    $("count").textContent = `${state.points.length} points`;
    $("undo").disabled = state.history.length === 0;
  }

  // -- editing
  const clone = () => state.points.map((p) => ({ ...p }));
  function remember() { state.history.push(clone()); if (state.history.length > 200) state.history.shift(); state.dirty = true; }
  function colourFor(n) { // golden-angle hues: neighbours in the list differ
    const h = (n * 137.508) % 360, f = (m) => {
      const q = (m + h / 30) % 12;
      return Math.round(255 * (0.55 - 0.45 * Math.max(-1, Math.min(q - 3, 9 - q, 1)))).toString(16).padStart(2, "0");
    };
    return `#${f(0)}${f(8)}${f(4)}`;
  }
  function freeId() {
    const used = new Set(state.points.map((p) => p.id));
    while (used.has(String(counter))) counter++;
    return String(counter++);
  }
  const clip = ([x, y]) => [Math.max(0, Math.min(about.width, x)), Math.max(0, Math.min(about.height, y))];
  function addPoints(places) {
    if (!places.length) { say("The area is smaller than the spacing; no point added.", true); return; }
    remember();
    for (const [x, y] of places) {
      const id = freeId();
      state.points.push({ id, t: state.frame, x, y, colour: colourFor(state.points.length) });
      state.chosen = id;
    }
    say(`${places.length === 1 ? "1 point" : `${places.length} points`} added on frame ${state.frame}.`);
    list();
    draw();
  }
  function inside(polygon, x, y) {
    let odd = false;
    for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
      const [xi, yi] = polygon[i], [xj, yj] = polygon[j];
      if (yi > y !== yj > y && x < (xj - xi) * (y - yi) / (yj - yi) + xi) odd = !odd;
    }
    return odd;
  }
  function fill(polygon) { // a grid centred in the area's bounding box
    const step = Math.max(2, Number($("spacing").value) || 24), xs = polygon.map((p) => p[0]), ys = polygon.map((p) => p[1]);
    const row = (low, high) => {
      const n = Math.floor((high - low) / step) + 1, from = (low + high - (n - 1) * step) / 2;
      return Array.from({ length: n }, (_, i) => from + i * step);
    };
    const places = [];
    for (const y of row(Math.min(...ys), Math.max(...ys))) {
      for (const x of row(Math.min(...xs), Math.max(...xs))) if (inside(polygon, x, y)) places.push([x, y]);
    }
    if (places.length > 5000) { say(`${places.length} points are too many; use a wider spacing.`, true); return; }
    addPoints(places);
  }
  const undo = attempt(async () => {
    if (!state.history.length) return;
    const before = state.history[state.history.length - 1];
    if (before === null) {
      const column = await ask("undo", {});
      for (const [t, ...cell] of column.rows) state.tracked.get(t).set(column.id, cell);
      say(`The correction of ${column.id} is taken back.`);
    } else state.points = before;
    state.history.pop();
    list();
    draw();
  });
  function removeChosen() {
    if (state.chosen === null) return;
    remember();
    state.points = state.points.filter((p) => p.id !== state.chosen);
    state.chosen = null;
    list();
    draw();
  }

  // -- pointing
  function position(event) {
    const box = view.getBoundingClientRect();
    return clip([(event.clientX - box.left) * about.width / box.width, (event.clientY - box.top) * about.height / box.height]);
  }
  function nearest([x, y]) {
    const reach = 14 * (window.devicePixelRatio || 1) / k;
    let best = null, least = reach * reach;
    for (const point of state.points) {
      const c = placeOf(point);
      if (!c) continue;
      const d = (c[0] - x) ** 2 + (c[1] - y) ** 2;
      if (d <= least) { least = d; best = point; }
    }
    return best;
  }
  view.addEventListener("pointerdown", (event) => {
    if (!about || event.button) return;
    view.setPointerCapture(event.pointerId);
    const at = position(event);
    state.playing = false;
    if (state.tool === "point") addPoints([at]);
    else if (state.tool === "move") {
      const point = nearest(at);
      if (point) { choose(point.id); bent = { point, to: at, from: at }; }
    } else state.drawing = [at];
  });
  view.addEventListener("pointermove", (event) => {
    if (bent) { bent.to = position(event); draw(); return; }
    if (!state.drawing) return;
    if (state.tool === "lasso") state.drawing.push(position(event));
    else {
      const [a] = state.drawing, b = position(event);
      state.drawing = [a, [b[0], a[1]], b, [a[0], b[1]]];
    }
    draw();
  });
  view.addEventListener("pointerup", attempt(async () => {
    if (state.drawing) {
      const polygon = state.drawing;
      state.drawing = null;
      if (polygon.length > 2) fill(polygon); else draw();
    }
    if (!bent) return;
    const { point, to, from } = bent;
    bent = null;
    if (Math.hypot(to[0] - from[0], to[1] - from[1]) * k < 2) { draw(); return; }
    if (state.frame === point.t) { // the query itself moves; its old track is no longer its own
      remember();
      [point.x, point.y] = to;
      state.tracked.forEach((row) => row.delete(point.id));
      draw();
    } else await correct(point, to);
  }));
  async function correct(point, [x, y]) {
    if (state.dirty) { draw(); throw new Error("The points have changed since they were tracked; track again first."); }
    const answer = await ask("correct", { id: point.id, t: state.frame, x, y });
    say(`Tracking ${point.id} anew from frame ${state.frame} ...`);
    await follow(answer.job, false);
    state.history.push(null);
    say(`${point.id} corrected on frame ${state.frame}.`);
  }

  // -- tracking: rows are fetched while they are made
  async function follow(job, moving) {
    state.running = true;
    state.job = job;
    let row = 0;
    try {
      for (;;) {
        const news = await ask(`poll?job=${job}&row=${row}`);
        if (news.job !== job) return;
        for (const [t, cells] of news.rows) {
          if (!state.tracked.has(t)) state.tracked.set(t, new Map());
          news.ids.forEach((id, n) => state.tracked.get(t).set(id, cells[n]));
        }
        row += news.rows.length;
        if (news.error) throw new Error(news.error);
        if (news.rows.length && moving) {
          say(`Tracking: ${row} frames ...`);
          await goTo(news.rows[news.rows.length - 1][0]);
        } else draw();
        if (!news.running) return;
      }
    } finally {
      state.running = false;
      readout();
    }
  }
  const track = attempt(async () => {
    if (state.running) { await ask("stop", {}); say("Stopped."); state.dirty = true; return; }
    const answer = await ask("track", { points: state.points });
    state.playing = false;
    state.tracked.clear();
    state.history = state.history.filter((step) => step !== null);
    state.dirty = false;
    say("Tracking ...");
    await follow(answer.job, true);
    if (!state.dirty) say(`${state.points.length} points tracked through ${state.tracked.size} frames. Drag a point (m) to correct it, then save.`);
  });
  const save = attempt(async () => {
    const answer = await ask("save", { points: state.points });
    state.saved = answer.saved;
    say(`Saved ${answer.saved.join(", ")}. ${answer.note}`);
  });
  const done = attempt(async () => {
    await ask("done", {});
    document.body.textContent = "ptrack pick has stopped. You can close this page.";
  });

  // -- the list
  function choose(id) {
    state.chosen = id;
    document.querySelectorAll(".point").forEach((row) => row.classList.toggle("chosen", row.dataset.id === id));
    draw();
  }
  function list() {
    $("list").replaceChildren(...state.points.map((point) => {
      const row = document.createElement("div");
      row.className = point.id === state.chosen ? "point chosen" : "point";
      row.dataset.id = point.id;
      const colour = Object.assign(document.createElement("input"), { type: "color", value: point.colour });
      const name = Object.assign(document.createElement("input"), { type: "text", value: point.id, maxLength: 200 });
      const time = Object.assign(document.createElement("button"), { type: "button", className: "time", textContent: `frame ${point.t}` });
      const gone = Object.assign(document.createElement("button"), { type: "button", textContent: "×", title: "Delete" });
      colour.setAttribute("aria-label", `Colour of ${point.id}`);
      name.setAttribute("aria-label", `Name of ${point.id}`);
      colour.addEventListener("input", () => { point.colour = colour.value; draw(); });
      name.addEventListener("change", () => rename(point, name));
      time.addEventListener("click", () => { choose(point.id); goTo(point.t); });
      gone.addEventListener("click", () => { state.chosen = point.id; removeChosen(); });
      row.addEventListener("focusin", () => choose(point.id));
      row.append(colour, name, time, gone);
      return row;
    }));
    readout();
  }
  function rename(point, box) {
    const name = box.value.trim();
    const old = point.id;
    if (name === old) return;
    if (!name || state.points.some((p) => p.id === name)) {
      say(name ? `The name ${name} is in use.` : "A point needs a name.", true);
      box.value = old;
      return;
    }
    const swap = (p) => { if (p.id === old) p.id = name; };
    state.points.forEach(swap);
    state.history.forEach((step) => step && step.forEach(swap)); // undo must not bring the old name back
    for (const row of state.tracked.values()) if (row.has(old)) { row.set(name, row.get(old)); row.delete(old); }
    state.chosen = name;
    list();
    draw();
    attempt(ask)("rename", { from: old, to: name });
  }

  // -- controls and keys
  function setTool(name) {
    state.tool = name;
    for (const tool of ["point", "box", "lasso", "move"]) $(`tool-${tool}`).setAttribute("aria-pressed", tool === name);
    view.style.cursor = name === "move" ? "move" : "crosshair";
  }
  for (const tool of ["point", "box", "lasso", "move"]) $(`tool-${tool}`).addEventListener("click", () => setTool(tool));
  const theme = () => document.documentElement.dataset.theme;
  const setTheme = (name) => { document.documentElement.dataset.theme = name; };
  setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  $("theme").addEventListener("click", () => setTheme(theme() === "dark" ? "light" : "dark"));
  $("play").addEventListener("click", () => play(!state.playing));
  $("back").addEventListener("click", () => { state.playing = false; goTo(state.frame - 1); });
  $("next").addEventListener("click", () => { state.playing = false; goTo(state.frame + 1); });
  $("seek").addEventListener("input", () => { state.playing = false; goTo(Number($("seek").value)); });
  $("undo").addEventListener("click", undo);
  $("track").addEventListener("click", track);
  $("save").addEventListener("click", save);
  $("done").addEventListener("click", done);
  const keys = {
    p: () => setTool("point"), b: () => setTool("box"), l: () => setTool("lasso"), m: () => setTool("move"),
    " ": () => play(!state.playing), Enter: track, Delete: removeChosen, Backspace: removeChosen,
    d: () => setTheme(theme() === "dark" ? "light" : "dark"),
    ArrowLeft: (e) => { state.playing = false; goTo(state.frame - (e.shiftKey ? 10 : 1)); },
    ArrowRight: (e) => { state.playing = false; goTo(state.frame + (e.shiftKey ? 10 : 1)); },
    Home: () => goTo(0), End: () => goTo(state.frames - 1),
    Escape: () => { state.drawing = bent = null; choose(null); },
  };
  document.addEventListener("keydown", (event) => {
    const typing = event.target.tagName === "INPUT" && event.target.type !== "range";
    if (event.ctrlKey || event.metaKey) {
      const own = { z: undo, s: save }[event.key];
      if (own && !typing) { event.preventDefault(); own(); }
      return;
    }
    const pressing = event.target.tagName === "BUTTON" && (event.key === " " || event.key === "Enter");
    if (typing || pressing || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key](event);
  });
  new ResizeObserver(resize).observe($("stage"));

  // -- start; the number of frames is known when the server has walked through the video once
  const start = attempt(async () => {
    about = await ask("about");
    document.title = `${about.name} · ptrack pick`;
    $("title").textContent = about.name;
    resize();
    goTo(0);
    for (;;) {
      state.frames = Math.max(about.frames, about.complete ? 0 : about.expected);
      state.complete = about.complete;
      $("facts").textContent = `${about.width}×${about.height} · saves ${about.queriesOut} and ${about.tracksOut}`;
      readout();
      if (about.complete) { state.frames = about.frames; readout(); return; }
      await new Promise((r) => setTimeout(r, 500));
      about = await ask("about");
    }
  });
  setTool("point");
  start();
  window.ptrackPick = { state, goTo, picture };
})();
