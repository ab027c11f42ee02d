// Charts for reports: draws each chart of the JSON in #charts into the .plot of its figure, as SVG, with
// a legend that hides and shows series and a read-out for pointer, touch and arrow keys.
//
// Chart: { id, title, description, x: Axis, y: Axis, series: [Series], legend? }
// Series: { name, style, colour, x: [], y: [], group?, range?: { low: [], high: [] } }
// Axis:  { label, scale: "linear" | "log" | "auto", from_zero, numbered, also: null | { label, divide | table } }
// Style: "line", "dashed", "faint" (a thin line) or "points" (rings on a dotted line); null in y is a gap.
// `also` names a second reading of x: x / divide, or in a table { at, values } the value of the last place
// not beyond x. "auto" is "log" over more than two decades. Charts with one `legend`, the id of an element,
// share the buttons in it; a `group` of series has one button. A `range` is a band around its curve.
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

  /** For ticks that are not round: 98.3k. */
  const rough = (value) => short(+value.toPrecision(3));

  /** For read-outs: 51,200; 2.3456; 1.250e-4. */
  function exact(value) {
    if (Number.isInteger(value)) return value.toLocaleString("en");
    const size = Math.abs(value);
    if (size < 1e-3 || size >= 1e15) return value.toExponential(3).replace("e+", "e");
    return size >= 1000 ? Math.round(value).toLocaleString("en") : value.toPrecision(5);
  }

  // Scales

  /** Where values of an axis lie between `from` and `to` pixels, and its ticks, at least `least` apart. */
  function scale(axis, values, from, to, wanted, least = 0) {
    let low = Infinity, high = -Infinity;
    for (const value of values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    if (low > high) [low, high] = [0, 1];
    const log = low > 0 && (axis.scale === "log" || (axis.scale === "auto" && high / low > 100));
    if (log) [low, high] = [Math.log10(low), Math.log10(high)];
    if (!log && axis.from_zero) [low, high] = [Math.min(low, 0), Math.max(high, 0)];
    if (low === high && low === 0 && axis.from_zero) high = 1;
    if (low === high) [low, high] = [low - (Math.abs(low) / 10 || 1), high + (Math.abs(high) / 10 || 1)];
    if (from > to) { // the vertical axis has room above and, unless it starts from zero, below
      const room = (high - low) * 0.06;
      if (high !== 0 || !axis.from_zero) high += room;
      if (low !== 0 || !axis.from_zero) low -= room;
    }
    const at = (value) => from + (((log ? Math.log10(value) : value) - low) / (high - low)) * (to - from);
    const ticks = log ? decades(low, high) : steps(low, high, wanted, least);
    return { at, ticks };
  }

  /** Multiples of 1, 2 or 5 times a power of ten. */
  function steps(low, high, wanted, least) {
    const rough = Math.max((high - low) / wanted, least);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * ([1, 2, 5].find((m) => m * power >= rough) ?? 10);
    const ticks = [];
    const last = Math.min(Math.floor(high / step + 1e-9), Math.ceil(low / step) + 50);
    for (let i = Math.ceil(low / step - 1e-9); i <= last; i++) ticks.push(i * step);
    return ticks;
  }

  /** The second reading of a place, if there is one. */
  function second(also, at) {
    if (!also) return undefined;
    if (!also.table) return Math.round(at / also.divide);
    return also.table.values[also.table.at.findLastIndex((place) => place <= at)];
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
    const group = make("svg:g", { class: look(series) });
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
    if (series.range) group.append(...bands(series, known, x, y));
    group.append(make("svg:path", { d: path }), ...dots);
    return group;
  }

  /** Areas between lowest and highest, one for each stretch without a gap. */
  function bands({ x: places, range }, known, x, y) {
    const areas = [];
    for (let i = 0; i < places.length; i++) {
      if (!known(i)) continue;
      const start = i;
      while (known(i + 1)) i++;
      const edge = (values) => places.slice(start, i + 1)
        .map((place, j) => `${x(place).toFixed(1)} ${y(values[start + j]).toFixed(1)}`);
      const around = [...edge(range.high), ...edge(range.low).reverse()];
      areas.push(make("svg:path", { class: "band", d: `M${around.join("L")}Z` }));
    }
    return areas;
  }

  const look = (series) => `${series.style} s${series.colour}`;
  const groupOf = (series) => series.group ?? series.name;

  function swatch(series) {
    const icon = make("svg:svg", { class: `swatch ${look(series)}`, viewBox: "0 0 22 12", "aria-hidden": "true" });
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
    const some = (values, series) => values.filter((_, i) => known(series, i));
    const column = (key) => shown.flatMap((series) => some(series[key], series));
    const ranges = shown.filter((series) => series.range)
      .flatMap((series) => [...some(series.range.low, series), ...some(series.range.high, series)]);
    const table = chart.x.also?.table;
    const top = 24, bottom = height - (table ? 52 : 38);
    const y = scale(chart.y, column("y").concat(ranges), bottom, top, height / 50);
    const left = 12 + 7 * Math.max(2, ...y.ticks.map((t) => short(t).length));
    const right = width - 14;
    const x = scale(chart.x, column("x"), left, right, width / 110, chart.x.numbered ? 1 : 0);
    const [title, desc] = [`${chart.id}-title`, `${chart.id}-desc`];
    const svg = make("svg:svg", { role: "img", viewBox: `0 0 ${width} ${height}` });
    if (chart.series.length > 6) svg.classList.add("many");
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
      const other = table && second(chart.x.also, tick);
      if (other !== undefined) text(x.at(tick), bottom + 33, "middle", rough(other));
    }
    text(0, 12, "start", chart.y.label);
    const under = table ? `${chart.x.label}; below: ${chart.x.also.label}` : chart.x.label;
    text(right, bottom + (table ? 49 : 34), "end", under);
    if (column("y").length === 0) text((left + right) / 2, (top + bottom) / 2, "middle", "No values to draw");
    const marks = make("svg:g");
    svg.append(...shown.map((series) => curve(series, x.at, y.at)), marks);
    plot.querySelector(":scope > svg")?.remove();
    plot.prepend(svg);
    return { x: x.at, y: y.at, top, bottom, width, marks };
  }

  // Read-out

  /** Series that a read-out lists. */
  const MOST_ROWS = 16;

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
    const [axis, found, dots] = [chart.x, [], []];
    for (const series of shown) {
      const i = nearest(series.x, at);
      const px = view.x(series.x[i]);
      if (!(Math.abs(px - view.x(at)) <= 6)) continue;
      const [value, { low, high } = {}] = [series.y[i], series.range];
      const known = finite(value);
      const words = known ? exact(value) + (low ? ` (${exact(low[i])} to ${exact(high[i])})` : "") : "no value";
      found.push({ value: known ? value : -Infinity, series, words });
      const [look, r] = [`s${series.colour}`, chart.series.length > 6 ? 3.5 : 4.5];
      if (known) dots.push(make("svg:circle", { class: look, cx: px, cy: view.y(value), r }));
    }
    // Few keep their order, many stand from the highest down, and not all of very many fit.
    if (found.length > 6) found.sort((a, b) => b.value - a.value);
    const rows = found.slice(0, MOST_ROWS).map(({ series, words }) =>
      make("div", { class: "row" }, swatch(series), series.name, make("b", {}, words)));
    if (found.length > MOST_ROWS) rows.push(make("div", { class: "at" }, `and ${found.length - MOST_ROWS} lower`));
    const other = second(axis.also, at);
    const also = other === undefined ? "" : ` · ${axis.also.label} ${exact(other)}`;
    const px = view.x(at);
    const hair = make("svg:line", { class: "hair", x1: px, x2: px, y1: view.top, y2: view.bottom });
    view.marks.replaceChildren(hair, ...dots);
    const place = axis.numbered ? `${axis.label} ${exact(at)}` : `${exact(at)} ${axis.label}`;
    readout.replaceChildren(make("div", { class: "at" }, `${place}${also}`), ...rows);
    readout.classList.toggle("tall", rows.length > 6);
    readout.hidden = false;
    const beside = px + 14 + readout.offsetWidth <= view.width ? px + 14 : px - 14 - readout.offsetWidth;
    readout.style.left = `${Math.max(0, beside)}px`;
  }

  // A chart in its figure

  /** What is hidden, and what draws anew when that changes; shared by charts of one legend. */
  const shared = new Map();

  function start(chart) {
    const figure = document.getElementById(chart.id);
    const plot = figure?.querySelector(".plot");
    if (!plot) return;
    const family = shared.get(chart.legend) ?? { hidden: new Set(), redraws: [], groups: new Set() };
    const { hidden } = family;
    const readout = make("div", { class: "readout", hidden: "" });
    plot.replaceChildren(readout);
    plot.setAttribute("tabindex", "0");
    plot.setAttribute("role", "group");
    plot.setAttribute("aria-label", `${chart.title}; left and right arrow keys read values`);
    let shown, places, view, at;
    const redraw = () => {
      shown = chart.series.filter((series) => !hidden.has(groupOf(series)));
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
    family.redraws.push(redraw);
    const box = chart.legend && document.getElementById(chart.legend);
    if (box) {
      shared.set(chart.legend, family);
      box.append(...buttons(chart, family));
    } else if (chart.series.length > 1) {
      const own = make("div", { class: "legend", role: "group", "aria-label": `Series of ${chart.title}` });
      own.append(...buttons(chart, family));
      plot.before(own);
    }
    new ResizeObserver(redraw).observe(plot);
    redraw();
  }

  /** A button for each group of series that has none yet. */
  function buttons(chart, { hidden, redraws, groups }) {
    const fresh = chart.series.filter((series) => !groups.has(groupOf(series)) && groups.add(groupOf(series)));
    return fresh.map((series) => {
      const name = groupOf(series);
      const button = make("button", { type: "button", "aria-pressed": "true" }, swatch(series), name);
      button.addEventListener("click", () => {
        if (!hidden.delete(name)) hidden.add(name);
        button.setAttribute("aria-pressed", String(!hidden.has(name)));
        redraws.forEach((redraw) => redraw());
      });
      return button;
    });
  }

  JSON.parse(document.getElementById("charts").textContent).forEach(start);
})();
