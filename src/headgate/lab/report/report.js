"use strict";
/* Draws the charts of the report from the JSON on the page. Colours are the style sheet's custom properties,
   asked for at every drawing, so that a change between light, dark and paper needs a redraw and no more. */
(() => {
  const experiments = JSON.parse(document.getElementById("report-data").textContent);
  const charts = new Map();

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const inColour = (name) => () => colour(name);
  const paler = (name) => () => `${colour(name)}8c`;
  const pixels = () => devicePixelRatio || 1;

  function seconds(value) {
    if (value === 0) return "0";
    const [scaled, unit] = value < 1e-3 ? [value * 1e6, "µs"] : value < 1 ? [value * 1e3, "ms"] : [value, "s"];
    return `${+scaled.toPrecision(3)} ${unit}`;
  }
  const share = (x) => (x < 1.0001 ? "0 %" : `${+((1 - 1 / x) * 100).toPrecision(Math.ceil(Math.log10(x)) + 1)} %`);

  function axis(extra) {
    return {
      stroke: inColour("muted"),
      font: "12px system-ui, sans-serif",
      grid: { stroke: inColour("grid"), width: 1 },
      ticks: { show: false },
      gap: 6,
      ...extra,
    };
  }
  const secondsAxis = (extra) => axis({ values: (_, splits) => splits.map(seconds), space: 70, ...extra });

  function panelOptions(element, xMax, yMax, yAxis, series) {
    return {
      width: element.clientWidth,
      height: element.clientHeight,
      legend: { show: false },
      cursor: { show: false },
      padding: [8, 14, 0, 0],
      scales: { x: { time: false, range: [0, xMax] }, y: { range: [0, yMax] } },
      axes: [secondsAxis({ size: 28 }), yAxis],
      series: [{}, ...series],
    };
  }

  function curveOptions(element) {
    return {
      width: element.clientWidth,
      height: element.clientHeight,
      legend: { show: false },
      padding: [12, 24, 0, 0],
      cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
    };
  }
  const curveLine = (curve) => ({
    points: { show: false },
    stroke: inColour(curve.colour),
    width: curve.colour.startsWith("headgate") ? 2.6 : 2,
    dash: curve.dash.length ? curve.dash : undefined,
  });
  function showChosen(plot, element, first) {
    for (const box of element.closest("figure").querySelectorAll("input[data-curve]")) {
      const apply = () => plot.setSeries(Number(box.dataset.curve) + first, { show: box.checked });
      box.addEventListener("change", apply);
      if (!box.checked) apply();
    }
  }

  /* ---- paths: marks that differ in shape, not in colour alone ---- */

  function eachPoint(plot, series, visit) {
    const [xs, ys] = [plot.data[0], plot.data[series]];
    for (let i = 0; i < xs.length; i++) {
      if (ys[i] == null) continue;
      visit(plot.valToPos(xs[i], "x", true), plot.valToPos(ys[i], "y", true), i);
    }
  }
  function discs(plot, series) {
    const path = new Path2D();
    const radius = 1.8 * pixels();
    eachPoint(plot, series, (x, y) => {
      path.moveTo(x + radius, y);
      path.arc(x, y, radius, 0, 2 * Math.PI);
    });
    return { stroke: null, fill: path, flags: 0 };
  }
  function addCross(path, x, y, arm) {
    path.moveTo(x - arm, y - arm);
    path.lineTo(x + arm, y + arm);
    path.moveTo(x + arm, y - arm);
    path.lineTo(x - arm, y + arm);
  }
  function crosses(plot, series) {
    const path = new Path2D();
    eachPoint(plot, series, (x, y) => addCross(path, x, y, 2.6 * pixels()));
    return { stroke: path, fill: null, flags: 0 };
  }
  const bars = (from) => (plot, series) => {
    const path = new Path2D();
    eachPoint(plot, series, (x, y, i) => {
      const next = plot.valToPos(plot.data[0][i] + 1, "x", true);
      const base = plot.valToPos(from(plot, i), "y", true);
      const gap = Math.min((next - x) * 0.1, 2 * pixels());
      path.rect(x + gap, y, next - x - 2 * gap, base - y);
    });
    return { stroke: path, fill: path, flags: 0 };
  };
  function hatching() {
    const size = 6 * pixels();
    const tile = document.createElement("canvas");
    tile.width = tile.height = size;
    const pen = tile.getContext("2d");
    pen.strokeStyle = colour("ink");
    pen.lineWidth = pixels();
    for (const shift of [-size, 0, size]) {
      pen.moveTo(shift, size);
      pen.lineTo(shift + size, 0);
    }
    pen.stroke();
    return pen.createPattern(tile, "repeat");
  }

  /* ---- the five charts ---- */

  function scatter(element, panel, scales) {
    const pick = (flag) => panel.latency.map((value, i) => (panel.success[i] === flag ? value : null));
    const none = { points: { show: false } };
    return new uPlot(
      panelOptions(element, scales.start, scales.latency * 1.08, secondsAxis({ size: 58, space: 30 }), [
        { ...none, paths: discs, fill: inColour(panel.colour), width: 0 },
        { ...none, paths: crosses, stroke: inColour("ink"), width: 1 },
      ]),
      [panel.start, pick("1"), pick("0")],
      element,
    );
  }

  function rates(element, panel, scales) {
    const { second, offered, good, failed } = panel.rates;
    const none = { points: { show: false } };
    const stacked = failed.map((value, i) => (value ? good[i] + value : null));
    const last = second.length - 1;
    const closed = second.length ? [...second, second[last] + 1] : [];
    const extend = (values, tail) => (second.length ? [...values, tail] : []);
    return new uPlot(
      panelOptions(element, scales.second, scales.rate * 1.04, axis({ size: 58, space: 30, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000] }), [
        { ...none, paths: bars(() => 0), fill: paler(panel.colour), stroke: inColour(panel.colour), width: 1 },
        { ...none, paths: bars((plot, i) => plot.data[1][i]), fill: hatching, stroke: inColour("ink"), width: 1 },
        { ...none, paths: uPlot.paths.stepped({ align: 1 }), stroke: inColour("ink"), width: 1.6, dash: [5, 3] },
      ]),
      [closed, extend(good, null), extend(stacked, null), extend(offered, offered[last])],
      element,
    );
  }

  function states(element, panel, scales) {
    const { second, active, idle, idle_in_transaction: held } = panel.states;
    const line = { points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }) };
    return new uPlot(
      panelOptions(element, scales.sampled, scales.connections * 1.04, axis({ size: 58, space: 30, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500] }), [
        { ...line, fill: paler("held"), stroke: inColour("held"), width: 1 },
        { ...line, stroke: inColour("active"), width: 2 },
        { ...line, stroke: inColour("muted"), width: 1.6, dash: [3, 3] },
      ]),
      [second, held, active, idle],
      element,
    );
  }

  function powersWithin(low, high) {
    const decades = Math.log10(high / low);
    const mantissas = decades > 3.2 ? [1] : decades > 1.2 ? [1, 2, 5] : [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8];
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      for (const mantissa of mantissas) found.push(mantissa * 10 ** power);
    }
    return found.filter((value) => value >= low && value <= high);
  }

  function drawEnds(chart) {
    return (plot) => {
      const pen = plot.ctx;
      pen.save();
      pen.setLineDash([]);
      chart.curves.forEach((curve, place) => {
        const last = curve.y.findLastIndex((value) => value != null);
        if (last < 0 || !plot.series[place + 1].show) return;
        const path = new Path2D();
        const [x, y] = [plot.valToPos(chart.x[last], "x", true), plot.valToPos(curve.y[last], "y", true)];
        pen.strokeStyle = pen.fillStyle = colour(curve.colour);
        pen.lineWidth = 2 * pixels();
        if (curve.complete) {
          path.arc(x, y, 3 * pixels(), 0, 2 * Math.PI);
          pen.fill(path);
        } else {
          addCross(path, x, y, 4.5 * pixels());
          pen.stroke(path);
        }
      });
      pen.restore();
    };
  }

  function distribution(element, chart) {
    const known = chart.curves.flatMap((curve) => curve.y.filter((value) => value != null));
    const [low, high] = known.length ? [Math.min(...known) * 0.8, Math.max(...known) * 1.3] : [0.1, 1];
    const end = chart.x[chart.x.length - 1];
    const nines = [1, 2, 4, ...powersWithin(10, end * 1.0001).filter((x) => Number.isInteger(Math.log10(x)))];
    const readouts = [...element.closest("figure").querySelectorAll("output")];
    const plot = new uPlot(
      {
        ...curveOptions(element),
        scales: {
          x: { time: false, distr: 3, range: [1, end] },
          y: { distr: 3, range: [low, high] },
        },
        axes: [
          axis({ size: 30, splits: () => nines, filter: (_, splits) => splits, values: (_, splits) => splits.map(share) }),
          axis({ size: 62, splits: () => powersWithin(low, high), filter: (_, splits) => splits, values: (_, splits) => splits.map(seconds) }),
        ],
        series: [
          {},
          ...chart.curves.map(curveLine),
        ],
        hooks: {
          draw: [drawEnds(chart)],
          setCursor: [(self) => showReadouts(readouts, chart, self.cursor.idx)],
        },
      },
      [chart.x, ...chart.curves.map((curve) => curve.y)],
      element,
    );
    showChosen(plot, element, 1);
    return plot;
  }

  function showReadouts(readouts, chart, index) {
    readouts.forEach((readout, place) => {
      const value = index == null ? null : chart.curves[place].y[index];
      const unanswered = chart.curves[place].complete ? "–" : "never";
      readout.textContent = index == null ? "" : value == null ? unanswered : `${share(chart.x[index])}: ${seconds(value)}`;
    });
  }

  function drawSpreads(chart) {
    return (plot) => {
      const pen = plot.ctx;
      pen.save();
      pen.setLineDash([]);
      chart.curves.forEach((curve, place) => {
        if (!plot.series[place + 2].show) return;
        pen.strokeStyle = pen.fillStyle = colour(curve.colour);
        pen.lineWidth = 1.5 * pixels();
        chart.x.forEach((load, i) => {
          if (curve.y[i] == null) return;
          const x = plot.valToPos(load, "x", true);
          const [low, y, high] = [curve.low[i], curve.y[i], curve.high[i]].map((value) => plot.valToPos(value, "y", true));
          const path = new Path2D();
          if (low !== high) {
            path.moveTo(x, low);
            path.lineTo(x, high);
          }
          if (curve.void[i]) addCross(path, x, y, 4.5 * pixels());
          pen.stroke(path);
          if (curve.void[i]) return;
          const disc = new Path2D();
          disc.arc(x, y, 3.5 * pixels(), 0, 2 * Math.PI);
          pen.fill(disc);
        });
      });
      pen.restore();
    };
  }

  function goodput(element, chart) {
    const [first, last] = [chart.x[0], chart.x[chart.x.length - 1]];
    const top = Math.max(1.1, ...chart.curves.flatMap((curve) => curve.high.filter((value) => value != null))) * 1.06;
    const readouts = [...element.closest("figure").querySelectorAll("output")];
    const plot = new uPlot(
      {
        ...curveOptions(element),
        scales: {
          x: { time: false, distr: 3, range: [first * 0.85, last * 1.18] },
          y: { range: [0, top] },
        },
        axes: [
          axis({ size: 46, splits: () => chart.x, filter: (_, splits) => splits, values: (_, splits) => splits.map((x, i) => `${+x.toPrecision(3)}×\n${chart.offered[i]}`) }),
          axis({ size: 58, space: 34, values: (_, splits) => splits.map((value) => `${Math.round(value * 100)} %`) }),
        ],
        series: [
          {},
          { points: { show: false }, stroke: inColour("ink"), width: 1.4, dash: [2, 4] },
          ...chart.curves.map((curve) => ({ ...curveLine(curve), spanGaps: true })),
        ],
        hooks: {
          draw: [drawSpreads(chart)],
          setCursor: [
            (self) =>
              readouts.forEach((readout, place) => {
                const [i, { y }] = [self.cursor.idx, chart.curves[place]];
                readout.textContent = i == null || y[i] == null ? "" : `${+chart.x[i].toPrecision(3)}×: ${Math.round(y[i] * 100)} %`;
              }),
          ],
        },
      },
      [chart.x, chart.x.map((x) => Math.min(1, x)), ...chart.curves.map((curve) => curve.y)],
      element,
    );
    showChosen(plot, element, 2);
    return plot;
  }

  /* ---- when to draw ---- */

  function draw(element) {
    if (charts.has(element)) return;
    const { chart, experiment, place } = element.dataset;
    const { distributions, goodputs, panels, scales: time } = experiments[experiment];
    const panel = panels[place];
    const scales = { ...time, ...panel?.scales };
    const makers = {
      distribution: () => distribution(element, distributions[place]),
      goodput: () => goodput(element, goodputs[place]),
      scatter: () => scatter(element, panel, scales),
      rates: () => rates(element, panel, scales),
      states: () => states(element, panel, scales),
    };
    charts.set(element, makers[chart]());
    resizes.observe(element);
  }

  const resizes = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const [width, height] = [target.clientWidth, target.clientHeight];
      const plot = charts.get(target);
      if (width && (plot.width !== width || plot.height !== height)) plot.setSize({ width, height });
    }
  });
  const sights = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => draw(entry.target)),
    { rootMargin: "800px" },
  );
  const elements = [...document.querySelectorAll(".plot")];
  const redraw = () => charts.forEach((plot) => plot.redraw(false));

  elements.forEach((element) => sights.observe(element));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("beforeprint", () => {
    document.documentElement.dataset.theme = "light";
    elements.forEach(draw);
    redraw();
  });
  addEventListener("afterprint", () => {
    delete document.documentElement.dataset.theme;
    redraw();
  });
})();
