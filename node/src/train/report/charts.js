// Charts for reports: draws each chart of the JSON in #charts into the .plot of its figure, as SVG, with
// a legend that hides and shows series and a read-out for pointer, touch and arrow keys.
//
// Chart: { id, title, description, x: Axis, y: Axis, series: [{ name, style, colour, x: [], y: [] }] }
// Axis:  { label, scale: "linear" | "log" | "auto", from_zero, also: null | { label, divide } }
// Style: "line", "faint" (a thin line) or "points" (rings on a dotted line); null in y is a gap.
// `also` names a second reading of x, which is x / divide. "auto" is "log" over more than two decades.
(() => {
  "use strict";

  const finite = Number.isFinite;

  /** An element; `svg:` before its name makes it SVG. Text is never read as markup. */
  function make(name, attributes = {}, ...children) {
    const element = name.startsWith("svg:")
      ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(4))
      : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  // Numbers

  /** For ticks: 20k, 1.5M, 0.003, 3e-4. */
  function short(value) {
    const size = Math.abs(value);
    for (const [unit, letter] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
      if (size >= unit && size < 1e15) return `${+(value / unit).toPrecision(6)}${letter}`;
    }
    if (size !== 0 && (size < 1e-3 || size >= 1e15)) return (+value.toPrecision(6)).toExponential().replace("e+", "e");
    return `${+value.toPrecision(6)}`;
  }

  /** For read-outs: 51,200; 2.3456; 1.250e-4. */
  function exact(value) {
    if (Number.isInteger(value)) return value.toLocaleString("en");
    const size = Math.abs(value);
    if (size < 1e-3 || size >= 1e15) return value.toExponential(3).replace("e+", "e");
    return size >= 1000 ? Math.round(value).toLocaleString("en") : value.toPrecision(5);
  }

  // Scales

  /** Where values of an axis lie between `from` and `to` pixels, and its ticks. */
  function scale(axis, values, from, to, wanted) {
    let low = Infinity, high = -Infinity;
    for (const value of values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    if (low > high) [low, high] = [0, 1];
    const log = low > 0 && (axis.scale === "log" || (axis.scale === "auto" && high / low > 100));
    if (log) [low, high] = [Math.log10(low), Math.log10(high)];
    if (!log && axis.from_zero) [low, high] = [Math.min(low, 0), Math.max(high, 0)];
    if (low === high) [low, high] = [low - (Math.abs(low) / 10 || 1), high + (Math.abs(high) / 10 || 1)];
    if (from > to) { // the vertical axis has room above and, unless it starts from zero, below
      const room = (high - low) * 0.06;
      if (high !== 0 || !axis.from_zero) high += room;
      if (low !== 0 || !axis.from_zero) low -= room;
    }
    const at = (value) => from + (((log ? Math.log10(value) : value) - low) / (high - low)) * (to - from);
    const ticks = log ? decades(low, high) : steps(low, high, wanted);
    return { at, ticks };
  }

  /** Multiples of 1, 2 or 5 times a power of ten. */
  function steps(low, high, wanted) {
    const rough = (high - low) / wanted;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * ([1, 2, 5].find((m) => m * power >= rough) ?? 10);
    const ticks = [];
    const last = Math.min(Math.floor(high / step + 1e-9), Math.ceil(low / step) + 50);
    for (let i = Math.ceil(low / step - 1e-9); i <= last; i++) ticks.push(i * step);
    return ticks;
  }

  /** Powers of ten; with 2 and 5 between them where there are few, every nth where there are many. */
  function decades(low, high) {
    const between = high - low < 2.5 ? [1, 2, 5] : [1];
    const every = Math.max(1, Math.ceil((high - low) / 6));
    const ticks = [];
    for (let p = Math.floor(low); p <= high; p += every) ticks.push(...between.map((m) => m * 10 ** p));
    return ticks.filter((v) => Math.log10(v) >= low && Math.log10(v) <= high);
  }

  // Drawing

  /** Lines through neighbours, dots where a value stands alone or every value counts. */
  function curve(series, x, y) {
    const group = make("svg:g", { class: `${series.style} s${series.colour % 8}` });
    const known = (i) => finite(series.x[i]) && finite(series.y[i]);
    let path = "";
    const dots = [];
    for (let i = 0; i < series.x.length; i++) {
      if (!known(i)) continue;
      const [px, py] = [x(series.x[i]).toFixed(1), y(series.y[i]).toFixed(1)];
      path += `${known(i - 1) ? "L" : "M"}${px} ${py}`;
      const alone = !known(i - 1) && !known(i + 1);
      if (series.style === "points" || alone) dots.push(make("svg:circle", { cx: px, cy: py, r: 3.6 }));
    }
    group.append(make("svg:path", { d: path }), ...dots);
    return group;
  }

  function swatch(series) {
    const look = `swatch ${series.style} s${series.colour % 8}`;
    const icon = make("svg:svg", { class: look, viewBox: "0 0 22 12", "aria-hidden": "true" });
    icon.append(make("svg:path", { d: "M2 6H20" }));
    if (series.style === "points") icon.append(make("svg:circle", { cx: 11, cy: 6, r: 3.6 }));
    return icon;
  }

  /** A sentence a series: what a reader hears instead of the curve. */
  function describe(chart) {
    const sentences = chart.series.map((series) => {
      const values = series.y.filter(finite);
      if (values.length === 0) return `${series.name}: no values.`;
      const least = values.reduce((a, b) => Math.min(a, b));
      const most = values.reduce((a, b) => Math.max(a, b));
      const [first, last, low, high] = [values[0], values.at(-1), least, most].map(exact);
      return `${series.name}: from ${first} to ${last}, lowest ${low}, highest ${high}.`;
    });
    return [chart.description, ...sentences].join(" ");
  }

  /** Draws axes and curves; returns where x lies and the layer for the read-out's marks. */
  function draw(plot, chart, shown) {
    const [width, height] = [Math.max(plot.clientWidth, 120), Math.max(plot.clientHeight, 100)];
    const known = (series, i) => finite(series.x[i]) && finite(series.y[i]);
    const column = (key) => shown.flatMap((series) => series[key].filter((_, i) => known(series, i)));
    const top = 24, bottom = height - 38;
    const y = scale(chart.y, column("y"), bottom, top, height / 50);
    const left = 12 + 7 * Math.max(2, ...y.ticks.map((t) => short(t).length));
    const right = width - 14;
    const x = scale(chart.x, column("x"), left, right, width / 110);
    const [title, desc] = [`${chart.id}-title`, `${chart.id}-desc`];
    const svg = make("svg:svg", { role: "img", viewBox: `0 0 ${width} ${height}` });
    svg.setAttribute("aria-labelledby", `${title} ${desc}`);
    svg.append(make("svg:title", { id: title }, chart.title), make("svg:desc", { id: desc }, describe(chart)));
    const line = (look, x1, y1, x2, y2) => svg.append(make("svg:line", { class: look, x1, y1, x2, y2 }));
    const text = (x, y, anchor, words) => svg.append(make("svg:text", { x, y, "text-anchor": anchor }, words));
    for (const tick of y.ticks) {
      line("grid", left, y.at(tick), right, y.at(tick));
      text(left - 8, y.at(tick) + 4, "end", short(tick));
    }
    line("axis", left, bottom, right, bottom);
    for (const tick of x.ticks) {
      line("axis", x.at(tick), bottom, x.at(tick), bottom + 4);
      text(x.at(tick), bottom + 18, "middle", short(tick));
    }
    text(0, 12, "start", chart.y.label);
    text(right, bottom + 34, "end", chart.x.label);
    if (column("y").length === 0) text((left + right) / 2, (top + bottom) / 2, "middle", "No values to draw");
    const marks = make("svg:g");
    svg.append(...shown.map((series) => curve(series, x.at, y.at)), marks);
    plot.querySelector(":scope > svg")?.remove();
    plot.prepend(svg);
    return { x: x.at, y: y.at, top, bottom, width, marks };
  }

  // Read-out

  /** Index of the value of sorted `values` nearest to `wanted`. */
  function nearest(values, wanted) {
    let low = 0, high = values.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (values[middle] < wanted) low = middle + 1;
      else high = middle;
    }
    return low > 0 && wanted - values[low - 1] <= values[low] - wanted ? low - 1 : low;
  }

  /** Shows what every series has at, or within a few pixels of, `at`. */
  function show(readout, chart, shown, view, at) {
    const [axis, rows, dots] = [chart.x, [], []];
    for (const series of shown) {
      const i = nearest(series.x, at);
      const px = view.x(series.x[i]);
      if (!(Math.abs(px - view.x(at)) <= 6)) continue;
      const known = finite(series.y[i]);
      const value = make("b", {}, known ? exact(series.y[i]) : "no value");
      rows.push(make("div", { class: "row" }, swatch(series), series.name, value));
      const look = `s${series.colour % 8}`;
      if (known) dots.push(make("svg:circle", { class: look, cx: px, cy: view.y(series.y[i]), r: 4.5 }));
    }
    const also = axis.also ? ` · ${axis.also.label} ${exact(Math.round(at / axis.also.divide))}` : "";
    const px = view.x(at);
    const hair = make("svg:line", { class: "hair", x1: px, x2: px, y1: view.top, y2: view.bottom });
    view.marks.replaceChildren(hair, ...dots);
    readout.replaceChildren(make("div", { class: "at" }, `${exact(at)} ${axis.label}${also}`), ...rows);
    readout.hidden = false;
    const beside = px + 14 + readout.offsetWidth <= view.width ? px + 14 : px - 14 - readout.offsetWidth;
    readout.style.left = `${Math.max(0, beside)}px`;
  }

  // A chart in its figure

  function start(chart) {
    const figure = document.getElementById(chart.id);
    const plot = figure?.querySelector(".plot");
    if (!plot) return;
    const hidden = new Set();
    const readout = make("div", { class: "readout", hidden: "" });
    plot.replaceChildren(readout);
    plot.setAttribute("tabindex", "0");
    plot.setAttribute("role", "group");
    plot.setAttribute("aria-label", `${chart.title}; left and right arrow keys read values`);
    let shown, places, view, at;
    const redraw = () => {
      shown = chart.series.filter((series) => !hidden.has(series));
      places = [...new Set(shown.flatMap((series) => series.x))].sort((a, b) => a - b);
      view = draw(plot, chart, shown);
      leave();
    };
    const leave = () => {
      at = undefined;
      readout.hidden = true;
      view.marks.replaceChildren();
    };
    const move = (index, spoken) => {
      if (places.length === 0) return;
      at = Math.min(Math.max(index, 0), places.length - 1);
      readout.setAttribute("aria-live", spoken);
      show(readout, chart, shown, view, places[at]);
    };
    const point = (event) => {
      const px = event.clientX - plot.getBoundingClientRect().left;
      move(nearest(places.map(view.x), px), "off");
    };
    plot.addEventListener("pointermove", point);
    plot.addEventListener("pointerdown", point);
    // A finger lifted off leaves the read-out standing; the next tap elsewhere takes it away.
    plot.addEventListener("pointerleave", (event) => event.pointerType === "touch" || leave());
    plot.addEventListener("blur", leave);
    plot.addEventListener("keydown", (event) => {
      const far = event.shiftKey ? 10 : 1;
      const [back, on] = [(at ?? places.length) - far, (at ?? -1) + far];
      const to = { ArrowLeft: back, ArrowRight: on, Home: 0, End: places.length - 1 }[event.key];
      if (event.key === "Escape") leave();
      if (to === undefined) return;
      event.preventDefault();
      move(to, "polite");
    });
    if (chart.series.length > 1) plot.before(legend(chart, hidden, redraw));
    new ResizeObserver(redraw).observe(plot);
    redraw();
  }

  function legend(chart, hidden, redraw) {
    const box = make("div", { class: "legend", role: "group", "aria-label": `Series of ${chart.title}` });
    for (const series of chart.series) {
      const button = make("button", { type: "button", "aria-pressed": "true" }, swatch(series), series.name);
      button.addEventListener("click", () => {
        if (!hidden.delete(series)) hidden.add(series);
        button.setAttribute("aria-pressed", String(!hidden.has(series)));
        redraw();
      });
      box.append(button);
    }
    return box;
  }

  JSON.parse(document.getElementById("charts").textContent).forEach(start);
})();
