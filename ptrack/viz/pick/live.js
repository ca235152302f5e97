"use strict";
// Waits for the next frame, fetches its picture, draws both. A page that cannot keep up skips frames.

const view = document.getElementById("view");
const facts = document.getElementById("facts");
const context = view.getContext("2d");
const GOLDEN = 137.508; // degrees of hue between one id and the next: neighbours in number differ most

function colour(id) {
  const number = Number(id);
  const from = Number.isInteger(number) ? number : [...id].reduce((sum, c) => sum * 31 + c.codePointAt(0) | 0, 7);
  return `hsl(${(from * GOLDEN) % 360} 90% 60%)`;
}

function draw(frame, picture) {
  view.width = picture.width;
  view.height = picture.height;
  context.drawImage(picture, 0, 0);
  const scale = picture.width / frame.width;
  const radius = Math.max(3, picture.width / 220);
  for (const [id, x, y, visible, confidence] of frame.points) {
    context.beginPath();
    context.arc(x * scale, y * scale, visible ? radius : radius * 0.8, 0, 2 * Math.PI);
    context.globalAlpha = visible ? 0.35 + 0.65 * confidence : 0.5;
    context.lineWidth = radius / 2;
    context.strokeStyle = visible ? "#000" : colour(id);
    context.stroke();
    if (visible) {
      context.fillStyle = colour(id);
      context.fill();
    }
  }
  context.globalAlpha = 1;
  const seen = frame.points.filter((point) => point[3]).length;
  facts.textContent = `frame ${frame.frame} · ${seen} of ${frame.points.length} visible · ${Math.round(frame.age)} ms · ${frame.dropped} dropped`;
}

async function follow() {
  let after = -1;
  for (;;) {
    try {
      const frame = await (await fetch(`poll?after=${after}`)).json();
      if (frame.frame !== null) {
        after = frame.frame;
        const answer = await fetch(`frame?i=${after}`);
        if (answer.ok) draw(frame, await createImageBitmap(await answer.blob()));
      }
      if (frame.over) {
        facts.textContent += " · ended";
        return;
      }
    } catch {
      facts.textContent = "ptrack live is not running any more";
      return;
    }
  }
}

follow();
