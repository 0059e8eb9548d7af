"""The page of the drift film: a canvas, a slider, and no network."""

from __future__ import annotations

_STYLE = """
:root{--page:#fbfaf7;--ink:#1f2430;--soft:#5f6673;--base:#9db7d5;--new:#c2410c}
@media(prefers-color-scheme:dark){:root{--page:#14161b;--ink:#e7e5df;--soft:#9aa1ad;--base:#3d5876;--new:#f29559}}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:900px;margin:0 auto;padding:14px}
h1{font-size:1.2rem;overflow-wrap:anywhere;margin:0}
canvas{width:100%;display:block}
p{color:var(--soft);margin:.3em 0;font-size:.87rem}
.bar{display:flex;gap:12px;align-items:center}
input{flex:1;min-width:0}
button{font:inherit;min-width:5em}
output{min-width:6.5em;font-variant-numeric:tabular-nums}
"""

_SCRIPT = """
const film = __DATA__;
const find = name => document.querySelector(name);
const canvas = find("canvas"), slider = find("input"), shown = find("output");
const button = find("button"), near = find("#near");
const pen = canvas.getContext("2d"), last = film.frames.length - 1;
let at = 0, pointer = null, before = null;
let runs = last > 0 && !matchMedia("(prefers-reduced-motion: reduce)").matches;
find("h1").textContent = document.title = film.title;
slider.max = last;
button.hidden = slider.hidden = last === 0;

// half a percent at each end may leave the picture: one stray row must not shrink all others to a dot
const finite = film.background.concat(...film.frames).filter(p => isFinite(p[0]) && isFinite(p[1]));
function ends(axis) {
  const sorted = finite.map(p => p[axis]).sort((a, b) => a - b), cut = Math.floor(sorted.length * 0.005);
  return [sorted[cut], sorted[sorted.length - 1 - cut] - sorted[cut] || 1];
}
const [left, across] = ends(0), [bottom, upward] = ends(1);
const place = p => [
  canvas.width * (0.05 + 0.9 * (p[0] - left) / across),
  canvas.height * (0.95 - 0.9 * (p[1] - bottom) / upward),
];

function between(values, mix) {
  const i = Math.min(Math.floor(at), last), j = Math.min(i + 1, last);
  return mix(values[i], values[j], at - i);
}
const mixNumbers = (a, b, share) => a + share * (b - a);
const mixPair = (p, q, share) => [mixNumbers(p[0], q[0], share), mixNumbers(p[1], q[1], share)];
const mixPoints = (a, b, share) => a.map((p, n) => mixPair(p, b[n], share));

function draw() {
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth;
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name);
  canvas.width = width * ratio;
  canvas.height = width * 0.68 * ratio;
  canvas.style.height = width * 0.68 + "px";
  const dot = ([x, y], size) => pen.fillRect(x - size / 2, y - size / 2, size, size);
  pen.fillStyle = colour("--base");
  for (const p of film.background) dot(place(p), 2 * ratio);
  pen.fillStyle = colour("--new");
  let closest = 24 * ratio, word = "";
  between(film.frames, mixPoints).forEach((p, n) => {
    const [x, y] = place(p);
    dot([x, y], 3.2 * ratio);
    const far = pointer ? Math.hypot(x - pointer[0] * ratio, y - pointer[1] * ratio) : Infinity;
    if (far < closest) [closest, word] = [far, film.words[n]];
  });
  near.textContent = word || "\\u00a0";
  shown.textContent = "step " + Math.round(between(film.steps, mixNumbers)).toLocaleString("en");
}

function tick(now) {
  if (runs) {
    at += Math.min(now - (before ?? now), 100) / 900;  // a milestone in 0.9 s
    if (at > last) at = 0;
    slider.value = at;
    draw();
  }
  before = now;
  requestAnimationFrame(tick);
}
function play(yes) {
  runs = yes;
  button.textContent = yes ? "Pause" : "Play";
}
button.onclick = () => play(!runs);
slider.oninput = () => { play(false); at = +slider.value; draw(); };
canvas.onpointermove = event => { pointer = [event.offsetX, event.offsetY]; draw(); };
canvas.onpointerleave = () => { pointer = null; draw(); };
addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
play(runs);
draw();
requestAnimationFrame(tick);
"""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
PAGE = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="color-scheme" content="light dark">
<title>drift film</title><style>{_STYLE}</style></head><body><main>
<h1></h1>
<div class="bar"><button>Pause</button><input type="range" min="0" step="0.02" value="0"><output></output></div>
<canvas></canvas>
<p id="near">&nbsp;</p>
<p>Each dot is a new word; the pale cloud behind them are tokens that the model had. The plane is spanned by the two
axes along which those spread most, the same in every frame. Between two milestones the way is drawn straight.</p>
</main><script>{_SCRIPT}</script></body></html>
"""
