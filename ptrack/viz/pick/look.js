// Where to look: frames to label, suggested by the server, and places of the tracks that may be wrong. A click goes there.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const { state, goTo, ask, command, attempt, show } = window.ptrackPick;
  let shown = "", version = -1;

  function option(kind, selected, parts) {
    const row = Object.assign(document.createElement("div"), { className: kind, tabIndex: -1 });
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", String(selected));
    row.append(...parts);
    return row;
  }
  const text = (tag, words) => Object.assign(document.createElement(tag), { textContent: words, title: words });
  function select(list, row) {
    for (const other of list.children) other.setAttribute("aria-selected", String(other === row));
  }

  // -- suggested frames
  function open(shot) { select($("strip"), shot); goTo(Number(shot.dataset.frame)); }
  function step(shot, by) {
    const next = by > 0 ? shot.nextElementSibling : shot.previousElementSibling;
    if (!next) return;
    makeShotStop(next, true);
    open(next);
  }
  const makeShotStop = ptrackPage.rovingList($("strip"), open, {
    ArrowRight: (shot) => step(shot, 1), ArrowLeft: (shot) => step(shot, -1), Enter: open, " ": open,
  });
  function suggestions() {
    const { running, error, looked, frames, note } = state.suggested;
    $("suggest").disabled = running || !state.writer || state.gone;
    $("look-note").className = error ? "bad" : "";
    $("look-note").textContent = $("look-note").title = running ? `Looking at frames: ${looked} ...` : error || note;
    const now = JSON.stringify(frames);
    if (now !== shown) {
      shown = now;
      $("strip").hidden = !frames.length;
      $("strip").replaceChildren(...frames.map(([frame, share]) => {
        const picture = Object.assign(new Image(), { src: `thumb?i=${frame}`, alt: "", draggable: false });
        const shot = option("shot", false, [picture, text("span", `frame ${frame}`)]);
        shot.title = `frame ${frame}: ${Math.round(100 * share)} % of the frames that were looked at are most like this one`;
        shot.dataset.frame = frame;
        return shot;
      }));
      makeShotStop($("strip").firstElementChild);
    }
    const labelled = new Set(state.points.map((point) => point.t));
    for (const shot of $("strip").children) shot.classList.toggle("labelled", labelled.has(Number(shot.dataset.frame)));
  }
  $("strip").addEventListener("click", (event) => {
    const shot = event.target.closest(".shot");
    if (shot) { makeShotStop(shot, true); open(shot); }
  });
  $("suggest").addEventListener("click", attempt(() => command("suggest", { frames: Math.round(Number($("suggest-count").value)) || 20 })));

  // -- places worth a look
  function visit(row) { select($("worth-list"), row); show(row.dataset.id, Number(row.dataset.frame)); }
  const makeRowStop = ptrackPage.rovingList($("worth-list"), visit, { Enter: visit, " ": visit });
  async function places() {
    if (state.running || state.busy || version === state.version) return;
    const wanted = version = state.version;
    let news;
    try { news = await ask("places"); } catch { version = -1; return; }
    if (news.version !== wanted) { version = -1; places(); return; }
    $("worth").hidden = !news.places.length;
    const more = news.all > news.places.length ? `, the first ${news.places.length}` : "";
    $("worth-title").textContent = `Worth a look: ${news.all}${more}`;
    $("worth-list").replaceChildren(...news.places.map(({ frame, id, what }) => {
      const row = option("row", false, [text("small", `frame ${frame}`), text("span", id), text("small", what)]);
      row.dataset.frame = frame;
      row.dataset.id = id;
      return row;
    }));
    makeRowStop($("worth-list").firstElementChild);
  }
  $("worth-list").addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (row) { makeRowStop(row, true); visit(row); }
  });

  function hear() {
    if (!state.suggested) return;
    suggestions();
    places();
  }
  window.addEventListener("ptrack-news", hear);
  hear();
})();
