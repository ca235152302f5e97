// The viewer of one tracks file. All data is in this page; nothing is loaded from anywhere else.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const T = data.times.length, N = data.ids.length, W = data.width, H = data.height;
  const xy = new Float32Array(bytes(data.xy).buffer); // (T, N, 2) pixels of a W x H frame, NaN without a position
  const seen = bytes(data.visibility), sure = bytes(data.confidence); // (T, N), 0..255
  const flag = bytes(data.visible); // (T, N) 1 if visible; exact, where seen is rounded to 1/255
  const joined = bytes(data.joined); // (T, N) 1 if a trail leads here from the frame before
  const view = $("view"), pen = view.getContext("2d"), video = $("video"), tip = $("tip");
  const state = { frame: 0, shown: -1, hover: -1, selected: new Set(), lasso: null, lassoMode: false, ready: false };
  const has = (t, n) => xy[2 * (t * N + n)] === xy[2 * (t * N + n)];

  // -- time: frame i is on screen from times[i] until times[i + 1]; seeking aims at the middle of that span
  function frameAt(seconds) {
    let low = 0, high = T - 1;
    while (low < high) {
      const mid = (low + high + 1) >> 1;
      if (data.times[mid] <= seconds + 1e-4) low = mid; else high = mid - 1;
    }
    return low;
  }
  const middle = (i) => (data.times[i] + (i + 1 < T ? data.times[i + 1] : data.times[i] + data.step)) / 2;

  let wanted = -1; // a seek asked for while another is under way: only the last one counts
  function goTo(i) {
    i = Math.max(0, Math.min(T - 1, Math.round(i)));
    state.frame = i;
    readout();
    if (video.seeking) { wanted = i; return; }
    wanted = -1;
    if (Math.abs(video.currentTime - middle(i)) < 1e-6 || !video.src) { draw(i); return; }
    video.currentTime = middle(i);
  }
  video.addEventListener("seeked", () => {
    if (wanted >= 0 && wanted !== frameAt(video.currentTime)) { const i = wanted; wanted = -1; goTo(i); return; }
    wanted = -1;
    if (video.paused) { state.frame = frameAt(video.currentTime); draw(state.frame); }
  });
  const perFrame = "requestVideoFrameCallback" in HTMLVideoElement.prototype;
  function onFrame(_now, meta) {
    const i = frameAt(meta.mediaTime);
    if (!video.paused) {
      state.frame = i;
      requestAnimationFrame(() => { if (!video.paused) draw(i); });
    } else if (i === state.frame) draw(i);
    video.requestVideoFrameCallback(onFrame);
  }
  function onTick() {
    if (!video.paused) {
      const i = frameAt(video.currentTime);
      if (i !== state.shown) { state.frame = i; draw(i); } // the nearest a browser without frame callbacks can tell
    }
    requestAnimationFrame(onTick);
  }
  function play(on) {
    if (on && state.frame >= T - 1) { video.currentTime = 0; state.frame = 0; }
    if (on) video.play().catch(() => {}); else { video.pause(); goTo(state.frame); }
  }

  // -- which picture the video really shows: its number stands below it in black and white cells, see FrameCode
  const code = data.code ? { ...data.code, rows: Math.ceil((data.code.bits + 1) / data.code.columns) } : null;
  let readable = code !== null;
  const strip = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  if (code) [strip.canvas.width, strip.canvas.height] = [code.columns, code.rows];
  function pictureNumber() { // -1 if it cannot be read
    if (!readable || video.readyState < 2) return -1;
    const w = code.columns * code.cell, h = code.rows * code.cell;
    strip.drawImage(video, 0, code.top, w, h, 0, 0, code.columns, code.rows);
    let pixels;
    try { pixels = strip.getImageData(0, 0, code.columns, code.rows).data; } catch { // a file beside the page is not readable
      readable = false;
      return -1;
    }
    let number = 0, ones = 0;
    for (let b = 0; b <= code.bits; b++) {
      if (pixels[4 * b] < 128) continue;
      ones++;
      if (b < code.bits) number += 2 ** b;
    }
    return ones % 2 === 0 && number < T ? number : -1;
  }
  // Draw the picture and return its number; the one asked for if the picture does not tell.
  function drawPicture(t) {
    for (let attempt = 0; attempt < 3; attempt++) { // the video may move on between two looks at it
      const before = video.paused ? -1 : pictureNumber();
      pen.drawImage(video, 0, 0, W * data.scale, H * data.scale, 0, 0, view.width, view.height);
      if (before < 0) return t;
      if (pictureNumber() === before) return before;
    }
    return t;
  }

  // -- colours
  const onScale = (name, v) => {
    const steps = data.scales[name];
    return steps[Math.round(Math.max(0, Math.min(1, v)) * (steps.length - 1))];
  };
  function speedOf(t, n) { // pixels per frame
    if (t < 1 || !has(t, n) || !has(t - 1, n)) return 0;
    const a = 2 * (t * N + n), b = a - 2 * N;
    return Math.hypot(xy[a] - xy[b], xy[a + 1] - xy[b + 1]);
  }
  function colourOf(t, n) {
    switch ($("colour").value) {
      case "id": return data.colours.id[n];
      case "motion": return onScale("motion", speedOf(t, n) / data.fast);
      case "visibility": return onScale("probability", seen[t * N + n] / 255);
      case "confidence": return onScale("probability", sure[t * N + n] / 255);
      default: return data.colours.start[n];
    }
  }

  function showScale() { // what the colours mean, where they stand for numbers
    const mode = $("colour").value, moving = mode === "motion";
    $("scale").hidden = mode === "start" || mode === "id";
    if ($("scale").hidden) return;
    $("scale-low").textContent = `${mode} 0`;
    $("scale-high").textContent = moving ? `${data.fast.toPrecision(3)}+ px/frame` : "1";
    $("scale-bar").style.background = `linear-gradient(to right, ${data.scales[moving ? "motion" : "probability"].join(",")})`;
    $("scale-bar").setAttribute("aria-label", `Colours from ${$("scale-low").textContent} to ${$("scale-high").textContent}`);
  }

  // -- drawing, in canvas pixels: k of them per video pixel
  let k = 1;
  function resize() {
    const box = $("stage").getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
    const fit = Math.min(box.width / W, box.height / H) || 1;
    view.style.width = `${W * fit}px`;
    view.style.height = `${H * fit}px`;
    view.width = Math.max(1, Math.round(W * fit * ratio));
    view.height = Math.max(1, Math.round(H * fit * ratio));
    k = view.width / W;
    draw(state.frame);
  }
  const dotted = () => Math.max(2.2, Math.min(5, view.width / 230));
  const shownPoint = (n) => !$("solo").checked || state.selected.size === 0 || state.selected.has(n);
  // How present an occluded point still is, 0 to 1: it fades from where it was last visible.
  function presence(t, n) {
    if (flag[t * N + n] || state.selected.has(n)) return 1;
    if ($("occluded").value !== "brief") return $("occluded").value === "always" ? 1 : 0;
    const longest = data.style.linger + 1;
    for (let s = 1; s < longest && s <= t; s++) if (flag[(t - s) * N + n]) return 1 - s / longest;
    return 0;
  }
  const certainty = (i) => Math.max(0, Math.min(1, (sure[i] / 255 - data.style.unsure) / (data.style.sure - data.style.unsure)));
  function drawTrail(t, n, radius, strength) {
    const length = Number($("length").value), reach = data.style.reach * Math.max(1, length / 24) * Math.min(view.width, view.height);
    pen.lineWidth = radius * 0.6;
    let walked = 0; // pixels between this step and the point
    for (let s = t; s > Math.max(0, t - length) && walked < reach; s--) {
      const i = s * N + n, a = 2 * (i - N), b = 2 * i;
      if (!has(s - 1, n) || !has(s, n)) continue;
      if (joined[i]) {
        const fade = (1 - (t - s) / length) * (1 - walked / reach);
        pen.globalAlpha = 0.9 * strength * fade * (0.3 + 0.7 * Math.min(certainty(i), certainty(i - N)));
        pen.beginPath();
        pen.moveTo(xy[a] * k, xy[a + 1] * k);
        pen.lineTo(xy[b] * k, xy[b + 1] * k);
        pen.stroke();
      }
      walked += Math.hypot(xy[b] - xy[a], xy[b + 1] - xy[a + 1]) * k;
    }
    pen.globalAlpha = 1;
  }
  function drawPoint(t, n, radius, strength) {
    const i = t * N + n, x = xy[2 * i] * k, y = xy[2 * i + 1] * k, sureness = certainty(i);
    const chosen = state.selected.has(n) || state.hover === n;
    const r = chosen ? radius * 1.5 : flag[i] ? radius * (0.5 + 0.5 * sureness) : radius;
    pen.globalAlpha = chosen ? 1 : flag[i] ? 0.45 + 0.55 * sureness : 0.75 * strength;
    if (flag[i]) {
      pen.fillStyle = "rgba(0,0,0,.75)";
      pen.beginPath();
      pen.arc(x, y, r * 1.25, 0, 2 * Math.PI);
      pen.fill();
      pen.fillStyle = pen.strokeStyle;
    }
    pen.beginPath();
    pen.arc(x, y, r, 0, 2 * Math.PI);
    pen.lineWidth = r * 0.4;
    if (flag[i]) pen.fill(); else pen.stroke();
    if (chosen) { pen.strokeStyle = "#fff"; pen.stroke(); }
    pen.globalAlpha = 1;
    if ($("labels").checked || state.hover === n) {
      pen.font = `${Math.round(radius * 3.2)}px system-ui, sans-serif`;
      pen.lineWidth = 3;
      pen.strokeStyle = "rgba(0,0,0,.75)";
      pen.strokeText(data.ids[n], x + r + 2, y - r);
      pen.fillStyle = "#fff";
      pen.fillText(data.ids[n], x + r + 2, y - r);
    }
  }
  function draw(t) {
    pen.globalAlpha = 1;
    if (video.readyState >= 2) {
      t = drawPicture(t);
      if (!video.paused) state.frame = t;
    } else { pen.fillStyle = "#101316"; pen.fillRect(0, 0, view.width, view.height); }
    const radius = dotted(), trails = $("trails").checked;
    showScale();
    pen.lineCap = "round";
    let drawn = 0;
    for (let n = 0; n < N; n++) {
      const strength = has(t, n) && shownPoint(n) ? presence(t, n) : 0;
      if (!strength) continue;
      pen.strokeStyle = pen.fillStyle = colourOf(t, n);
      if (trails) drawTrail(t, n, radius, strength);
      drawPoint(t, n, radius, strength);
      drawn++;
    }
    if (state.lasso) drawLasso();
    state.shown = t;
    state.drawn = drawn;
    readout();
  }
  function drawLasso() {
    pen.strokeStyle = "#ffdd33";
    pen.lineWidth = 1.5;
    pen.beginPath();
    state.lasso.forEach(([x, y], i) => (i ? pen.lineTo(x * k, y * k) : pen.moveTo(x * k, y * k)));
    pen.closePath();
    pen.stroke();
  }
  function readout() {
    $("seek").value = state.frame;
    const text = `frame ${data.frames[state.frame]} · ${data.pts[state.frame].toFixed(3)} s · ${state.frame + 1}/${T}`;
    $("where").textContent = text;
    $("play").textContent = video.paused ? "Play" : "Pause";
    $("count").textContent = `${state.selected.size} of ${N} selected`;
  }

  // -- pointing
  function position(event) {
    const box = view.getBoundingClientRect();
    return [(event.clientX - box.left) * W / box.width, (event.clientY - box.top) * H / box.height];
  }
  function nearest([x, y]) {
    const t = state.shown, reach = 9 * (window.devicePixelRatio || 1) / k;
    let best = -1, least = reach * reach;
    for (let n = 0; n < N; n++) {
      if (!has(t, n) || !shownPoint(n) || !presence(t, n)) continue;
      const i = 2 * (t * N + n), d = (xy[i] - x) ** 2 + (xy[i + 1] - y) ** 2;
      if (d <= least) { least = d; best = n; }
    }
    return best;
  }
  function describe(n) {
    const i = state.shown * N + n;
    return `${data.ids[n]}\nx ${xy[2 * i].toFixed(2)}  y ${xy[2 * i + 1].toFixed(2)}\n` +
      `${flag[i] ? "visible" : "occluded"} (${(seen[i] / 255).toFixed(2)}), confidence ${(sure[i] / 255).toFixed(2)}`;
  }
  function setHover(n, event) {
    tip.hidden = n < 0 || !event;
    if (!tip.hidden) {
      const box = $("stage").getBoundingClientRect();
      tip.textContent = describe(n);
      tip.style.left = `${Math.min(event.clientX - box.left + 14, box.width - 190)}px`;
      tip.style.top = `${Math.min(event.clientY - box.top + 14, box.height - 60)}px`;
    }
    if (n === state.hover) return;
    if (rows[state.hover]) rows[state.hover].classList.remove("hover");
    state.hover = n;
    if (rows[n]) rows[n].classList.add("hover");
    draw(state.shown);
  }
  function select(ids, add) {
    if (!add) state.selected.clear();
    ids.forEach((n) => state.selected.add(n));
    rows.forEach((row, n) => row.setAttribute("aria-selected", state.selected.has(n)));
    draw(state.shown);
  }
  function toggle(n, add) {
    if (add && state.selected.has(n)) { state.selected.delete(n); select([], true); } else select([n], add);
    rows[n].scrollIntoView({ block: "nearest" });
  }
  view.addEventListener("pointerdown", (event) => {
    if (!state.lassoMode && !event.shiftKey) return;
    view.setPointerCapture(event.pointerId);
    state.lasso = [position(event)];
  });
  view.addEventListener("pointermove", (event) => {
    if (!state.lasso) { setHover(nearest(position(event)), event); return; }
    state.lasso.push(position(event));
    draw(state.shown);
  });
  view.addEventListener("pointerup", (event) => {
    if (!state.lasso) {
      const n = nearest(position(event));
      if (n >= 0) toggle(n, event.ctrlKey || event.metaKey); else select([], event.ctrlKey || event.metaKey);
      return;
    }
    const polygon = state.lasso, t = state.shown, found = [];
    state.lasso = null;
    for (let n = 0; n < N; n++) {
      const i = 2 * (t * N + n);
      if (has(t, n) && presence(t, n) && ptrackPage.inPolygon(polygon, xy[i], xy[i + 1])) found.push(n);
    }
    select(found, event.ctrlKey || event.metaKey);
    setLasso(false);
  });
  view.addEventListener("pointerleave", () => setHover(-1, null));
  function setLasso(on) { state.lassoMode = on; $("lasso").setAttribute("aria-pressed", on); }

  // -- the list: one tab stop for all points
  const rows = data.ids.map((id, n) => {
    const row = document.createElement("div");
    row.className = "row";
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", "false");
    row.tabIndex = n ? -1 : 0;
    row.dataset.id = id;
    row.dataset.n = n;
    const dot = document.createElement("b"), name = document.createElement("span"), strip = document.createElement("canvas");
    dot.style.background = data.colours.start[n];
    name.textContent = id;
    name.title = id;
    row.append(dot, name, strip);
    row.addEventListener("click", (event) => {
      const box = strip.getBoundingClientRect();
      if (event.clientX >= box.left) goTo(Math.floor((event.clientX - box.left) / box.width * T));
      toggle(n, event.ctrlKey || event.metaKey);
      makeStop(row, true);
    });
    row.addEventListener("mouseenter", () => setHover(n, null));
    return row;
  });
  $("list").append(...rows);
  const makeStop = ptrackPage.rovingList($("list"), (row) => setHover(Number(row.dataset.n), null), {
    " ": (row) => toggle(Number(row.dataset.n), true), Enter: (row) => toggle(Number(row.dataset.n), false),
  });
  function drawStrip(n) {
    const strip = rows[n].querySelector("canvas"), ink = strip.getContext("2d"), width = strip.width = Math.min(T, 300);
    const style = getComputedStyle(document.documentElement);
    strip.height = 1;
    for (let c = 0; c < width; c++) {
      const from = Math.floor(c * T / width), to = Math.max(from + 1, Math.floor((c + 1) * T / width));
      let sum = 0, some = false;
      for (let t = from; t < to; t++) { sum += flag[t * N + n]; some = some || has(t, n); }
      ink.globalAlpha = some ? 0.2 + 0.8 * sum / (to - from) : 0;
      ink.fillStyle = style.getPropertyValue(sum ? "--seen" : "--soft");
      ink.fillRect(c, 0, 1, 1);
    }
  }
  const watch = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (!entry.isIntersecting) return;
    watch.unobserve(entry.target);
    drawStrip(rows.indexOf(entry.target));
  }));
  rows.forEach((row) => watch.observe(row));
  $("find").addEventListener("input", () => {
    const word = $("find").value.toLowerCase();
    rows.forEach((row) => { row.style.display = row.dataset.id.toLowerCase().includes(word) ? "" : "none"; });
    makeStop(rows.find((row) => row.style.display === ""));
  });

  // -- controls and keys
  const turnTheme = () => {
    ptrackPage.turnTheme();
    rows.forEach((row) => watch.observe(row));
  };
  const turn = (id) => { $(id).checked = !$(id).checked; draw(state.shown); };
  const nextOccluded = () => {
    const box = $("occluded");
    box.selectedIndex = (box.selectedIndex + 1) % box.options.length;
    draw(state.shown);
  };
  const faster = (by) => {
    const box = $("speed");
    box.selectedIndex = Math.max(0, Math.min(box.options.length - 1, box.selectedIndex + by));
    video.playbackRate = Number(box.value);
  };
  $("play").addEventListener("click", () => play(video.paused));
  $("back").addEventListener("click", () => { video.pause(); goTo(state.frame - 1); });
  $("next").addEventListener("click", () => { video.pause(); goTo(state.frame + 1); });
  $("seek").max = T - 1;
  $("seek").addEventListener("input", () => { video.pause(); goTo(Number($("seek").value)); });
  $("speed").addEventListener("change", () => faster(0));
  $("theme").addEventListener("click", turnTheme);
  $("lasso").addEventListener("click", () => setLasso(!state.lassoMode));
  $("clear").addEventListener("click", () => select([], false));
  ["trails", "occluded", "labels", "solo", "colour", "length"].forEach((id) => $(id).addEventListener("input", () => draw(state.shown)));
  const keys = {
    " ": () => play(video.paused),
    ArrowLeft: (e) => { video.pause(); goTo(state.frame - (e.shiftKey ? 10 : 1)); },
    ArrowRight: (e) => { video.pause(); goTo(state.frame + (e.shiftKey ? 10 : 1)); },
    Home: () => goTo(0), End: () => goTo(T - 1),
    "[": () => faster(-1), "]": () => faster(1),
    t: () => turn("trails"), o: nextOccluded, n: () => turn("labels"), s: () => turn("solo"),
    l: () => setLasso(!state.lassoMode), a: () => select(data.ids.map((_, n) => n), false), d: turnTheme,
    Escape: () => { state.lasso = null; setLasso(false); select([], false); },
  };
  document.addEventListener("keydown", (event) => {
    const tag = event.target.tagName, own = { " ": ["BUTTON"], Home: ["SELECT"], End: ["SELECT"] }[event.key] || [];
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.type === "search" || own.includes(tag)) return;
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key](event);
  });
  video.addEventListener("play", readout);
  video.addEventListener("pause", readout);
  video.addEventListener("ended", () => goTo(T - 1));
  video.addEventListener("error", () => { if (video.src) $("facts").textContent = "The video cannot be played here; points only."; });
  new ResizeObserver(resize).observe($("stage"));

  // -- start
  $("stage").style.setProperty("--ratio", W / H);
  $("facts").textContent = `${T} frames, ${N} points, ${W}×${H}`;
  video.addEventListener("loadeddata", () => { state.ready = true; goTo(0); draw(0); }, { once: true });
  if (data.video) video.src = URL.createObjectURL(new Blob([bytes(data.video)], { type: "video/mp4" }));
  else if (data.videoFile) video.src = data.videoFile;
  else state.ready = true;
  if (perFrame) video.requestVideoFrameCallback(onFrame); else requestAnimationFrame(onTick);
  resize();
  window.ptrackViewer = { state, data, goTo, frameAt, select, colourOf };
})();
