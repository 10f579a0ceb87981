"use strict";
// The list is virtual: only the rows on the screen exist, so 5,000 rollouts cost what 20 do.
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const rollouts = data.rollouts;
  const ROW = 54, SPARE = 6;
  const byId = (id) => document.getElementById(id);
  const list = byId("list"), spacer = byId("spacer"), detail = byId("detail");
  const search = byId("search"), filter = byId("filter"), sort = byId("sort"), count = byId("count");

  const wrong = (r) => r.p !== null && r.p.some((p) => p < 0.5);
  const disagrees = (r) => r.p !== null && r.labels !== undefined &&
    r.p.some((p, i) => p !== null && r.labels[i] !== 0 && (p >= 0.5) !== (r.labels[i] === 1));
  const FILTERS = [
    ["all", "all", () => true],
    ["wrong", "with a step judged wrong", wrong],
    ["right", "with every step judged right", (r) => r.p !== null && !wrong(r)],
    ["unscored", "unscored", (r) => r.p === null],
    ["flagged", "with flags", (r) => r.flags.length > 0],
    ["disagrees", "that disagree with labels", disagrees, (r) => r.labels !== undefined],
    ["chosen", "chosen by mean", (r) => (r.chosen || []).includes("mean"), (r) => r.chosen !== undefined],
    ["wrong-answer", "with a wrong final answer", (r) => r.right === false, (r) => typeof r.right === "boolean"],
    ["misled", "chosen by mean, answer wrong", (r) => r.right === false && (r.chosen || []).includes("mean"), (r) => r.chosen !== undefined],
  ].filter((f) => !f[3] || rollouts.some(f[3]));
  // Each gives a number; small comes first, and what has none comes last.
  const SORTS = [
    ["file", "order of the file", (r, i) => i],
    ["low-mean", "lowest mean", (r) => r.mean],
    ["high-mean", "highest mean", (r) => (r.mean === null ? null : -r.mean)],
    ["low-step", "lowest step", (r) => r.least],
    ["drop", "biggest drop", (r) => (r.drop === null ? null : -r.drop)],
    ["long", "most steps", (r) => -r.steps.length],
  ];

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function options(select, choices) {
    for (const [value, words] of choices) {
      const option = element("option", "", words);
      option.value = value;
      select.append(option);
    }
  }

  function tint(p) {
    if (p === null) return "transparent";
    const strength = 0.1 + 0.75 * Math.abs(p - 0.5) * 2;
    return `rgba(var(--${p >= 0.5 ? "right" : "wrong"}-tint), ${strength.toFixed(3)})`;
  }

  const haystacks = new Array(rollouts.length);
  function haystack(i) {
    if (haystacks[i] === undefined) {
      const r = rollouts[i];
      haystacks[i] = [r.id, data.questions[r.question], ...r.steps].join("\n").toLowerCase();
    }
    return haystacks[i];
  }

  let shown = [];       // indices of rollouts, in the order they are listed
  let chosen = 0;       // index of the rollout that is open

  function select(anew) {
    const words = search.value.trim().toLowerCase();
    const keep = FILTERS.find((f) => f[0] === filter.value)[2];
    const key = SORTS.find((s) => s[0] === sort.value)[2];
    const keyed = [];
    rollouts.forEach((r, i) => {
      if (keep(r) && (!words || haystack(i).includes(words))) keyed.push([key(r, i), i]);
    });
    keyed.sort(([a, i], [b, j]) => {
      if (a === null || b === null) return (a === null) - (b === null) || i - j;
      return a - b || i - j;
    });
    shown = keyed.map((pair) => pair[1]);
    count.textContent = `${shown.length.toLocaleString("en")} of ${rollouts.length.toLocaleString("en")} rollouts`;
    spacer.style.height = `${shown.length * ROW}px`;
    list.scrollTop = 0;
    if (shown.length && (anew || !shown.includes(chosen))) open(shown[0]);
    else if (shown.length) reveal(shown.indexOf(chosen));
    else { detail.replaceChildren(element("p", "soft", "No rollout fits.")); list.removeAttribute("aria-activedescendant"); }
    draw();
  }

  function draw() {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - SPARE);
    const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + SPARE);
    const rows = [];
    for (let at = first; at < last; at++) rows.push(row(at));
    spacer.replaceChildren(...rows);
    if (shown.includes(chosen)) list.setAttribute("aria-activedescendant", `row-${chosen}`);
  }

  function row(at) {
    const index = shown[at], r = rollouts[index];
    const made = element("div", "row");
    made.id = `row-${index}`;
    made.style.top = `${at * ROW}px`;
    made.setAttribute("role", "option");
    made.setAttribute("aria-selected", String(index === chosen));
    made.setAttribute("aria-posinset", String(at + 1));
    made.setAttribute("aria-setsize", String(shown.length));
    made.append(element("span", "name", r.id));
    const mean = element("span", "mean", r.mean === null ? "unscored" : r.mean.toFixed(3));
    if (r.mean !== null && wrong(r)) mean.append(element("span", "bad", " ✗"));
    made.append(mean);
    const strip = element("span", "strip");
    if (r.p === null) strip.append(element("span", "why", r.reason));
    else for (const p of r.p) {
      const cell = element("i");
      cell.style.background = tint(p);
      cell.style.borderColor = p !== null && p < 0.5 ? "var(--wrong)" : "var(--line)";
      strip.append(cell);
    }
    made.append(strip);
    made.addEventListener("click", () => { open(index); draw(); });
    return made;
  }

  function reveal(at) {
    const top = at * ROW;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  }

  function open(index) {
    chosen = index;
    const r = rollouts[index];
    const parts = [element("h2", "", r.id)];
    const facts = [r.p === null ? `${r.status}: ${r.reason}` : `mean p ${r.mean.toFixed(3)}, lowest ${r.least.toFixed(3)}`];
    if (r.drop !== null && r.drop > 0) facts.push(`biggest drop ${r.drop.toFixed(3)}`);
    if (r.answer) facts.push(`answer ${r.answer}`);
    if (typeof r.right === "boolean") facts.push(r.right ? "answer is right" : "answer is wrong");
    if (r.chosen && r.chosen.length) facts.push(`chosen by ${r.chosen.join(", ").replaceAll("_", " ")}`);
    if (r.flags.length) facts.push(`flags: ${r.flags.join(", ")}`);
    if (r.source) facts.push(r.source);
    parts.push(element("p", "soft", facts.join(" · ")));
    if (r.detail) parts.push(element("p", "note", r.detail));
    parts.push(top(r), ...siblings(index), body(r));
    detail.replaceChildren(...parts);
  }

  function top(r) {
    const made = element("div", "top");
    const pictures = element("div", "pictures");
    r.images.forEach((at, number) => {
      const [source, name] = data.images[at];
      if (source === null) return pictures.append(element("div", "gone", `No image: ${name}`));
      const image = element("img");
      image.src = source;
      image.alt = `Image ${number + 1} of the problem: ${name}`;
      pictures.append(image);
    });
    made.append(pictures, element("div", "question", data.questions[r.question]));
    return made;
  }

  function siblings(index) {
    const mine = rollouts[index];
    const group = rollouts.reduce((found, r, i) => {
      if (r.problem === mine.problem) found.push(i);
      return found;
    }, []);
    if (group.length < 2) return [];
    const made = element("div", "others");
    for (const i of group) {
      const r = rollouts[i];
      const mark = (r.right === true ? " ✓" : r.right === false ? " ✗" : "") +
        ((r.chosen || []).includes("mean") ? " chosen" : "");
      const button = element("button", "", `${r.id}: ${r.mean === null ? "unscored" : r.mean.toFixed(3)}${mark}`);
      button.type = "button";
      button.setAttribute("aria-current", String(i === index));
      button.addEventListener("click", () => { open(i); draw(); });
      made.append(button);
    }
    return [element("h2", "", `Candidates of this problem (${group.length})`), made];
  }

  function body(r) {
    const made = element("div", r.thinking === null ? "body alone" : "body");
    const left = element("div");
    left.append(element("h2", "", "Steps"));
    const steps = element("ol", "steps");
    r.steps.forEach((text, i) => {
      const p = r.p === null ? null : r.p[i];
      const item = element("li");
      item.style.background = p === null ? "var(--panel)" : tint(p).replace(/[\d.]+\)$/, (a) => `${(parseFloat(a) * 0.3).toFixed(3)})`);
      item.style.borderLeftColor = p === null ? "var(--none)" : p >= 0.5 ? "var(--right)" : "var(--wrong)";
      item.append(element("span", "n", String(i + 1)));
      const number = element("span", p === null ? "p" : p >= 0.5 ? "p good" : "p bad", p === null ? "none" : p.toFixed(3));
      if (p !== null && p < 0.5) number.append(" ✗");
      const words = element("span", "t", text);
      if (r.labels !== undefined) words.append(labelTag(r.labels[i], p));
      item.append(number, words);
      steps.append(item);
    });
    left.append(steps);
    made.append(left);
    if (r.thinking !== null) {
      const right = element("div");
      const box = element("div", "thinking", r.thinking);
      box.tabIndex = 0;
      right.append(element("h2", "", "Thinking of the reward model"), box);
      made.append(right);
    }
    return made;
  }

  function labelTag(label, p) {
    const words = label === 1 ? "label: correct" : label === -1 ? "label: incorrect" : "label: neutral";
    const off = label !== 0 && p !== null && (p >= 0.5) !== (label === 1);
    return element("span", `tag ${off ? "bad" : "soft"}`, off ? `${words} ≠` : words);
  }

  list.addEventListener("keydown", (event) => {
    const at = shown.indexOf(chosen), page = Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
    const to = {
      ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: shown.length - 1,
    }[event.key];
    if (to === undefined || !shown.length) return;
    event.preventDefault();
    const next = Math.min(shown.length - 1, Math.max(0, to));
    open(shown[next]);
    reveal(next);
    draw();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) {
      event.preventDefault();
      search.focus();
    }
    if (event.key === "Escape" && document.activeElement === search) list.focus();
  });
  let waiting = false;
  list.addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  });
  window.addEventListener("resize", draw);
  search.addEventListener("input", () => select(false));
  filter.addEventListener("change", () => select(true));
  sort.addEventListener("change", () => select(true));
  options(filter, FILTERS);
  options(sort, SORTS);
  select(true);
})();
