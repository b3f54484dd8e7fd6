// The page of the experts: asks for counters once a second and draws them. No dependencies.
'use strict';

const INTERVAL_MS = 1000;
const KINDS_INTERVAL_MS = 5000;
const TIMEOUT_MS = 10000;
const MAX_SAMPLES = 75;  // of totals, to look back a minute
const COUNTS = ['processed', 'rerouted', 'reweighted', 'dropped', 'gate_weight', 'lost_gate_weight'];
const byId = (id) => document.getElementById(id);

let samples = [];      // totals, oldest first, when a span of seconds is looked at
let shown = null;      // what is drawn: {layers: [{layer, tokens, load, lost, choices, gate_weight, ...}]}
let kinds = null;      // {classes, layers: [{layer, kinds: [[class, percent, ...]]}]}: which tokens went where
let kindsError = '';
let kindsDue = 0;
let chosen = null;     // {row, column} of the cell under the cursor
let paused = false;
let timer = 0;
let turn = 0;  // of poll: only the newest goes on

// ---- numbers ----

const sum = (list) => list.reduce((a, b) => a + b, 0);
const percent = (x) => `${(100 * x).toFixed(x > 0 && x < 0.1 ? 2 : 1)} %`;
const count = (n) => Math.round(n).toLocaleString('en');

// The server leaves out lists that hold nothing but zeros.
function unpack(layer, experts) {
  const full = {...layer};
  for (const name of COUNTS) full[name] = layer[name] || new Array(experts).fill(0);
  return full;
}

// Whether counters went on from one sample of totals to the next: not with another model, nor with a server that began
// anew.
function goesOn(before, now) {
  const same = (name) => before[name] === now[name];
  if (!['model', 'num_experts', 'top_k', 'omitted_layers'].every(same)) return false;
  if (before.layers.length !== now.layers.length) return false;
  return now.layers.every((layer, i) => {
    const earlier = before.layers[i];
    return layer.layer === earlier.layer && layer.tokens >= earlier.tokens &&
      COUNTS.every((name) => layer[name].every((x, e) => x >= earlier[name][e]));
  });
}

// What happened between two samples of totals.
function difference(now, before) {
  return {...now, layers: now.layers.map((layer, i) => {
    const result = {...layer, tokens: layer.tokens - before.layers[i].tokens};
    for (const name of COUNTS) result[name] = layer[name].map((x, e) => x - before.layers[i][name][e]);
    return result;
  })};
}

function entropy(load) {
  const total = sum(load);
  if (total === 0 || load.length < 2) return 1;
  let h = 0;
  for (const n of load) if (n > 0) h -= n / total * Math.log(n / total);
  return h / Math.log(load.length);
}

// The share of the load on the i busiest experts, for i = 0 ... E.
function concentration(load) {
  const total = sum(load);
  const sorted = [...load].sort((a, b) => b - a);
  let carried = 0;
  return [0, ...sorted.map((n, i) => total > 0 ? (carried += n) / total : (i + 1) / load.length)];
}

// The formulas of dead and hot experts: engine/experts/README.md.
function describe(layer) {
  const load = layer.processed.map((n, e) => n + layer.rerouted[e]);
  const lost = layer.reweighted.map((n, e) => n + layer.dropped[e]);
  const total = sum(load);
  const mean = total / load.length;
  const judged = mean >= 10;
  const limit = Math.min(3, (1 + load.length / (total / layer.tokens)) / 2) * mean;
  return {...layer, load, lost, mean, entropy: entropy(load),
    imbalance: total > 0 ? Math.max(...load) / mean : 1,
    lostShare: total + sum(lost) > 0 ? sum(lost) / (total + sum(lost)) : 0,
    dead: judged ? load.filter((n) => n === 0).length : 0,
    hot: judged ? load.filter((n) => n > limit).length : 0};
}

// ---- the heat map ----

