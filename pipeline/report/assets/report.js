// Draws the charts of a report with BokehJS from the JSON beside it, each when it comes near the window. The point under
// the cursor, or under the slider below a chart, has a card with its name, numbers and cells. Texts from data
// become text nodes or canvas text, never markup.
(() => {
  "use strict";
  const SVG = "http://www.w3.org/2000/svg";
  const WIDE = 12; // the reach of the cursor, in pixels
  const COLOURS = {
    light: ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B07D00", "#3A9BD9", "#222222", "#8C6D1F"],
    dark: ["#56B4E9", "#F08A4B", "#2FC79A", "#E3A0C8", "#E6B422", "#8FCBF0", "#E8E8E8", "#CBB26A"],
  };
  const DASHES = [[], [6, 3], [2, 3], [8, 3, 2, 3]];
  const data = JSON.parse(document.getElementById("data").textContent);
  const card = document.getElementById("card");
  const darkness = window.matchMedia("(prefers-color-scheme: dark)");
  const drawn = [];
  Bokeh.set_log_level("error");

  // --- points

  const decoded = (packed) => {
    const bytes = Uint8Array.from(atob(packed.data), (c) => c.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const read = packed.type === "i4" ? (i) => view.getInt32(4 * i, true) : (i) => view.getFloat32(4 * i, true);
    return Float64Array.from({length: bytes.length / 4}, (_, i) => read(i));
  };
  const columns = {};
  const column = (set, name) => {
    const key = JSON.stringify([set, name]);
    columns[key] ??= decoded(data.sets[set].columns[name]);
    return columns[key];
  };
  const number = (value) => {
    if (Number.isNaN(value)) return "unknown";
    if (!Number.isFinite(value)) return value > 0 ? "infinite" : "−infinite";
    if (Number.isInteger(value)) return value.toLocaleString("en");
    const size = Math.abs(value);
    return size >= 1e6 || size < 1e-4 ? value.toExponential(3) : String(Number(value.toPrecision(5)));
  };
  const numbers = (set, i) =>
    Object.entries(data.sets[set].shown).map(([name, text]) => [text, number(column(set, name)[i])]);

  // --- the card

  const element = (name, attributes = {}, text = null, space = null) => {
    const made = space ? document.createElementNS(space, name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== null) made.textContent = text;
    return made;
  };
  const palette = () => COLOURS[darkness.matches ? "dark" : "light"];
  const colourOf = (words, word) => palette()[words.indexOf(word) % palette().length];

  // Nodes from top to bottom, edges as arcs on their left, a colour for each operation.
  const cell = (name, nodes, edges, operations) => {
    const step = 22, reach = Math.max(1, ...edges.map(([a, b]) => b - a));
    const x = 10 + 14 * (reach - 1), height = step * nodes.length;
    const width = x + 16 + 7 * Math.max(...nodes.map((node) => node.length));
    const figure = element("figure");
    figure.append(element("figcaption", {}, name));
    const svg = element("svg", {viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true"}, null, SVG);
    const y = (i) => step * (i + 0.5);
    for (const [a, b, operation] of edges) {
      const bend = x - 18.7 * (b - a - 1);
      const path = `M${x} ${y(a)}C${bend} ${y(a)} ${bend} ${y(b)} ${x} ${y(b)}`;
      const stroke = operation === "" ? "var(--faint)" : colourOf(operations, operation);
      svg.append(element("path", {d: path, fill: "none", stroke, "stroke-width": 2}, null, SVG));
    }
    nodes.forEach((node, i) => {
      const fill = operations.includes(node) ? colourOf(operations, node) : "var(--ink)";
      svg.append(element("circle", {cx: x, cy: y(i), r: 4, fill}, null, SVG));
      const text = element("text", {x: x + 10, y: y(i) + 4, "font-size": 12, fill: "var(--ink)"}, null, SVG);
      const parts = /^(.+)_\{(.+)\}$/.exec(node);
      text.textContent = parts ? parts[1] : node;
      if (parts) text.append(element("tspan", {dy: 3, "font-size": 9}, parts[2], SVG));
      svg.append(text);
    });
    figure.append(svg);
    return figure;
  };
  const cells = (set, i) => {
    const {cells: rows, structures, words} = data.sets[set];
    if (!rows || !rows[i]) return null;
    const [structure, ...row] = rows[i];
    const graphs = structures[structure].map(([name, size, pairs]) => {
      const nodes = row.splice(0, size).map((word) => words[word]);
      const edges = pairs.map(([a, b]) => [a, b, words[row.shift()]]);
      return {name, nodes, edges};
    });
    const onEdges = graphs.flatMap(({edges}) => edges.map((edge) => edge[2])).filter((word) => word !== "");
    const onNodes = graphs.flatMap(({nodes}) => nodes.slice(1, -1));
    const operations = [...new Set(onEdges.length ? onEdges : onNodes)].sort();
    const box = element("div", {class: "cells"});
    for (const {name, nodes, edges} of graphs) box.append(cell(name, nodes, edges, operations));
    const legend = element("ul", {class: "legend"});
    for (const operation of onEdges.length ? operations : []) {
      legend.append(entry(operation, colourOf(operations, operation)));
    }
    const whole = element("div");
    whole.append(box, legend);
    return whole;
  };
  const entry = (text, colour, dash = []) => {
    const item = element("li");
    const mark = element("svg", {width: 22, height: 10, "aria-hidden": "true"}, null, SVG);
    const stroke = {x1: 0, x2: 22, y1: 5, y2: 5, stroke: colour, "stroke-width": 3};
    mark.append(element("line", dash.length ? {...stroke, "stroke-dasharray": dash.join(" ")} : stroke, null, SVG));
    item.append(mark, element("span", {}, text));
    return item;
  };
  const described = (set, i) => [data.sets[set].names[i], ...numbers(set, i).map((pair) => pair.join(" "))].join(", ");
  const showCard = (set, i, x, y) => {
    const table = element("table");
    for (const [name, value] of numbers(set, i)) {
      const row = element("tr");
      row.append(element("th", {scope: "row"}, name), element("td", {}, value));
      table.append(row);
    }
    const drawing = cells(set, i);
    card.replaceChildren(element("p", {class: "name"}, data.sets[set].names[i]), ...(drawing ? [drawing] : []), table);
    card.hidden = false;
    const {width, height} = card.getBoundingClientRect();
    const {clientWidth, clientHeight} = document.documentElement;
    const beside = x + 16 + width <= clientWidth ? x + 16 : x - 16 - width;
    card.style.left = `${Math.max(4, Math.min(beside, clientWidth - width - 4))}px`;
    card.style.top = `${Math.max(4, Math.min(y + 16, clientHeight - height - 4))}px`;
  };

  // --- charts

  const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const logarithmic = (axis, value) => !axis.log || value > 0;
  // The ends of viridis would vanish on white or on black.
  const shades = () => {
    const all = Bokeh.Palettes.Viridis256;
    return darkness.matches ? all.slice(50) : all.slice(0, 226);
  };
  const limits = (axis, values) => {
    if (axis.reach) return axis.reach;
    let low = Infinity, high = -Infinity;
    for (const value of values) {
      if (Number.isFinite(value) && logarithmic(axis, value)) {
        low = Math.min(low, value);
        high = Math.max(high, value);
      }
    }
    return low < high ? [low, high] : [low - 0.5, high + 0.5];
  };

  class Chart {
    constructor(place) {
      this.place = place;
      this.spec = data.charts[Number(place.dataset.chart)];
      const {set, x, y} = this.spec;
      this.x = column(set, x.column);
      this.y = column(set, y.column);
      this.visible = [];
      for (let i = 0; i < this.x.length; i++) {
        const known = Number.isFinite(this.x[i]) && Number.isFinite(this.y[i]);
        if (known && logarithmic(x, this.x[i]) && logarithmic(y, this.y[i])) this.visible.push(i);
      }
      this.figure = Bokeh.Plotting.figure({
        sizing_mode: "stretch_width", height: 330, min_width: 200, tools: "pan,box_zoom,wheel_zoom,reset,save",
        toolbar_location: "above", x_axis_type: x.log ? "log" : "linear", y_axis_type: y.log ? "log" : "linear",
        x_axis_label: x.label, y_axis_label: y.label,
        ...(x.reach ? {x_range: new Bokeh.Range1d({start: x.reach[0], end: x.reach[1]})} : {}),
        ...(y.reach ? {y_range: new Bokeh.Range1d({start: y.reach[0], end: y.reach[1]})} : {}),
      });
      this.figure.toolbar.logo = null;
      // A finger scrolls the page; a mouse draws the zoom box.
      const drag = this.figure.toolbar.tools.find((tool) => tool.type === "BoxZoomTool");
      this.figure.toolbar.active_drag = window.matchMedia("(pointer: coarse)").matches ? null : drag;
      this.figure.toolbar.active_scroll = null;
      for (const [axes, values] of [[this.figure.below, this.x], [this.figure.left, this.y]]) {
        const large = values.every(Number.isInteger) && values.some((value) => value >= 1e4);
        if (large) axes.forEach((axis) => axis.setv({formatter: new Bokeh.NumeralTickFormatter({format: "0.[00]a"})}));
      }
      this.inked = []; // glyphs with their properties that take a colour of the theme
      this.surface();
      this.lines();
      this.dots();
      this.front();
      this.mark = new Bokeh.ColumnDataSource({data: {x: [], y: []}});
      const marked = this.figure.scatter({field: "x"}, {field: "y"}, {source: this.mark, size: 11, fill_alpha: 0, line_width: 2.5});
      this.inked.push(() => this.paint(marked, {line_color: variable("--ink")}));
      this.colour();
      this.slider();
      this.figure.on_event("mousemove", (event) => this.hover(event.sx, event.sy));
      this.figure.on_event("tap", (event) => this.hover(event.sx, event.sy));
      this.figure.on_event("mouseleave", () => this.leave());
    }

    async show() {
      this.view = await Bokeh.Plotting.show(this.figure, this.place);
      this.place.dataset.drawn = "yes";
    }

    paint(renderer, values) {
      renderer.glyph.setv(values);
    }

    mapper(values) {
      const {colour} = this.spec;
      const [low, high] = limits(colour, values);
      const kind = colour.log ? Bokeh.LogColorMapper : Bokeh.LinearColorMapper;
      return new kind({palette: shades(), low, high, nan_color: variable("--faint")});
    }

    dots() {
      const {set, colour, rings, numbered} = this.spec;
      if (!this.spec.dots) return;
      const at = (indices, values) => Array.from(indices, (i) => values[i]);
      const many = this.visible.length > 3000;
      const source = {x: at(this.visible, this.x), y: at(this.visible, this.y)};
      const style = {size: many ? 3 : 7, fill_alpha: many ? 0.6 : 0.85, line_color: null};
      if (colour) {
        const values = column(set, colour.column);
        this.shade = this.shade ?? this.mapper(values);
        source.c = at(this.visible, values);
        const options = {...style, source: new Bokeh.ColumnDataSource({data: source})};
        const dots = this.figure.scatter({field: "x"}, {field: "y"}, {...options, fill_color: {field: "c", transform: this.shade}});
        if (numbered) this.inked.push(() => this.paint(dots, {line_color: variable("--ink"), size: 10}));
        this.bar = new Bokeh.ColorBar({color_mapper: this.shade, width: 10, title: colour.label, background_fill_alpha: 0});
        this.figure.add_layout(this.bar, "right");
      } else {
        const dots = this.figure.scatter({field: "x"}, {field: "y"}, {...style, source: new Bokeh.ColumnDataSource({data: source})});
        this.inked.push(() => this.paint(dots, {fill_color: palette()[0]}));
      }
      if (rings.length) {
        const ringed = rings.filter((i) => this.visible.includes(i));
        const options = {size: 9, fill_alpha: 0, line_width: 2};
        const around = this.figure.scatter(at(ringed, this.x), at(ringed, this.y), options);
        this.inked.push(() => this.paint(around, {line_color: palette()[1]}));
      }
      if (numbered) {
        const text = this.visible.map((i) => number(column(set, numbered)[i]));
        const options = {x_offset: 8, y_offset: -4, text_font_size: "12px"};
        const labels = this.figure.text(source.x, source.y, text, options);
        this.inked.push(() => this.paint(labels, {text_color: variable("--ink")}));
      }
    }

    lines() {
      const {set, lines} = this.spec;
      this.entries = lines.map((line, k) => {
        const dash = DASHES[Math.floor(k / palette().length) % DASHES.length];
        const between = (values) => Array.from(values.slice(line.first, line.last));
        const [x, y] = [between(this.x), between(line.column ? column(set, line.column) : this.y)];
        if (line.low) {
          const [low, high] = [Array.from(decoded(line.low)), Array.from(decoded(line.high))];
          const band = this.figure.varea(x, low, high, {fill_alpha: 0.15});
          this.inked.push(() => this.paint(band, {fill_color: palette()[k % palette().length]}));
        }
        const options = {line_width: 2, line_dash: dash};
        const path = line.step ? this.figure.step(x, y, "after", options) : this.figure.line(x, y, options);
        this.inked.push(() => this.paint(path, {line_color: palette()[k % palette().length]}));
        return [line.name, k, dash];
      });
      if (this.spec.level) {
        const {name, y} = this.spec.level;
        const span = new Bokeh.Span({dimension: "width", location: y, line_dash: [4, 4], line_width: 1.5});
        this.figure.add_layout(span);
        this.inked.push(() => span.setv({line_color: variable("--faint")}));
        this.entries.push([name, null, [4, 4]]);
      }
      this.legend = element("ul", {class: "legend"});
      this.place.after(this.legend);
    }

    surface() {
      if (!this.spec.surface) return;
      const {rows, columns: across, values, x, y} = this.spec.surface;
      const found = decoded(values);
      const reach = limits({log: false}, [...found, ...column(this.spec.set, this.spec.colour.column)]);
      this.spec.colour.reach = reach;
      this.shade = this.mapper(found);
      const place = ([low, high], i, n) => low + ((high - low) * i) / (n - 1);
      const source = {x: [], y: [], c: []};
      for (let i = 0; i < rows * across; i++) {
        source.x.push(place(x, i % across, across));
        source.y.push(place(y, Math.floor(i / across), rows));
        source.c.push(found[i]);
      }
      // Slightly wider than their spacing, to leave no gaps.
      const [width, height] = [(1.04 * (x[1] - x[0])) / (across - 1), (1.04 * (y[1] - y[0])) / (rows - 1)];
      const options = {source: new Bokeh.ColumnDataSource({data: source}), line_color: null};
      this.figure.rect({field: "x"}, {field: "y"}, width, height, {...options, fill_color: {field: "c", transform: this.shade}});
    }

    front() {
      if (!this.spec.front) return;
      const {x, y} = this.spec.front;
      const order = x.map((_, i) => i).sort((a, b) => x[a] - x[b]);
      const [xs, ys] = [order.map((i) => x[i]), order.map((i) => y[i])];
      const line = this.figure.step(xs, ys, "after", {line_width: 2});
      this.inked.push(() => this.paint(line, {line_color: palette()[1]}));
    }

    colour() {
      const [ink, faint, grid, paper] = ["--ink", "--faint", "--grid", "--paper"].map(variable);
      this.figure.setv({
        background_fill_color: paper, border_fill_color: paper, outline_line_color: grid,
      });
      for (const axis of [...this.figure.below, ...this.figure.left]) {
        axis.setv({
          axis_label_text_color: ink, major_label_text_color: ink, axis_line_color: faint, major_tick_line_color: faint,
          minor_tick_line_color: null, axis_label_text_font_style: "normal", axis_label_text_font_size: "13px",
          major_label_text_font_size: "12px",
        });
      }
      for (const one of this.figure.center) {
        if (one.type === "Grid") one.setv({grid_line_color: grid});
      }
      if (this.shade) this.shade.setv({palette: shades(), nan_color: faint});
      if (this.bar) this.bar.setv({title_text_color: ink, major_label_text_color: ink, title_text_font_style: "normal"});
      for (const painted of this.inked) painted();
      const colours = palette();
      this.legend.replaceChildren(
        ...this.entries.map(([name, k, dash]) => entry(name, k === null ? faint : colours[k % colours.length], dash)),
      );
    }

    // The slider goes through the points from left to right, for keyboards and screen readers.
    slider() {
      if (!this.visible.length) return;
      const order = this.spec.lines.length ? this.visible : [...this.visible].sort((a, b) => this.x[a] - this.x[b]);
      const title = document.getElementById(this.place.parentElement.getAttribute("aria-labelledby")).textContent;
      const label = `Go through the points of ${title}`;
      const input = element("input", {type: "range", min: 0, max: order.length - 1, value: 0, "aria-label": label});
      const announce = () => input.setAttribute("aria-valuetext", described(this.spec.set, order[input.value]));
      input.addEventListener("input", () => {
        announce();
        this.select(order[input.value]);
      });
      input.addEventListener("blur", () => this.leave());
      announce();
      this.legend.after(input);
    }

    screen(i) {
      const {x_scale, y_scale} = this.view.frame;
      return [x_scale.compute(this.x[i]), y_scale.compute(this.y[i])];
    }

    select(i) {
      const box = this.place.getBoundingClientRect();
      const [sx, sy] = this.screen(i);
      this.mark.data = {x: [this.x[i]], y: [this.y[i]]};
      showCard(this.spec.set, i, box.left + sx, box.top + sy);
    }

    hover(sx, sy) {
      const {bbox} = this.view.frame;
      let best = -1, least = WIDE * WIDE;
      for (const i of this.visible) {
        const [x, y] = this.screen(i);
        const distance = (x - sx) ** 2 + (y - sy) ** 2;
        const inside = x >= bbox.left && x <= bbox.right && y >= bbox.top && y <= bbox.bottom;
        if (distance < least && inside) [best, least] = [i, distance];
      }
      if (best < 0) this.leave();
      else this.select(best);
    }

    leave() {
      card.hidden = true;
      this.mark.data = {x: [], y: []};
    }
  }

  const draw = (place) => {
    if (place.dataset.begun) return;
    place.dataset.begun = "yes";
    const chart = new Chart(place);
    drawn.push(chart);
    chart.show();
  };
  const places = document.querySelectorAll("[data-chart]");
  const near = new IntersectionObserver(
    (entries) => entries.filter((one) => one.isIntersecting).forEach((one) => draw(one.target)),
    {rootMargin: "300px"},
  );
  places.forEach((place) => near.observe(place));
  window.addEventListener("beforeprint", () => places.forEach(draw));
  darkness.addEventListener("change", () => drawn.forEach((chart) => chart.colour()));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") drawn.forEach((chart) => chart.leave());
  });
})();
