
"use strict";
/* Shows each snapshot that comes. Every text is set as text, never as markup; differences are taken here, so that the
   process keeps nothing for those who look. */
(() => {
  const WINDOW = 30;
  const past = [];
  const $ = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";

  function element(name, attributes, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
    for (const child of children) made.append(child);
    return made;
  }
  function drawing(name, attributes, ...children) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }
  const cell = (text, kind) => element("td", kind ? { class: kind } : {}, text);
  const number = (text) => cell(text, "n");

  function duration(ms) {
    if (ms < 1) return `${(ms * 1000).toFixed(0)} µs`;
    if (ms < 10) return `${ms.toFixed(1)} ms`;
    if (ms < 1000) return `${ms.toFixed(0)} ms`;
    if (ms < 60000) return `${(ms / 1000).toFixed(ms < 10000 ? 2 : 1)} s`;
    if (ms < 7200000) return `${(ms / 60000).toFixed(0)} min`;
    return `${(ms / 3600000).toFixed(1)} h`;
  }
  const count = (value) => value.toLocaleString("en");
  const rate = (value) => (value === 0 ? "0" : value < 10 ? value.toFixed(1) : count(Math.round(value)));
  const phaseWords = (name) => name.replace("_", " ");

  function line(text) {
    const td = element("td", { class: "line" });
    if (!text) {
      td.append("unknown");
      td.classList.add("quiet");
      return td;
    }
    const at = text.indexOf(" in ");
    td.append(element("code", {}, at < 0 ? text : text.slice(0, at)));
    if (at >= 0) td.append(element("small", {}, text.slice(at + 4)));
    return td;
  }

  function phaseBar(phases, times, whole) {
    const svg = drawing("svg", { class: "bar", viewBox: "0 0 1000 12", preserveAspectRatio: "none", "aria-hidden": "true" });
    let x = 0;
    times.forEach((time, i) => {
      const width = whole > 0 ? (time / whole) * 1000 : 0;
      if (width >= 0.5) svg.append(drawing("rect", { class: phases[i], x, y: 0, width, height: 12 }));
      x += width;
    });
    return svg;
  }
  function phaseText(phases, times, whole) {
    const shares = times.map((time, i) => [phases[i], whole > 0 ? time / whole : 0]);
    shares.sort((one, other) => other[1] - one[1]);
    return shares.filter(([, share]) => share >= 0.005).slice(0, 3)
      .map(([name, share]) => `${phaseWords(name)} ${(share * 100).toFixed(0)} %`).join(", ");
  }
  function chart(phases, times) {
    const whole = times.reduce((sum, time) => sum + time, 0);
    return element("td", { class: "chart" }, phaseBar(phases, times, whole), element("small", {}, phaseText(phases, times, whole)));
  }

  function fill(id, rows, nothing, more) {
    const body = $(id).tBodies[0];
    const columns = $(id).tHead.rows[0].cells.length;
    if (!rows.length) rows = [element("tr", {}, element("td", { class: "empty", colspan: columns }, nothing))];
    if (more) rows.push(element("tr", {}, element("td", { class: "empty", colspan: columns }, `and ${count(more)} more`)));
    body.replaceChildren(...rows);
  }

  /* ---- the tables ---- */

  function usage(pool) {
    const td = element("td", { class: "wide" }, pool.limit === null ? count(pool.in_use) : `${pool.in_use} of ${pool.limit}`);
    if (pool.limit) {
      const width = Math.min(100, (pool.in_use / pool.limit) * 100);
      const kind = pool.in_use >= pool.limit ? "measured full" : "measured";
      td.append(drawing("svg", { class: "meter", "aria-hidden": "true" },
        drawing("rect", { class: "ground", width: "100%", height: 8, rx: 2 }),
        drawing("rect", { class: kind, width: `${width}%`, height: 8, rx: 2 })));
    }
    return td;
  }
  function refused(gate) {
    const td = element("td", {});
    if (!gate) return td;
    const parts = [];
    for (const [reason, times] of Object.entries(gate.shed)) parts.push(`${count(times)} at once (${reason})`);
    for (const [reason, times] of Object.entries(gate.dropped)) parts.push(`${count(times)} after waiting (${reason})`);
    td.append(parts.join(", ") || "none");
    if (gate.overloaded) td.append(" ", element("span", { class: "badge" }, "overloaded"));
    return td;
  }
  function showPools(now) {
    fill("pools", now.pools.map((pool) => element("tr", {},
      element("th", { scope: "row" }, pool.pool),
      usage(pool),
      number(pool.gate ? count(pool.gate.warm) : ""),
      number(count(pool.idle)),
      number(count(pool.pending)),
      number(pool.gate && pool.pending ? duration(pool.gate.oldest_wait_ms) : ""),
      number(pool.gate && pool.gate.acquired ? duration(pool.gate.mean_use_ms) : ""),
      number(count(pool.timeouts)),
      refused(pool.gate))), "No pool has been used yet.");
  }

  function difference(now, before) {
    const known = new Map((before ? before.routes : []).map((route) => [route.route, route]));
    return now.routes.map((route) => {
      const old = known.get(route.route);
      if (!old) return route;
      const statuses = {};
      for (const [kind, times] of Object.entries(route.statuses)) {
        const more = times - (old.statuses[kind] || 0);
        if (more > 0) statuses[kind] = more;
      }
      return {
        route: route.route,
        count: route.count - old.count,
        times_ms: route.times_ms.map((time, i) => Math.max(0, time - old.times_ms[i])),
        statuses,
      };
    });
  }
  function showRoutes(now) {
    const isRecent = document.querySelector("input[name=window]:checked").value === "recent";
    const before = isRecent ? past[0] : null;
    const elapsed = (now.process.watched_ms - (before ? before.process.watched_ms : 0)) / 1000;
    $("window").textContent = `${Math.round((now.process.watched_ms - past[0].process.watched_ms) / 1000)} s`;
    const routes = difference(now, before).filter((route) => route.count > 0 || now.in_flight[route.route]);
    const shown = new Set(routes.map((route) => route.route));
    for (const route of Object.keys(now.in_flight)) {
      if (!shown.has(route)) routes.push({ route, count: 0, times_ms: now.phases.map(() => 0), statuses: {} });
    }
    const whole = (route) => route.times_ms.reduce((sum, time) => sum + time, 0);
    routes.sort((one, other) => whole(other) - whole(one) || (one.route < other.route ? -1 : 1));
    fill("routes", routes.map((route) => element("tr", {},
      element("th", { scope: "row" }, route.route),
      number(count(route.count)),
      number(elapsed > 0 ? rate(route.count / elapsed) : ""),
      number(count(now.in_flight[route.route] || 0)),
      number(route.count ? duration(whole(route) / route.count) : ""),
      chart(now.phases, route.times_ms),
      cell(Object.entries(route.statuses).map(([kind, times]) => `${count(times)} ${kind}`).join(", ")))),
      "No request has ended in this time.", isRecent ? 0 : now.more.routes);
  }

  function showHolds(now) {
    fill("holds", now.holds.map((hold) => element("tr", {},
      number(duration(hold.age_ms)),
      element("th", { scope: "row" }, hold.route || "no request"),
      line(hold.acquired), line(hold.at), cell(hold.awaits))), "Nobody.", now.more.holds);
  }
  function showRequests(now) {
    fill("requests", now.requests.map((request) => element("tr", {},
      number(duration(request.age_ms)),
      element("th", { scope: "row" }, request.route),
      chart(now.phases, request.times_ms),
      number(count(request.statements)),
      number(count(request.holds)))), "None.", now.more.requests);
  }

  const VERDICTS = {
    code: "code", collection: "garbage collection", import: "an import", thread: "waited for a thread or a lock",
    contended: "other threads", descheduled: "the process was not let run", suspended: "the machine slept",
  };
  function why(stall) {
    const th = element("th", { scope: "row" }, VERDICTS[stall.verdict] || stall.verdict);
    const details = [stall.what, stall.route].filter(Boolean).join(", ");
    if (details) th.append(element("small", {}, details));
    return th;
  }
  function showStalls(now) {
    fill("stalls", now.stalls.map((stall) => element("tr", {},
      why(stall), line(stall.at), number(count(stall.count)), number(duration(stall.longest_ms)),
      number(duration(stall.total_ms)), number(count(stall.victims)))), "It has not.", now.more.stalls);
  }

  function showKeys(phases) {
    if ($("keys").childElementCount) return;
    for (const phase of phases) {
      $("keys").append(element("span", {},
        drawing("svg", { viewBox: "0 0 12 12", "aria-hidden": "true" }, drawing("rect", { class: phase, width: 12, height: 12, rx: 2 })),
        phaseWords(phase)));
    }
  }

  function show(now) {
    const { pid, python, headgate, watched_ms } = now.process;
    $("process").textContent = `process ${pid} · watched for ${duration(watched_ms)} · Python ${python} · Headgate ${headgate}`;
    showKeys(now.phases);
    showPools(now);
    showRoutes(now);
    showHolds(now);
    showRequests(now);
    showStalls(now);
  }

  /* ---- the stream: the server ends it every few seconds, and the browser asks again by itself ---- */

  function say(text, kind) {
    const state = $("state");
    if (state.textContent !== text) state.textContent = text;
    state.className = `state ${kind}`;
  }
  let latest = null;
  let heard = 0;
  const source = new EventSource("events");
  source.onmessage = (event) => {
    const now = JSON.parse(event.data);
    if (latest && latest.process.pid !== now.process.pid) past.length = 0;
    if (past.length && past[past.length - 1].process.watched_ms > now.process.watched_ms) past.length = 0;
    past.push(now);
    if (past.length > WINDOW + 1) past.shift();
    latest = now;
    heard = Date.now();
    say("live", "live");
    show(now);
  };
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) say("ended: sign in again, or too many look", "lost");
  };
  setInterval(() => {
    if (source.readyState !== EventSource.CLOSED && Date.now() - heard > 3500) say("no answer", "lost");
  }, 1000);
  for (const choice of document.querySelectorAll("input[name=window]")) {
    choice.addEventListener("change", () => latest && show(latest));
  }
})();
