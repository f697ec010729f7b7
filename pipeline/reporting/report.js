"use strict";
(() => {
  // Plotly wants colours as values, so the ones of the style sheet are read at each drawing: light, dark or paper.
  const palette = () => {
    const style = getComputedStyle(document.documentElement);
    return Object.fromEntries(["ink", "quiet", "line", "paper", "good", "bad", "good-soft"]
      .map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  };
  const ROLES = {
    chosen: (c) => ({ symbol: "star", size: 17, color: c.good }),
    baseline: (c) => ({ symbol: "diamond-open", size: 15, color: c.ink, line: { width: 2 } }),
    pass: (c) => ({ symbol: "circle", size: 10, color: c.quiet }),
    fail: (c) => ({ symbol: "x-thin", size: 9, color: c.bad, line: { width: 2.5, color: c.bad } }),
  };
  const FONT = 12;

  function paint(figure, group, width) {
    const c = palette();
    const narrow = width < 560;
    const axis = { gridcolor: c.line, linecolor: c.line, zeroline: false, automargin: true, fixedrange: true };
    const layout = {
      ...figure.layout,
      paper_bgcolor: c.paper, plot_bgcolor: c.paper, showlegend: false, dragmode: false,
      font: { family: getComputedStyle(document.body).fontFamily, size: FONT, color: c.quiet },
      margin: { l: narrow ? 44 : 60, r: narrow ? 12 : 24, t: 16, b: 48 },
      hoverlabel: { bgcolor: c.paper, bordercolor: c.line, font: { color: c.ink } },
      xaxis: { ...figure.layout.xaxis, ...axis, exponentformat: "none", minor: undefined },
      yaxis: { ...figure.layout.yaxis, ...axis, title: { ...figure.layout.yaxis?.title, standoff: 12 } },
      annotations: [], shapes: [],
    };
    // 1, 2, 5, 10 … in plain figures: plotly's own labels between decades are lone digits.
    if (layout.xaxis.type === "log") Object.assign(layout.xaxis, ticks(layout.xaxis.range, narrow));
    const reference = figure.layout.meta?.reference;
    if (reference !== undefined) {
      layout.shapes.push({
        type: "line", xref: "paper", x0: 0, x1: 1, y0: reference, y1: reference, layer: "below",
        line: { color: c.quiet, width: 1, dash: "dash" },
      });
    }
    const data = figure.data.map((original) => {
      const trace = { ...original, name: escape(original.name), meta: { ...original.meta, recipe: original.name } };
      const marker = ROLES[trace.meta.role](c);
      return group !== "distribution"
        ? { ...trace, marker }
        : { ...trace, line: { color: marker.color, width: 1.5 }, marker: { color: marker.color, size: 3, opacity: 0.6 } };
    });
    return { data, layout };
  }

  function ticks([low, high], narrow) {
    const values = [];
    for (let decade = Math.floor(low); decade <= Math.ceil(high); decade++) {
      for (const step of high - low > 2.5 || narrow ? [1, 3] : [1, 2, 5]) {
        const value = step * 10 ** decade;
        if (Math.log10(value) >= low && Math.log10(value) <= high) values.push(value);
      }
    }
    return { tickmode: "array", tickvals: values, ticktext: values.map((v) => `${+v.toPrecision(1)}`) };
  }

  // Names beside their points, each in the first place that covers no other name or point.
  function names(box, data) {
    const c = palette();
    const { xaxis, yaxis, _size: size } = box._fullLayout;
    const points = data.map((trace) => ({
      name: trace.meta.recipe, role: trace.meta.role, x: xaxis.d2p(trace.x[0]), y: yaxis.d2p(trace.y[0]), trace,
    }));
    const taken = points.map((p) => ({ left: p.x - 8, right: p.x + 8, top: p.y - 8, bottom: p.y + 8 }));
    const pen = document.createElement("canvas").getContext("2d");
    pen.font = `600 ${FONT}px ${getComputedStyle(document.body).fontFamily}`;
    const order = ["chosen", "baseline", "fail", "pass"];
    return points.sort((a, b) => order.indexOf(a.role) - order.indexOf(b.role)).map((p) => {
      const half = pen.measureText(p.name).width / 2 + 3;
      const tries = [16, 30, 46, 62, 80, 98].flatMap((d) =>
        [[0, -d], [half + 10, -d + 16], [-half - 10, -d + 16], [0, d], [half + 10, d - 16], [-half - 10, d - 16]]);
      const place = ([dx, dy]) => ({
        left: p.x + dx - half, right: p.x + dx + half, top: p.y + dy - 8, bottom: p.y + dy + 8, dx, dy,
      });
      const free = (b) => b.left >= -2 && b.right <= size.w + 2 && b.top >= 0 && b.bottom <= size.h
        && !taken.some((t) => b.left < t.right && b.right > t.left && b.top < t.bottom && b.bottom > t.top);
      const spot = tries.map(place).find(free) ?? place(tries[0]);
      taken.push(spot);
      const far = Math.hypot(spot.dx, spot.dy) > 22 && Math.abs(spot.dy) > 14;
      return {
        x: xaxis.type === "log" ? Math.log10(p.trace.x[0]) : p.trace.x[0], y: p.trace.y[0],
        ax: spot.dx, ay: spot.dy, text: escape(p.name), bgcolor: c.paper, borderpad: 0,
        showarrow: true, arrowhead: 0, arrowwidth: 1, arrowcolor: far ? c.line : "rgba(0,0,0,0)", standoff: 7,
        font: { size: FONT, color: p.role === "chosen" ? c.good : p.role === "fail" ? c.bad : c.ink },
      };
    });
  }

  // Plotly reads a little HTML in labels; a recipe's name is text.
  const escape = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  async function draw(figure) {
    const box = figure.querySelector(".plot");
    const group = figure.closest("section").dataset.group;
    const stored = JSON.parse(figure.querySelector("script").textContent);
    // One line per recipe, however many there are.
    if (group === "distribution") box.style.height = `${90 + 36 * stored.data.length}px`;
    const spec = paint(stored, group, box.clientWidth);
    await Plotly.react(box, spec.data, spec.layout, { displayModeBar: false, responsive: true, displaylogo: false });
    if (group === "tradeoff") {
      await Plotly.relayout(box, { annotations: names(box, spec.data) });
    }
    box.dataset.drawn = "yes";
  }

  const drawAll = () => Promise.all([...document.querySelectorAll(".plots figure:not([hidden])")].map(draw));

  document.querySelectorAll(".switch").forEach((group) => group.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    group.querySelectorAll("button").forEach((b) => b.setAttribute("aria-pressed", String(b === button)));
    group.parentElement.querySelectorAll("figure").forEach((f) => { f.hidden = f.dataset.plot !== button.dataset.plot; });
    drawAll();
  }));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  matchMedia("print").addEventListener("change", drawAll);
  let pending;
  addEventListener("resize", () => { clearTimeout(pending); pending = setTimeout(drawAll, 150); });
  drawAll();
})();
