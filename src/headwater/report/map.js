// The map as a canvas: pan, zoom, hover, and the pictures themselves wherever there is room for them.
"use strict";
(() => {
  const box = document.querySelector(".map"), canvas = box.querySelector(":scope > canvas"), pen = canvas.getContext("2d");
  const tip = box.querySelector(".tip"), preview = tip.querySelector("canvas"), sheet = document.getElementById("map-sheet");
  const { x, y, label, id, classes, sprite } = JSON.parse(document.getElementById("map-data").textContent);
  const n = x.length, tall = Math.max(...y), colours = 10, pad = 18;
  const shown = new Set(classes.keys()), keys = [...document.querySelectorAll(".legend button")];
  let width = 0, height = 0, zoom = 1, left = 0, top = 0, near = -1, paint = {}, tinted = {};

  // The distance from a sample to its nearest neighbour, typically: how large a picture may be drawn.
  const gaps = x.map((_, i) => {
    let least = Infinity;
    for (let j = 0; j < n; j++) if (j !== i) least = Math.min(least, (x[i] - x[j]) ** 2 + (y[i] - y[j]) ** 2);
    return Math.sqrt(least);
  }).sort((a, b) => a - b);
  const gap = gaps[n >> 1];

  const of = (i) => (label === null ? -1 : label[i]);
  const visible = (i) => of(i) < 0 || shown.has(of(i));
  const key = (i) => (of(i) < 0 ? "none" : of(i) % colours);
  const whole = () => Math.min(width - 2 * pad, (680 - 2 * pad) / tall);  // all of it, on one screen
  const scale = () => whole() * zoom;
  const at = (i) => [left + x[i] * scale(), top + y[i] * scale()];

  // The side of a picture, in pixels of the page.
  const side = () => (sprite && sheet ? Math.min(Math.max(2 * gap * scale(), 20 * zoom ** 0.45), 64) : 0);

  function roomy(size) {  // the samples whose picture hides no earlier one; zooming in makes room for more
    const taken = new Map(), found = [];
    for (let i = 0; i < n; i++) {
      if (!visible(i)) continue;
      const a = x[i] * scale() / size, b = y[i] * scale() / size, p = Math.floor(a), q = Math.floor(b);
      let free = true;
      for (let u = p - 1; free && u <= p + 1; u++) for (let v = q - 1; free && v <= q + 1; v++)
        for (const [c, d] of taken.get(`${u} ${v}`) ?? []) if (Math.abs(a - c) < 1 && Math.abs(b - d) < 1) free = false;
      if (!free) continue;
      taken.set(`${p} ${q}`, [...(taken.get(`${p} ${q}`) ?? []), [a, b]]);
      found.push(i);
    }
    return found;
  }

  function tint(colour) {  // the whole sheet of ink pictures in one colour, made when first asked for
    if (!tinted[colour]) {
      const copy = tinted[colour] = document.createElement("canvas"), ink = copy.getContext("2d");
      copy.width = sheet.naturalWidth; copy.height = sheet.naturalHeight;
      ink.drawImage(sheet, 0, 0);
      ink.globalCompositeOperation = "source-in";
      ink.fillStyle = colour;
      ink.fillRect(0, 0, copy.width, copy.height);
    }
    return tinted[colour];
  }

  function picture(onto, i, cx, cy, size) {
    const { width: w, height: h, columns, ink } = sprite, k = size / Math.max(w, h);
    if (ink && onto === pen) {  // dots must not shine through
      onto.fillStyle = paint.ground;
      onto.fillRect(cx - (w * k) / 2, cy - (h * k) / 2, w * k, h * k);
    }
    onto.drawImage(ink ? tint(paint[key(i)]) : sheet, (i % columns) * w, Math.floor(i / columns) * h, w, h,
      cx - (w * k) / 2, cy - (h * k) / 2, w * k, h * k);
    if (!ink && label !== null) {
      onto.strokeStyle = paint[key(i)];
      onto.lineWidth = size < 24 ? 1.5 : 2.5;
      onto.strokeRect(cx - (w * k) / 2, cy - (h * k) / 2, w * k, h * k);
    }
  }

  function draw() {
    const dense = window.devicePixelRatio || 1, size = side();
    pen.setTransform(dense, 0, 0, dense, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.imageSmoothingEnabled = size * dense < 2 * (sprite ? sprite.width : 1);
    const inside = (cx, cy) => cx > -40 && cy > -40 && cx < width + 40 && cy < height + 40;
    for (let i = 0; i < n; i++) {
      const [cx, cy] = at(i);
      if (!visible(i) || !inside(cx, cy)) continue;
      pen.fillStyle = paint[key(i)];
      pen.beginPath();
      pen.arc(cx, cy, size ? 1.8 : Math.min(5, 2.4 + zoom / 2), 0, 7);
      pen.fill();
    }
    for (const i of size ? roomy(size) : []) if (inside(...at(i))) picture(pen, i, ...at(i), size);
    if (label !== null && keys.length <= 20) names();
    if (near >= 0 && visible(near)) {
      const [cx, cy] = at(near);
      pen.strokeStyle = paint.ink; pen.lineWidth = 1.5;
      pen.beginPath(); pen.arc(cx, cy, Math.max(7, size * 0.75), 0, 7); pen.stroke();
    }
  }

  function names() {  // each class named where most of it is: at its sample nearest to the median
    pen.font = "600 13px system-ui, sans-serif"; pen.textAlign = "center"; pen.textBaseline = "middle";
    for (const [c, i] of middles) {
      if (!shown.has(c)) continue;
      const [cx, cy] = at(i);
      const w = pen.measureText(classes[c]).width + 12;
      pen.globalAlpha = 0.88; pen.fillStyle = paint.page;
      pen.beginPath(); pen.roundRect(cx - w / 2, cy - 10, w, 20, 6); pen.fill();
      pen.globalAlpha = 1; pen.fillStyle = paint.ink;
      pen.fillText(classes[c], cx, cy + 0.5);
    }
  }
  const middles = label === null ? [] : classes.map((_, c) => {
    const of = [...x.keys()].filter((i) => label[i] === c);
    if (!of.length) return [c, -1];
    const middle = (v) => of.map((i) => v[i]).sort((a, b) => a - b)[of.length >> 1], mx = middle(x), my = middle(y);
    const far = (i) => (x[i] - mx) ** 2 + (y[i] - my) ** 2;
    return [c, of.reduce((a, b) => (far(b) < far(a) ? b : a))];
  }).filter(([, i]) => i >= 0);

  function keep() {  // the map within reach
    const w = scale(), h = tall * scale(), reach = 60;
    left = Math.min(width - reach, Math.max(reach - w, left));
    top = Math.min(height - reach, Math.max(reach - h, top));
    canvas.style.touchAction = zoom > 1.01 ? "none" : "auto";
  }

  function all() { zoom = 1; left = (width - whole()) / 2; top = pad; near = -1; tip.hidden = true; keep(); draw(); }

  function zoomed(by, cx = width / 2, cy = height / 2) {
    const next = Math.min(40, Math.max(1, zoom * by)), real = next / zoom;
    if (next === 1) return all();
    left = cx - (cx - left) * real; top = cy - (cy - top) * real; zoom = next;
    keep(); draw();
  }

  function resize() {
    const dense = window.devicePixelRatio || 1;
    width = box.clientWidth; height = Math.round(whole() * tall + 2 * pad);
    canvas.style.height = `${height}px`;
    canvas.width = width * dense; canvas.height = height * dense;
    all();
  }

  function colour() {
    const style = getComputedStyle(document.documentElement), read = (name) => style.getPropertyValue(name).trim();
    paint = { none: read("--cnone"), ink: read("--ink"), page: read("--page"), ground: read("--ground") };
    for (let c = 0; c < colours; c++) paint[c] = read(`--c${c}`);
    tinted = {};
  }

  function hover(cx, cy) {
    let least = Math.max(12, side() / 2 + 2) ** 2, found = -1;
    for (let i = 0; i < n; i++) {
      if (!visible(i)) continue;
      const [a, b] = at(i), far = (a - cx) ** 2 + (b - cy) ** 2;
      if (far < least) { least = far; found = i; }
    }
    if (found !== near) { near = found; draw(); }
    tip.hidden = near < 0;
    if (near < 0) return;
    const words = tip.querySelector("p"), bold = document.createElement("b");
    bold.textContent = of(near) < 0 ? "" : classes[of(near)];
    words.replaceChildren(...(bold.textContent ? [bold] : []), id[near]);
    preview.hidden = !sprite || !sheet;
    if (sprite && sheet) {
      const big = 96, k = big / Math.max(sprite.width, sprite.height), onto = preview.getContext("2d");
      preview.width = sprite.width * k; preview.height = sprite.height * k;
      onto.imageSmoothingEnabled = false;
      const tile = [(near % sprite.columns) * sprite.width, Math.floor(near / sprite.columns) * sprite.height];
      onto.drawImage(sprite.ink ? tint(paint.ink) : sheet, ...tile, sprite.width, sprite.height, 0, 0, preview.width, preview.height);
    }
    tip.style.left = `${Math.max(0, Math.min(cx + 16, width - tip.offsetWidth))}px`;
    tip.style.top = `${cy + 16 + tip.offsetHeight > height ? Math.max(0, cy - 16 - tip.offsetHeight) : cy + 16}px`;
  }

  const fingers = new Map();
  canvas.addEventListener("pointerdown", (e) => { fingers.set(e.pointerId, [e.offsetX, e.offsetY]); canvas.setPointerCapture(e.pointerId); });
  canvas.addEventListener("pointermove", (e) => {
    const before = fingers.get(e.pointerId), now = [e.offsetX, e.offsetY];
    if (!before) return hover(...now);
    tip.hidden = true;
    if (fingers.size === 2) {
      const other = [...fingers].find(([k]) => k !== e.pointerId)[1], far = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]);
      zoomed(far(now) / Math.max(1, far(before)), ...other);
    } else { left += now[0] - before[0]; top += now[1] - before[1]; keep(); draw(); }
    fingers.set(e.pointerId, now);
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (e) => fingers.delete(e.pointerId));
  canvas.addEventListener("pointerleave", () => { near = -1; tip.hidden = true; draw(); });
  canvas.addEventListener("wheel", (e) => {
    if (document.activeElement !== canvas && !e.ctrlKey) return;  // a page that is being scrolled goes on scrolling
    e.preventDefault();
    zoomed(Math.exp(-e.deltaY / 400), e.offsetX, e.offsetY);
  }, { passive: false });
  canvas.addEventListener("dblclick", (e) => zoomed(2, e.offsetX, e.offsetY));
  canvas.addEventListener("keydown", (e) => {
    const move = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[e.key];
    if (move) { left += move[0]; top += move[1]; keep(); draw(); }
    else if (e.key === "+" || e.key === "=") zoomed(1.5);
    else if (e.key === "-") zoomed(1 / 1.5);
    else if (e.key === "0") all();
    else return;
    e.preventDefault();
  });
  for (const button of box.querySelectorAll("[data-zoom]"))
    button.addEventListener("click", () => (+button.dataset.zoom ? zoomed(+button.dataset.zoom) : all()));
  for (const button of keys) {
    const own = +button.dataset.class;
    const say = () => { for (const k of keys) k.setAttribute("aria-pressed", shown.has(+k.dataset.class)); draw(); };
    button.addEventListener("click", () => { shown.has(own) ? shown.delete(own) : shown.add(own); say(); });
    button.addEventListener("dblclick", () => {
      const alone = shown.size === 1 && shown.has(own);
      for (const k of keys) alone || +k.dataset.class === own ? shown.add(+k.dataset.class) : shown.delete(+k.dataset.class);
      say();
    });
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { colour(); draw(); });
  new ResizeObserver(() => { if (box.clientWidth && box.clientWidth !== width) resize(); }).observe(box);

  const begin = () => { box.classList.add("live"); colour(); resize(); };
  sheet ? sheet.decode().then(begin, begin) : begin();
})();