function channels(name) {
  const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const long = hex.length === 4 ? hex.replace(/[^#]/g, '$&$&') : hex;
  return [1, 3, 5].map((i) => parseInt(long.slice(i, i + 2), 16));
}

// [0, 1] from cold over the mean to hot.
function palette() {
  const stops = [channels('--cold'), channels('--mean'), channels('--hot')];
  return (t) => {
    const x = Math.min(1, Math.max(0, t)) * 2;
    const i = Math.min(1, Math.floor(x));
    return stops[i].map((c, k) => Math.round(c + (stops[i + 1][k] - c) * (x - i)));
  };
}

const MEASURES = {
  load: {value: (l, e) => l.mean > 0 ? l.load[e] / l.mean : 0, scale: (r) => r <= 1 ? r / 2 : 1 - 0.5 / r,
    high: 'many times the mean', low: '0'},
  lost: {value: (l, e) => l.load[e] + l.lost[e] > 0 ? l.lost[e] / (l.load[e] + l.lost[e]) : 0, scale: Math.sqrt,
    high: '100 %', low: '0 %'},
  gate: {value: (l, e) => l.load[e] + l.lost[e] > 0 ? l.gate_weight[e] / (l.load[e] + l.lost[e]) : 0, scale: (w) => w,
    high: '1', low: '0'},
};

function cellSize() {
  const experts = shown.num_experts;
  const room = byId('map-frame').clientWidth - 2;
  return {w: Math.max(3, Math.min(64, Math.floor(room / experts))),
    h: Math.max(4, Math.min(26, Math.floor(420 / shown.layers.length)))};
}

function drawMap() {
  const canvas = byId('map');
  const {w, h} = cellSize();
  canvas.width = w * shown.num_experts;
  canvas.height = h * shown.layers.length;
  const context = canvas.getContext('2d');
  const color = palette();
  const measure = MEASURES[byId('measure').value];
  shown.layers.forEach((layer, row) => {
    for (let e = 0; e < shown.num_experts; ++e) {
      context.fillStyle = `rgb(${color(measure.scale(measure.value(layer, e))).join()})`;
      context.fillRect(e * w, row * h, w > 5 ? w - 1 : w, h > 5 ? h - 1 : h);
    }
  });
  if (chosen) {
    context.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue('--mark').trim();
    context.lineWidth = 2;
    context.strokeRect(chosen.column * w + 0.5, chosen.row * h + 0.5, w, h);
  }
  const scale = byId('scale').getContext('2d');
  for (let x = 0; x < 160; ++x) {
    scale.fillStyle = `rgb(${color(x / 159).join()})`;
    scale.fillRect(x, 0, 1, 10);
  }
  byId('low').textContent = measure.low;
  byId('high').textContent = measure.high;
}

// ---- texts ----

function showDetails() {
  if (!chosen) {
    byId('details').textContent = 'No cell is chosen.';
    return;
  }
  const layer = shown.layers[chosen.row];
  const e = chosen.column;
  const choices = layer.load[e] + layer.lost[e];
  const total = sum(layer.load);
  byId('details').textContent = `Layer ${layer.layer}, expert ${e}: ${count(layer.processed[e])} processed, ` +
    `${count(layer.rerouted[e])} rerouted here, ${count(layer.reweighted[e])} reweighted, ` +
    `${count(layer.dropped[e])} dropped; ${percent(total > 0 ? layer.load[e] / total : 0)} of the layer’s load, ` +
    `${(layer.mean > 0 ? layer.load[e] / layer.mean : 0).toFixed(2)} times the mean; mean weight ` +
    `${(choices > 0 ? layer.gate_weight[e] / choices : 0).toFixed(3)}.${kindsText(layer.layer, e)}`;
}

// Of the tokens that were looked at one by one.
function kindsText(layer, expert) {
  const row = kinds?.layers.find((l) => l.layer === layer)?.kinds[expert] || [];
  const parts = [];
  for (let i = 0; i < row.length; i += 2) parts.push(`${kinds.classes[row[i]]} ${row[i + 1]} %`);
  if (kindsError) return ` Kinds of tokens: no answer (${kindsError}).`;
  return parts.length ? ` Tokens: ${parts.join(', ')}.` : '';
}

function showSummary() {
  const layers = shown.layers;
  const all = (name) => sum(layers.map((l) => sum(l[name])));
  const assignments = all('load') + all('lost');
  const worst = (better, name) => layers.length ? Math[better](...layers.map((l) => l[name])) : 1;
  const put = (id, text, alarm) => {
    byId(id).textContent = text;
    byId(id).classList.toggle('alarm', Boolean(alarm));
  };
  const lost = assignments > 0 ? all('lost') / assignments : 0;
  const weight = all('gate_weight');
  const collapsed = layers.filter((l) => l.collapsed).length;
  put('tokens', count(layers.length ? layers[0].tokens : 0));
  put('lost', percent(lost), lost > 0.01);
  put('lost-weight', percent(weight > 0 ? all('lost_gate_weight') / weight : 0));
  put('imbalance', worst('max', 'imbalance').toFixed(2));
  put('entropy', worst('min', 'entropy').toFixed(3));
  put('collapsed', collapsed, collapsed > 0);
  put('dead', sum(layers.map((l) => l.dead)));
  put('hot', sum(layers.map((l) => l.hot)));
}

// Of a model whose experts are not all in memory; since the start of the server.
function showCache() {
  const cache = shown.cache;
  byId('cache').hidden = !cache;
  if (!cache) return;
  const lookups = cache.hits + cache.misses;
  byId('cache').textContent = `Expert cache of ${count(cache.slots)} experts, since the start: ` +
    `${percent(lookups > 0 ? cache.hits / lookups : 0)} hits, ${(cache.loaded_bytes / 2 ** 30).toFixed(1)} GiB read, ` +
    `${cache.wait_seconds.toFixed(1)} s waited, ${count(cache.evictions)} gave way; read ahead: ` +
    `${count(cache.prefetches_used)} in time, ${count(cache.prefetches_late)} late, ` +
    `${count(cache.prefetches_wasted)} in vain; ${count(cache.quarantined)} cannot be read.`;
  byId('cache').classList.toggle('alarm', cache.quarantined > 0);
}

function showLayers() {
  const body = byId('layers');
  while (body.rows.length > shown.layers.length) body.deleteRow(-1);
  while (body.rows.length < shown.layers.length) {
    const row = body.insertRow();
    for (let i = 0; i < 8; ++i) row.insertCell();
  }
  shown.layers.forEach((l, i) => {
    const texts = [l.layer, l.entropy.toFixed(3), l.imbalance.toFixed(2), percent(l.lostShare), l.dead, l.hot,
      l.drift === undefined ? '–' : l.drift.toFixed(3), l.collapsed ? 'collapsed' : 'ok'];
    const row = body.rows[i];
    texts.forEach((text, k) => { row.cells[k].textContent = text; });
    row.cells[7].classList.toggle('alarm', l.collapsed);
    row.classList.toggle('chosen', Boolean(chosen) && chosen.row === i);
  });
}

function showCurve() {
  const path = (points) => points.map((y, i) =>
    `${i ? 'L' : 'M'}${(40 + 270 * i / (points.length - 1)).toFixed(1)} ${(190 - 180 * y).toFixed(1)}`).join('');
  const curves = shown.layers.map((l) => concentration(l.load));
  if (!curves.length) return;
  const mean = curves[0].map((_, i) => sum(curves.map((c) => c[i])) / curves.length);
  byId('curve-mean').setAttribute('d', path(mean));
  byId('curve-layer').setAttribute('d', chosen ? path(curves[chosen.row]) : '');
  const at = (curve, share) => {
    const x = share * (curve.length - 1);
    const i = Math.min(curve.length - 2, Math.floor(x));
    return percent(curve[i] + (curve[i + 1] - curve[i]) * (x - i));
  };
  const line = (curve) => `the busiest 10 % of the experts carry ${at(curve, 0.1)} of the load, half of them ${at(curve, 0.5)}`;
  byId('curve-text').textContent = `Mean over layers: ${line(mean)}.` +
    (chosen ? ` Layer ${shown.layers[chosen.row].layer} (dashed): ${line(curves[chosen.row])}.` : '');
}

function draw() {
  if (!shown) return;
  if (chosen && (chosen.row >= shown.layers.length || chosen.column >= shown.num_experts)) chosen = null;
  if (shown.layers.length) drawMap();
  showDetails();
  showSummary();
  showCache();
  showLayers();
  showCurve();
  byId('omitted').hidden = !shown.omitted_layers;
  byId('omitted').textContent = `${shown.omitted_layers} more layers are not shown: see /metrics/experts.`;
}

// ---- asking ----

function setStatus(text, bad) {
  byId('status').textContent = text;
  byId('status').classList.toggle('bad', Boolean(bad));
}

function take(answer) {
  const span = byId('span').value;
  const data = {...answer, layers: answer.layers.map((l) => unpack(l, answer.num_experts))};
  let seen = data;
  if (span !== 'window' && span !== 'total') {
    if (samples.length && !goesOn(samples[samples.length - 1], data)) samples = [];
    if (data.layers.length) samples.push(data);  // there are none while the model loads
    while (samples.length > MAX_SAMPLES) samples.shift();
    const since = samples.find((s) => s.time >= data.time - Number(span) - 0.5) || data;
    seen = difference(data, since);
  }
  shown = {...seen, layers: seen.layers.map(describe)};
  byId('model').textContent = answer.model === null ? 'no model yet' :
    `${answer.model}: ${answer.layers.length + answer.omitted_layers} MoE layers, ${answer.num_experts} experts each, ` +
    `${answer.top_k} for each token`;
  draw();
}

async function ask(path) {
  const answer = await fetch(path, {cache: 'no-store', signal: AbortSignal.timeout(TIMEOUT_MS)});
  if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
  return answer.json();
}

// Beside the counters, which are shown without them.
async function askKinds() {
  if (performance.now() < kindsDue) return;
  kindsDue = Infinity;  // one at a time
  try {
    kinds = await ask('/experts/kinds.json');
    kindsError = '';
  } catch (error) {
    kinds = null;
    kindsError = error.message;
  }
  kindsDue = performance.now() + KINDS_INTERVAL_MS;
  if (shown) showDetails();
}

async function poll() {
  clearTimeout(timer);
  const mine = ++turn;
  if (paused) return;
  if (!document.hidden) {
    const scope = byId('span').value === 'window' ? 'window' : 'total';
    try {
      const data = await ask(`/experts/${scope}.json`);
      if (mine !== turn) return;
      take(data);
      setStatus('live');
      askKinds();
    } catch (error) {
      if (mine === turn) setStatus(`no answer (${error.message}); trying again`, true);
    }
  }
  if (mine === turn) timer = setTimeout(poll, INTERVAL_MS);
}

function togglePause() {
  paused = !paused;
  byId('pause').setAttribute('aria-pressed', String(paused));
  byId('pause').textContent = paused ? 'Continue' : 'Pause';
  setStatus(paused ? 'paused' : 'connecting');
  poll();
}

// ---- hands ----

function choose(row, column) {
  if (!shown || !shown.layers.length) return;
  const clamp = (x, last) => Math.max(0, Math.min(last, x));
  chosen = {row: clamp(row, shown.layers.length - 1), column: clamp(column, shown.num_experts - 1)};
  draw();
}

function onMapKey(event) {
  const at = chosen || {row: 0, column: -1};
  const moves = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0],
    PageUp: [-10, 0], PageDown: [10, 0], Home: [0, -Infinity], End: [0, Infinity]};
  if (event.key === 'Escape') {
    chosen = null;
    draw();
  } else if (moves[event.key]) {
    event.preventDefault();
    choose(at.row + moves[event.key][0], at.column + moves[event.key][1]);
  }
}

function start() {
  const map = byId('map');
  map.addEventListener('mousemove', (event) => {
    if (!shown || !shown.layers.length) return;
    const {w, h} = cellSize();
    choose(Math.floor(event.offsetY / h), Math.floor(event.offsetX / w));
  });
  map.addEventListener('keydown', onMapKey);
  byId('pause').addEventListener('click', togglePause);
  byId('controls').addEventListener('submit', (event) => event.preventDefault());
  byId('measure').addEventListener('change', draw);
  byId('span').addEventListener('change', () => {
    samples = [];
    poll();
  });
  document.addEventListener('keydown', (event) => {
    if (event.key === 'p' && event.target.tagName !== 'SELECT' && !event.ctrlKey && !event.metaKey) togglePause();
  });
  addEventListener('resize', draw);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
  document.addEventListener('visibilitychange', () => { if (!document.hidden) poll(); });
  poll();
}

start();
