"use strict";
/* The page is complete without this. With it, the rows that are there, or all entries as
   they come from `?json`, are sorted and filtered where they are. Names are text, never HTML. */
(() => {
  const FLAT = 1000;        // rows that are all in the document; of more, those in sight
  const MOST = 250000;      // entries that a browser is asked to hold; above, the server does it
  const CHUNK = 20000;      // entries of one request
  const MARGIN = 24;        // rows above and below those in sight
  const TRIES = 3;          // of reading a folder that changes meanwhile
  const $ = (id) => document.getElementById(id);
  const plain = (event) => !(event.ctrlKey || event.metaKey || event.altKey || event.shiftKey);

  // -- times, in the zone and the words of who reads -----------------------------------------

  const short = new Intl.DateTimeFormat(undefined, {
    year: "numeric", month: "short", day: "2-digit", hour: "2-digit", minute: "2-digit",
  });
  const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });
  const ago = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });
  const SPANS = [["year", 31557600], ["month", 2629800], ["day", 86400], ["hour", 3600], ["minute", 60]];

  const isTime = (ms) => Math.abs(ms) <= 8.64e15;  // a date of JavaScript's

  function tellTime(element, ms) {
    if (isTime(ms)) element.textContent = short.format(ms);
  }

  function explainTime(element, ms) {
    if (!isTime(ms)) return;
    const seconds = (ms - Date.now()) / 1000;
    const [unit, length] = SPANS.find((span) => Math.abs(seconds) >= span[1]) || ["second", 1];
    element.title = `${ago.format(Math.round(seconds / length), unit)} · ${full.format(ms)}`;
  }

  // Their titles when they are pointed at: formatting a thousand takes a tenth of a second.
  document.addEventListener("pointerover", (event) => {
    const time = event.target.closest("time");
    if (time && !time.title) explainTime(time, Date.parse(time.dateTime));
  });

  // -- a file's own page ---------------------------------------------------------------------

  if (document.body.classList.contains("view")) {
    const shown = $("shown");
    document.querySelectorAll("time").forEach((time) => tellTime(time, Date.parse(time.dateTime)));
    if (shown) {
      const fail = () => { shown.hidden = true; $("fault").hidden = false; };
      shown.addEventListener("error", fail);
      if (shown.error || (shown.complete && !shown.naturalWidth)) fail();
    }
    document.addEventListener("keydown", (event) => {
      // A player has arrows of its own: they seek.
      if (!plain(event) || /^(AUDIO|VIDEO|PRE)$/.test(event.target.tagName)) return;
      const id = { ArrowLeft: "previous", ArrowRight: "next", Escape: "back", Backspace: "back" };
      const link = $(id[event.key]);
      if (link) { event.preventDefault(); link.click(); }
    });
    return;
  }

  // -- what a folder has ---------------------------------------------------------------------

  const main = $("main"), table = $("entries"), body = $("rows"), none = $("none");
  const form = document.querySelector(".find");
  if (!form) { document.addEventListener("keydown", moves); return; }
  const field = form.elements.filter, count = document.querySelector(".count");
  const pager = document.querySelector(".pager"), blank = $("row").content.firstElementChild;
  const numbers = new Intl.NumberFormat("en");
  const first = Number(main.dataset.first), left = history.state;  // where one was, on the way back
  let total = Number(main.dataset.total);
  const state = { sort: main.dataset.sort, desc: main.dataset.order === "desc", filter: field.value.trim() };

  const asked = state.filter;
  let entries = [];         // in order of names, folders first
  let ready = false;        // all of them are there
  let failed = total > MOST;
  let shown = [];           // what is left of them, in the order that is wanted
  let active = -1;          // of shown: where the keyboard is
  let top = 0, bottom = 0;  // of shown: those in the document
  let rowHeight = 0;

  // In capitals, which do not depend on what is beside them, as a Greek s does.
  const fold = (name) => name.normalize("NFC").toUpperCase().normalize("NFC");
  const suffix = (name) => { const dot = name.lastIndexOf("."); return dot > 0 ? name.slice(dot + 1).toLowerCase() : ""; };

  function entryOfRow(row) {
    const link = row.querySelector(".name a"), size = row.querySelector("data");
    const name = link.textContent, get = row.querySelector(".get");
    const isFolder = !size;
    return {
      at: Number(row.dataset.n), name, key: fold(name), suffix: isFolder ? "" : suffix(name), isFolder, row,
      href: isFolder ? link.getAttribute("href") : get.getAttribute("href").split("?")[0],
      isViewed: !isFolder && /\?view(&|$)/.test(link.getAttribute("href")),
      size: size ? Number(size.value) : 0, ms: Date.parse(row.querySelector("time").dateTime),
    };
  }

  function entryOfJson(told, at) {
    const isFolder = told.type === "folder";
    return {
      at, name: told.name, key: fold(told.name), suffix: isFolder ? "" : suffix(told.name), isFolder, row: null,
      href: told.href, isViewed: null, size: told.size || 0, ms: told.mtime * 1000,
    };
  }

  async function load() {
    const found = [];
    let tag = null, tries = 1;
    for (;;) {
      const answer = await fetch(`./?json&limit=${CHUNK}&offset=${found.length}`, {
        headers: { Accept: "application/json" },
      });
      if (!answer.ok) throw new Error(answer.status);
      const told = await answer.json();
      if (tag !== null && told.etag !== tag) {  // it has changed meanwhile
        if (++tries > TRIES) throw new Error("the folder changes all the time");
        tag = null;
        found.length = 0;
        continue;
      }
      tag = told.etag;
      for (const one of told.entries) found.push(entryOfJson(one, found.length));
      if (found.length >= told.total || !told.entries.length) return found;
      entries = found;
      tell();
    }
  }

  // -- order and filter ----------------------------------------------------------------------

  function choose() {
    const wanted = fold(state.filter);
    const left = wanted ? entries.filter((entry) => entry.key.includes(wanted)) : entries;
    const folders = left.filter((entry) => entry.isFolder), files = left.filter((entry) => !entry.isFolder);
    const sign = state.desc ? -1 : 1;
    const by = {
      name: (a, b) => sign * (a.at - b.at),
      size: (a, b) => sign * (a.size - b.size) || a.at - b.at,
      mtime: (a, b) => sign * (a.ms - b.ms) || a.at - b.at,
      type: (a, b) => sign * (a.suffix < b.suffix ? -1 : a.suffix > b.suffix ? 1 : 0) || a.at - b.at,
    };
    folders.sort(state.sort === "name" || state.sort === "mtime" ? by[state.sort] : (a, b) => a.at - b.at);
    files.sort(by[state.sort]);
    shown = folders.concat(files);
  }

  function query(page) {
    const said = new URLSearchParams();
    if (state.sort !== "name" || state.desc) said.set("sort", state.sort);
    if (state.desc) said.set("order", "desc");
    if (state.filter) said.set("filter", state.filter);
    if (page > 1) said.set("page", page);
    return said.toString();
  }

  function update(isKept) {
    if (!ready) { tell(); return; }
    const isScrolled = !isKept && main.getBoundingClientRect().top < 0;
    clear();
    choose();
    active = -1;
    draw(true);
    // What was scrolled to is another row now: show the first ones.
    if (isScrolled) main.scrollIntoView({ block: "start", behavior: "instant" });
    const said = query(0);
    history.replaceState(null, "", said ? `?${said}` : "./");
    for (const head of table.tHead.rows[0].cells) {
      const link = head.querySelector("a");
      if (!link) continue;
      const isMine = link.dataset.sort === state.sort;
      head.setAttribute("aria-sort", isMine ? (state.desc ? "descending" : "ascending") : "none");
    }
    none.hidden = shown.length > 0;
    none.querySelector("bdi").textContent = state.filter;
    tell();
  }

  let telling = 0;
  function tell() {
    clearTimeout(telling);  // readers speak what is left at last, not each letter's
    telling = setTimeout(() => {
      if (failed) return;
      if (ready) {
        count.textContent = state.filter ? `${numbers.format(shown.length)} of ${numbers.format(total)}` : "";
      } else if (field.value.trim() !== asked) {
        count.textContent = `Reading the names: ${numbers.format(entries.length)} of ${numbers.format(total)}`;
      }
    }, ready ? 60 : 0);
  }

  // -- rows ----------------------------------------------------------------------------------

  const UNSEEN = /[\x00-\x1f\x7f-\x9f\u200b\u2028-\u202e\u2060\u2066-\u2069\ufeff\ufff9-\ufffb]/g;
  const visible = (name) => name.replace(UNSEEN, (one) => {
    const code = one.charCodeAt(0);
    return code < 0x20 ? String.fromCharCode(0x2400 + code) : code === 0x7f ? "\u2421" : "\ufffd";
  });

  function sizeText(size) {
    if (size < 1000) return `${size} B`;
    let value = size, unit = "";
    for (unit of ["kB", "MB", "GB", "TB", "PB", "EB"]) {
      value /= 1000;
      if (value < 9.95) return `${value.toFixed(1)} ${unit}`;
      if (value < 999.5) break;
    }
    return `${value.toFixed(0)} ${unit}`;
  }

  const KINDS = JSON.parse(main.dataset.kinds), VIEWED = new Set(main.dataset.viewed.split(" "));
  const kindOf = {};
  for (const kind in KINDS) for (const one of KINDS[kind].split(" ")) kindOf[one] = kind;

  function rowOf(entry) {
    const row = blank.cloneNode(true), link = row.querySelector(".name a"), name = visible(entry.name);
    const kind = entry.isFolder ? "folder" : kindOf[entry.suffix] || "other";
    const icon = link.querySelector("svg"), get = row.querySelector(".get"), size = row.querySelector("data");
    entry.isViewed = !entry.isFolder && VIEWED.has(entry.suffix);
    row.dataset.n = entry.at;
    link.lastChild.textContent = name;
    link.title = name;
    icon.setAttribute("class", `icon k-${kind}`);
    icon.firstElementChild.setAttribute("href", `#i-${kind}`);
    row.querySelector(".type").textContent = entry.isFolder ? "Folder" : /^[a-z0-9]{1,8}$/.test(entry.suffix) ? entry.suffix.toUpperCase() : "";
    tellTime(row.querySelector("time"), entry.ms);
    if (entry.isFolder) {
      row.className = "dir";
      size.replaceWith("–");
      link.href = entry.href;
      if ("archives" in main.dataset) { get.href = `${entry.href}?zip`; get.title += " as ZIP"; } else get.remove();
    } else {
      size.value = entry.size;
      size.textContent = sizeText(entry.size);
      size.title = entry.size === 1 ? "1 byte" : `${numbers.format(entry.size)} bytes`;
      get.href = `${entry.href}?download`;
    }
    get.setAttribute("aria-label", `Download ${name}`);
    if (isTime(entry.ms)) row.querySelector("time").dateTime = new Date(entry.ms).toISOString();
    return row;
  }

  function placed(entry, at, said) {
    const row = entry.row || (entry.row = rowOf(entry));
    const link = row.querySelector(".name a");
    if (!entry.isFolder) link.setAttribute("href", entry.isViewed ? `${entry.href}?view${said && "&" + said}` : entry.href);
    row.classList.toggle("on", at === active);
    row.setAttribute("aria-rowindex", at + 2);
    return row;
  }

  function sight() {
    if (shown.length <= FLAT) return [0, shown.length];
    const above = -body.getBoundingClientRect().top;
    const from = Math.floor(above / rowHeight) - MARGIN;
    const to = Math.ceil((above + innerHeight) / rowHeight) + MARGIN;
    const begin = Math.min(Math.max(0, from), shown.length - 1);
    return [begin, Math.max(begin + 1, Math.min(to, shown.length))];
  }

  /** Take all rows out of the document; of many, none is kept. */
  function clear() {
    if (total > FLAT) for (const entry of shown.slice(top, bottom)) entry.row = null;
    body.replaceChildren();
    top = bottom = 0;
  }

  /** Put those rows into the document that are in sight, or will be next. */
  function draw(isNew) {
    if (!rowHeight) measure();
    table.classList.toggle("long", shown.length > FLAT || total > FLAT);
    const [from, to] = sight();
    if (!isNew && from === top && to === bottom) return;
    const said = query(0), wanted = shown.slice(from, to).map((entry, nth) => placed(entry, from + nth, said));
    const kept = new Set(wanted);
    const focused = body.contains(document.activeElement) && document.activeElement;
    for (let nth = top; nth < bottom && !isNew; nth++) {
      const entry = shown[nth];
      if (entry && entry.row && !kept.has(entry.row)) {
        entry.row.remove();
        if (total > FLAT) entry.row = null;
      }
    }
    let before = body.firstElementChild;
    for (const row of wanted) {
      if (row === before) before = before.nextElementSibling; else body.insertBefore(row, before);
    }
    [top, bottom] = [from, to];
    const isFlat = shown.length <= FLAT;
    body.style.paddingTop = isFlat ? "" : `${from * rowHeight}px`;
    body.style.paddingBottom = isFlat ? "" : `${(shown.length - to) * rowHeight}px`;
    table.setAttribute("aria-rowcount", shown.length + 1);
    if (isFlat) delete table.dataset.part;  // for paper
    else table.dataset.part = `Rows ${numbers.format(from + 1)} to ${numbers.format(to)} of ${numbers.format(shown.length)}`;
    if (focused && focused !== document.activeElement && body.contains(focused)) focused.focus({ preventScroll: true });
  }

  function measure() {
    const row = body.firstElementChild;
    rowHeight = row ? row.getBoundingClientRect().height : parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row")) * 16;
  }

  /** Take over from the server's pages, without moving what is in sight. */
  function takeOver(found, inOrder) {
    entries = found;
    total = found.length;
    ready = true;
    if (inOrder) shown = inOrder; else choose();
    table.classList.toggle("long", total > FLAT);
    measure();
    if (pager) pager.hidden = true;
    if (shown.length > FLAT) {
      const focused = body.contains(document.activeElement) && document.activeElement.closest("tr");
      const name = focused && focused.dataset.n;
      const where = body.getBoundingClientRect().top;
      body.style.paddingTop = `${first * rowHeight}px`;
      if (first) scrollBy({ top: first * rowHeight + (where - body.getBoundingClientRect().top), behavior: "instant" });
      body.replaceChildren();
      draw(true);
      if (left && left.top) { scrollTo({ top: left.top, behavior: "instant" }); draw(false); }
      const again = name && body.querySelector(`[data-n="${name}"] a`);
      if (again) again.focus({ preventScroll: true });
    }
    tell();
  }

  // -- what people do ------------------------------------------------------------------------

  function goTo(at) {
    const last = shown.length - 1;
    if (last < 0) return;
    const before = active >= top && active < bottom && shown[active] && shown[active].row;
    if (before) before.classList.remove("on");
    active = Math.max(0, Math.min(at, last));
    if (shown.length > FLAT) {
      const covered = table.tHead.getBoundingClientRect().height + $("main").querySelector(".bar").getBoundingClientRect().height;
      const y = body.getBoundingClientRect().top + active * rowHeight;
      if (y < covered) scrollBy({ top: y - covered - 4, behavior: "instant" });
      else if (y + rowHeight > innerHeight) scrollBy({ top: y + rowHeight - innerHeight + 4, behavior: "instant" });
      draw(false);
    }
    const row = shown[active].row;
    row.classList.add("on");
    row.querySelector("a").focus({ preventScroll: shown.length > FLAT });
  }

  function here() {
    const row = document.activeElement.closest("#rows tr");
    return row ? shown.findIndex((entry) => entry.row === row) : active;
  }

  /** Keys that every folder's page knows. */
  function moves(event) {
    const target = event.target;
    const isTyping = /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
    if (event.key === "Backspace" && plain(event) && !isTyping) {
      const up = $("parent");
      if (up) { event.preventDefault(); up.click(); }
      return true;
    }
    return isTyping;
  }

  function pressed(event) {
    if (!plain(event) || event.isComposing) return;
    const isTyping = moves(event);
    if (event.key === "Escape") {
      if (field.value || state.filter) { field.value = ""; filterChanged(); field.focus(); event.preventDefault(); }
      return;
    }
    if (event.key === "/" && !isTyping) { field.focus(); field.select(); event.preventDefault(); return; }
    if (!ready || (isTyping && !(event.target === field && event.key === "ArrowDown")) || event.target.tagName === "PRE") return;
    const step = Math.max(1, Math.floor((innerHeight * 0.8) / (rowHeight || 42)));
    const now = here();
    const wanted = {
      ArrowDown: now + 1, ArrowUp: now - 1, PageDown: now + step, PageUp: Math.max(0, now - step), Home: 0, End: shown.length - 1,
    }[event.key];
    if (wanted === undefined || (event.key !== "ArrowDown" && now < 0 && event.key !== "End")) return;
    if (wanted < 0) { field.focus(); event.preventDefault(); return; }
    if (event.key === "ArrowDown" && wanted >= shown.length) return;  // on to what is below
    event.preventDefault();
    goTo(event.target === field ? 0 : wanted);
  }

  function filterChanged() {
    state.filter = field.value.trim();
    update();
  }

  document.body.classList.add("live");
  document.querySelector(".keys").hidden = false;
  document.addEventListener("keydown", pressed);
  if (failed) document.body.classList.remove("live");
  else {
    field.addEventListener("input", filterChanged);
    form.addEventListener("submit", (event) => {
      if (failed) return;
      event.preventDefault();
      if (ready && shown.length) goTo(0);
    });
    table.tHead.addEventListener("click", (event) => {
      const link = event.target.closest("a[data-sort]");
      if (!link || !ready || !plain(event)) return;
      event.preventDefault();
      const sort = link.dataset.sort;
      state.desc = sort === state.sort ? !state.desc : sort === "size" || sort === "mtime";
      state.sort = sort;
      update();
    });
    none.addEventListener("click", (event) => {
      if (!ready || !event.target.closest("a")) return;
      event.preventDefault();
      field.value = "";
      filterChanged();
      field.focus();
    });
    let isDue = false;
    const look = () => { isDue = false; if (ready && shown.length > FLAT) draw(false); };
    const due = () => { if (!isDue) { isDue = true; requestAnimationFrame(look); } };
    addEventListener("scroll", due, { passive: true });
    // Browsers put back only what was there before all entries were.
    addEventListener("pagehide", () => { if (ready && shown.length > FLAT) history.replaceState({ top: scrollY }, ""); });
    addEventListener("resize", () => { if (ready && shown.length > FLAT) { measure(); draw(true); } });
  }

  for (const time of body.getElementsByTagName("time")) tellTime(time, Date.parse(time.dateTime));
  if (main.dataset.whole === "yes") {
    const rows = [...body.rows].map(entryOfRow);
    takeOver([...rows].sort((a, b) => a.at - b.at), rows);  // as they are, to a fraction of a second
  } else if (!failed) {
    const start = () => load().then((found) => {
      takeOver(found);
      if (state.filter !== field.value.trim()) filterChanged();
      else if (shown.length <= FLAT) update(true);
    }, () => {
      failed = true;  // the form and the links still work
      document.body.classList.remove("live");
      count.textContent = "";
    });
    if ("requestIdleCallback" in window) requestIdleCallback(start, { timeout: 500 }); else setTimeout(start, 100);
  }
})();
