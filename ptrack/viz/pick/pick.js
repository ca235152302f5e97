// Picking points: this page talks to the server that sent it, and to nobody else. The session lives in the server; what
// is here is a copy of it, and a few pictures and rows of it.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const view = $("view"), pen = view.getContext("2d");
  const tab = Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("");
  const state = {
    frame: 0, frames: 1, complete: false, tool: "point", chosen: null, drawing: null, playing: false, shown: -1,
    points: [], // {id, t, x, y, colour}, in the order they were added
    tracked: new Map(), // id -> [t, x, y] of the points that were tracked
    rows: new Map(), // frame -> Map(id -> [x, y, visible, confidence]), of the frames looked at
    waiting: [], // [id, t, x, y] of corrections that are not tracked yet
    revision: -1, version: -1, steps: 0, unsaved: false, writer: true, running: false, job: 0, saved: [],
    gone: false, stopped: false,
  };
  let about = null, image = null, k = 1, counter = 0, bent = null;
  let leading = false; // this page has asked for the running job, and follows it itself
  const GONE = "ptrack pick no longer answers: it was stopped. Points that were not saved are lost; start it again in the terminal.";
  const ELSEWHERE = "Another tab works on these points now; this one only shows them.";
  const ROWS_HELD = 3000; // frames; 64 more are asked for at a time
  const TRAIL = 20; // frames

  // -- the server
  async function ask(path, body) {
    const options = body === undefined ? {} : {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ tab, ...body }),
    };
    let answer, data;
    try {
      answer = await fetch(path, { cache: "no-store", credentials: "omit", ...options });
      data = await answer.json();
    } catch {
      throw new Error(GONE);
    }
    if (answer.status === 503) throw new Error(GONE);
    if (answer.status === 409) setWriter(false);
    if (!answer.ok) throw new Error(data.error);
    return data;
  }
  function tell(text, bad = false) {
    $("message").textContent = $("message").title = text;
    $("message").className = bad ? "bad" : "";
  }
  const attempt = (work) => async (...args) => { try { return await work(...args); } catch (error) { tell(error.message, true); } };

  // Commands go one after another; what the server answers to the last one is the truth.
  let queue = Promise.resolve(), pending = 0;
  function command(path, body = {}) {
    pending++;
    const result = queue.then(() => ask(path, body)).finally(() => { pending--; });
    queue = result.then((news) => { if (!pending) apply(news); }, () => refresh());
    return result;
  }
  async function refresh() {
    try { apply(await ask(`watch?tab=${tab}&revision=-1`), true); } catch { /* the watch tells that it is gone */ }
  }
  function apply(news, anyway = false) {
    if (pending && !anyway || news.revision < state.revision) return;
    state.points = news.points;
    state.tracked = new Map(news.tracked.map(([id, ...query]) => [id, query]));
    for (const name of ["revision", "steps", "unsaved", "saved", "waiting", "suggested"]) state[name] = news[name];
    state.busy = news.running;
    if (news.version !== state.version) { state.version = news.version; state.rows.clear(); }
    setWriter(news.writer);
    if (!state.points.some((point) => point.id === state.chosen)) state.chosen = null;
    if (news.running && news.job !== state.job && !leading) follow(news.job, false).then(refresh, (error) => tell(error.message, true));
    list();
    fetchRows();
    draw();
    window.dispatchEvent(new Event("ptrack-news")); // for look.js
  }
  function setWriter(writer) {
    if (writer === state.writer) return;
    state.writer = writer;
    $("take").hidden = writer;
    tell(writer ? "" : ELSEWHERE);
    able();
  }
  function able() {
    const off = !state.writer || state.gone;
    for (const id of ["track", "save", "done"]) $(id).disabled = off;
    $("undo").disabled = off || state.steps === 0;
    $("detail").disabled = off || state.chosen === null;
  }
  async function watch() { // hears of what other tabs do, of being taken over, and of the server's end
    while (!state.stopped) {
      try {
        const news = await ask(`watch?tab=${tab}&revision=${state.revision}`);
        if (state.gone) { state.gone = false; tell(""); able(); }
        apply(news);
      } catch (error) {
        if (state.stopped) return;
        state.gone = true;
        tell(error.message, true);
        able();
        await new Promise((r) => setTimeout(r, 2000));
      }
    }
  }

  // -- frames: a small cache of pictures, the wanted one and its neighbours
  const pictures = new Map();
  function picture(i) {
    if (!pictures.has(i)) {
      const img = new Image();
      img.src = `frame?i=${i}`;
      pictures.set(i, img.decode().then(() => img, () => { pictures.delete(i); return null; }));
      if (pictures.size > 120) pictures.delete(pictures.keys().next().value);
    }
    return pictures.get(i);
  }
  async function goTo(i) {
    i = Math.max(0, Math.min(state.frames - 1, Math.round(i)));
    state.frame = i;
    readout();
    const [got] = await Promise.all([picture(i), fetchRows()]);
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

  // -- tracked rows: those around the shown frame are asked for when they are not here
  let asked = null;
  async function fetchRows() {
    if (!state.tracked.size || asked) return;
    let first = Math.max(0, state.frame - TRAIL);
    while (first <= state.frame && state.rows.has(first)) first++;
    if (first > state.frame) return;
    asked = ask(`rows?first=${first}&last=${state.frame + 40}`);
    const wanted = state.frame, version = state.version;
    try {
      const news = await asked;
      if (news.version !== version || version !== state.version) return;
      if (state.rows.size > ROWS_HELD) state.rows.clear();
      keepRows(news.ids, news.rows);
      if (!state.running) for (let t = first; t <= wanted; t++) if (!state.rows.has(t)) state.rows.set(t, new Map());
    } catch { /* the watch tells that the server is gone */ } finally { asked = null; }
    draw();
    if (state.frame !== wanted) fetchRows();
  }
  function keepRows(ids, rows) {
    for (const [t, cells] of rows) {
      if (!state.rows.has(t)) state.rows.set(t, new Map());
      ids.forEach((id, n) => state.rows.get(t).set(id, cells[n]));
    }
  }

  // -- where a point is on the shown frame: [x, y, visible] or null
  function isTracked(point) { // its track is that of the place it has now
    const query = state.tracked.get(point.id);
    return query !== undefined && query[0] === point.t && query[1] === point.x && query[2] === point.y;
  }
  function placeOf(point) {
    const row = state.rows.get(state.frame);
    if (row && row.has(point.id) && isTracked(point)) { const c = row.get(point.id); return c[0] === null ? null : c; }
    return state.frame === point.t ? [point.x, point.y, 1] : null;
  }
  function pastOf(point) {
    const path = [], known = isTracked(point);
    for (let t = Math.max(0, state.frame - TRAIL); t <= state.frame; t++) {
      const row = state.rows.get(t), c = known && row && row.get(point.id);
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
      const c = bent && bent.point.id === point.id ? [...bent.to, 1] : placeOf(point);
      if (!c) continue;
      pen.strokeStyle = pen.fillStyle = point.colour || "#ffffff";
      trail(pastOf(point), radius * 0.6);
      dot(point, c, point.id === state.chosen ? radius * 1.5 : radius);
    }
    for (const [id, t, x, y] of state.waiting) if (t === state.frame) cross(state.points.find((p) => p.id === id), x, y, radius * 2);
    if (state.drawing) outline(state.drawing);
    readout();
  }
  function cross(point, x, y, r) { // a correction that waits to be tracked
    pen.lineWidth = 2;
    pen.strokeStyle = point && point.colour ? point.colour : "#ffffff";
    pen.beginPath();
    for (const [a, b] of [[1, 0], [0, 1]]) { pen.moveTo(x * k - a * r, y * k - b * r); pen.lineTo(x * k + a * r, y * k + b * r); }
    pen.stroke();
  }
  function trail(path, width) { // visible steps only: it breaks where the point was hidden
    pen.lineWidth = width;
    for (let i = 1; i < path.length; i++) {
      if (!path[i - 1] || !path[i] || !path[i - 1][2] || !path[i][2]) continue;
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
    $("track").textContent = state.running ? "Stop" : state.waiting.length ? `Track again (${state.waiting.length})` : "Track";
    $("count").textContent = `${state.points.length} ${state.points.length === 1 ? "point" : "points"}${state.unsaved ? ", not saved" : ""}`;
    able();
  }

  // -- editing
  function edit(points, remember = true) { // shown at once, then told to the server
    if (!state.writer || state.gone) { tell(state.gone ? GONE : ELSEWHERE, true); return false; }
    state.points = points;
    state.unsaved = true;
    command("edit", { points, remember }).catch((error) => tell(error.message, true));
    list();
    draw();
    return true;
  }
  function colourFor(n) { // golden-angle hues: neighbours in the list differ
    const h = (n * 137.508) % 360, f = (m) => {
      const q = (m + h / 30) % 12;
      return Math.round(255 * (0.55 - 0.45 * Math.max(-1, Math.min(q - 3, 9 - q, 1)))).toString(16).padStart(2, "0");
    };
    return `#${f(0)}${f(8)}${f(4)}`;
  }
  const clip = ([x, y]) => [Math.max(0, Math.min(about.width, x)), Math.max(0, Math.min(about.height, y))];
  function addPoints(places) {
    if (!places.length) { tell("The area is smaller than the spacing; no point added.", true); return; }
    const used = new Set(state.points.map((p) => p.id)), points = [...state.points];
    for (const [x, y] of places) {
      while (used.has(String(counter))) counter++;
      const id = String(counter++);
      points.push({ id, t: state.frame, x, y, colour: colourFor(points.length) });
    }
    const last = points[points.length - 1].id;
    if (!edit(points)) return;
    choose(last);
    tell(`${places.length === 1 ? "1 point" : `${places.length} points`} added on frame ${state.frame}.`);
  }
  function fill(polygon) { // a grid, centred in the polygon's box
    const step = Math.max(2, Number($("spacing").value) || 24);
    const xs = polygon.map((p) => p[0]), ys = polygon.map((p) => p[1]);
    const centred = (low, high) => {
      const n = Math.floor((high - low) / step), first = (low + high - n * step) / 2;
      return Array.from({ length: n + 1 }, (_, i) => first + i * step);
    };
    const rows = centred(Math.min(...ys), Math.max(...ys)), columns = centred(Math.min(...xs), Math.max(...xs));
    const places = rows.flatMap((y) => columns.filter((x) => ptrackPage.inPolygon(polygon, x, y)).map((x) => [x, y]));
    if (places.length > 5000) tell(`${places.length} points are too many; use a wider spacing.`, true);
    else addPoints(places);
  }
  const undo = attempt(async () => {
    if (!state.steps && !pending) return;
    const news = await command("undo");
    tell(news.note);
  });
  function removeChosen() {
    const at = state.points.findIndex((p) => p.id === state.chosen);
    if (at < 0) return;
    const inside = $("list").contains(document.activeElement);
    const points = state.points.filter((p) => p.id !== state.chosen);
    if (!edit(points)) return;
    choose(inside && points.length ? points[Math.min(at, points.length - 1)].id : null, inside);
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
    draw();
    if (Math.hypot(to[0] - from[0], to[1] - from[1]) * k < 2) return;
    const [x, y] = to;
    if (state.frame === point.t) edit(state.points.map((p) => (p.id === point.id ? { ...p, x, y } : p))); // the query moves
    else await correct(point, x, y);
  }));
  async function lead(path, body, words, moving) { // ask for a job and follow it to its end
    leading = true;
    try {
      const news = await command(path, body);
      state.playing = false;
      apply(news, true);
      tell(words);
      const rows = await follow(news.job, moving);
      return { rows, stopped: $("message").textContent === "Stopped." };
    } finally {
      leading = false;
      await refresh();
    }
  }
  async function correct(point, x, y) {
    const t = state.frame;
    if ($("collect").checked) {
      await command("correct", { id: point.id, t, x, y, wait: true });
      tell(`${state.waiting.length} corrected; correct more, then press Track again.`);
      return;
    }
    await lead("correct", { id: point.id, t, x, y }, `Tracking ${point.id} again from frame ${t} ...`, false);
    tell(`${point.id} corrected on frame ${t}.`);
  }

  // -- tracking: rows are fetched while they are made
  async function follow(job, moving) { // returns the number of rows
    state.running = true;
    state.job = job;
    let row = 0;
    try {
      for (;;) {
        const news = await ask(`poll?job=${job}&row=${row}`);
        if (news.job !== job) return row;
        if (state.rows.size > ROWS_HELD) state.rows.clear();
        keepRows(news.ids, news.rows);
        row += news.rows.length;
        state.frames = Math.max(state.frames, news.frames);
        if (news.error) throw new Error(news.error);
        if (news.rows.length && moving) {
          tell(`Tracking: ${row} frames ...`);
          await goTo(news.rows[news.rows.length - 1][0]);
        } else draw();
        if (!news.running) return row;
      }
    } finally {
      if (state.job === job) state.running = false;
      readout();
    }
  }
  const track = attempt(async () => {
    if (state.running) { await command("stop"); tell("Stopped."); return; }
    if (state.waiting.length) { await again(); return; }
    const count = state.points.length;
    const { rows, stopped } = await lead("track", {}, "Tracking ...", true);
    if (!stopped) tell(`${count} points tracked through ${rows} frames. Drag a point (m) to correct it, then save.`);
  });
  async function again() {
    const corrected = state.waiting.length, first = Math.min(...state.waiting.map(([, t]) => t));
    const { stopped } = await lead("again", {}, `Tracking again from frame ${first} ...`, false);
    if (!stopped) tell(`${corrected} ${corrected === 1 ? "correction" : "corrections"} tracked.`);
  }
  const save = attempt(async () => { tell((await command("save")).note); });
  const done = attempt(async () => {
    if (state.unsaved && !confirm("There are changes that were not saved. Stop ptrack pick without them?")) return;
    state.stopped = true;
    try { await command("done"); } catch (error) { state.stopped = false; throw error; }
    document.body.textContent = "ptrack pick has stopped. You can close this page.";
  });
  window.addEventListener("beforeunload", (event) => { if (state.unsaved && state.writer && !state.stopped && !state.gone) event.preventDefault(); });
  window.addEventListener("pagehide", () => {
    navigator.sendBeacon("leave", new Blob([JSON.stringify({ tab })], { type: "application/json" }));
  });
  $("take").addEventListener("click", attempt(async () => { apply(await ask("claim", { force: true }), true); tell("You work on the points here now."); }));

  // -- the list: one tab stop; the chosen point's properties stand below it
  const rowOf = (id) => [...$("list").children].find((row) => row.dataset.id === id);
  const makeStop = ptrackPage.rovingList($("list"), (row) => choose(row.dataset.id), {
    Enter: (row) => visit(row.dataset.id), " ": (row) => visit(row.dataset.id), F2: () => { $("name").focus(); $("name").select(); },
    Delete: removeChosen, Backspace: removeChosen,
  });
  function choose(id, focus = false) {
    const before = rowOf(state.chosen), row = rowOf(id);
    if (before) before.setAttribute("aria-selected", "false");
    state.chosen = row ? id : null;
    if (row) {
      row.setAttribute("aria-selected", "true");
      row.scrollIntoView({ block: "nearest" });
      makeStop(row, focus);
    }
    detail();
    draw();
  }
  function detail() {
    const point = state.points.find((p) => p.id === state.chosen);
    if (document.activeElement !== $("name") || !point) $("name").value = point ? point.id : "";
    $("colour").value = point && point.colour ? point.colour : "#ffffff";
    $("visit").textContent = point ? `frame ${point.t}` : "frame";
    able();
  }
  function visit(id) {
    const point = state.points.find((p) => p.id === id);
    if (point) { choose(id); goTo(point.t); }
  }
  let listed = "";
  function list() {
    const now = JSON.stringify(state.points.map((p) => [p.id, p.t, p.colour]));
    if (now === listed) { detail(); return; }
    listed = now;
    const focused = $("list").contains(document.activeElement);
    $("list").replaceChildren(...state.points.map((point) => {
      const row = document.createElement("div"), dot = document.createElement("b");
      const name = Object.assign(document.createElement("span"), { textContent: point.id, title: point.id });
      const time = Object.assign(document.createElement("small"), { textContent: `frame ${point.t}` });
      row.className = "row";
      row.dataset.id = point.id;
      row.tabIndex = -1;
      row.setAttribute("role", "option");
      row.setAttribute("aria-selected", String(point.id === state.chosen));
      dot.style.background = point.colour || "#ffffff";
      row.append(dot, name, time);
      return row;
    }));
    makeStop(rowOf(state.chosen) || $("list").firstElementChild, focused);
    detail();
    readout();
  }
  $("list").addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (row) choose(row.dataset.id, true);
  });
  $("list").addEventListener("dblclick", (event) => {
    const row = event.target.closest(".row");
    if (row) visit(row.dataset.id);
  });
  $("list").addEventListener("focusin", (event) => {
    const row = event.target.closest(".row");
    if (row && row.dataset.id !== state.chosen) choose(row.dataset.id);
  });
  $("name").addEventListener("change", attempt(async () => {
    const old = state.chosen, name = $("name").value.trim();
    if (old === null || name === old) { detail(); return; }
    try {
      const news = await command("rename", { from: old, to: name });
      state.chosen = name;
      apply(news, true);
      tell(`${old} is now ${name}.`);
    } finally {
      $("name").value = state.chosen === null ? "" : state.chosen;
    }
  }));
  $("colour").addEventListener("change", () => {
    const colour = $("colour").value;
    edit(state.points.map((p) => (p.id === state.chosen ? { ...p, colour } : p)), false);
  });
  $("visit").addEventListener("click", () => visit(state.chosen));
  $("remove").addEventListener("click", removeChosen);

  // -- controls and keys
  function setTool(name) {
    state.tool = name;
    for (const tool of ["point", "box", "lasso", "move"]) $(`tool-${tool}`).setAttribute("aria-pressed", tool === name);
    view.style.cursor = name === "move" ? "move" : "crosshair";
  }
  for (const tool of ["point", "box", "lasso", "move"]) $(`tool-${tool}`).addEventListener("click", () => setTool(tool));
  $("theme").addEventListener("click", ptrackPage.turnTheme);
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
    " ": () => play(!state.playing), Enter: track, Delete: removeChosen, Backspace: removeChosen, d: ptrackPage.turnTheme,
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

  // -- start; where frames must be counted, their number is known when the server has walked through the video once
  const start = attempt(async () => {
    about = await ask("about");
    document.title = `${about.name} · ptrack pick`;
    $("title").textContent = about.name;
    $("title").title = about.name;
    $("facts").textContent = $("facts").title = `${about.width}×${about.height} · saves ${about.queriesOut} and ${about.tracksOut}`;
    $("stage").style.setProperty("--ratio", about.width / about.height);
    state.frames = Math.max(about.frames, about.complete ? 0 : about.expected);
    state.complete = about.complete;
    resize();
    apply(await ask("claim", {}), true);
    watch();
    goTo(0);
    while (!state.complete) {
      await new Promise((r) => setTimeout(r, 500));
      about = await ask("about");
      state.complete = about.complete;
      state.frames = Math.max(about.frames, about.complete ? 0 : about.expected);
      readout();
    }
  });
  setTool("point");
  start();
  window.ptrackPick = { state, goTo, picture, ask, command, attempt, show: (id, t) => { choose(id); state.playing = false; goTo(t); } };
})();
