'use strict';
const page = (() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const text = (number) => data.strings[number];
  const element = (id) => document.getElementById(id);

  // The parts of a step, in the order of PageContent.
  const STEP = { text: 0, line: 1, events: 2, aborts: 3, walks: 4, writes: 5, results: 6, invalidations: 7, warnings: 8, guest: 9, host: 10 };

  const state = { step: 0, first: 0, second: -1, timer: 0, linkTimer: 0 };
  const themes = ['automatic', 'light', 'dark'];

  // MARK: Elements

  function make(name, properties, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(properties || {})) {
      if (value === undefined || value === false) continue;
      made.setAttribute(key, value === true ? '' : value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }

  const code = (content) => make('code', {}, content);

  function part(title, ...children) {
    return make('section', { class: 'part' }, make('h3', {}, title), ...children);
  }

  function scroll(label, child) {
    return make('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': label }, child);
  }

  function table(caption, heads, rows) {
    return scroll(caption, make('table', {},
      make('caption', { class: 'only-read' }, caption),
      make('thead', {}, make('tr', {}, ...heads.map((head) => make('th', { scope: 'col' }, head)))),
      make('tbody', {}, ...rows)));
  }

  // MARK: Words of 64 bits

  const word = (number) => {
    const [layout, hex, summary, meanings] = data.words[number];
    return { number, hex, summary: text(summary), meanings, fields: data.layouts[layout], bits: BigInt('0x' + hex).toString(2).padStart(64, '0') };
  };

  const digits = (word, high, low) => word.bits.slice(63 - high, 64 - low);

  function value(word, high, low) {
    const part = digits(word, high, low);
    return part.length <= 8 ? part : '0x' + BigInt('0b' + part.padEnd(part.length + low, '0')).toString(16);
  }

  function range(high, low) { return high === low ? String(high) : high + ':' + low; }

  function strip(shown, other, label) {
    const fields = shown.fields.map(([name, high, low, isByte]) => {
      const bits = make('span', { class: 'bits' });
      for (let bit = high; bit >= low; bit -= 1) {
        const digit = shown.bits[63 - bit];
        bits.append(other && other.bits[63 - bit] !== digit ? make('b', {}, digit) : digit);
      }
      return make('span', { class: isByte ? 'field byte' : 'field' },
        make('span', { class: 'range' }, range(high, low)), bits, make('span', { class: 'name' }, text(name) || '\u00a0'));
    });
    return make('div', { class: 'strip', role: 'img', 'aria-label': label + ': 0x' + shown.hex + ', ' + shown.summary }, ...fields);
  }

  function fieldRows(after, before) {
    return after.fields.map(([name, high, low, isByte], index) => {
      const isSet = digits(after, high, low).includes('1') || (before && digits(before, high, low).includes('1'));
      // The picture has all bits. The table leaves out those that are 0 and mean nothing.
      if (!isSet && !text(after.meanings[index])) return null;
      const old = before && value(before, high, low);
      const now = value(after, high, low);
      const isChanged = before && old !== now;
      return make('tr', { class: [isByte && 'byte', isChanged && 'changed'].filter(Boolean).join(' ') || undefined },
        make('th', { scope: 'row' }, text(name) || 'no name'),
        make('td', { class: 'mono' }, '[' + range(high, low) + ']'),
        before ? make('td', { class: 'mono' }, old) : null,
        make('td', { class: 'mono after' }, now, isChanged ? make('span', { class: 'mark' }, ' changed') : null),
        make('td', {}, text(after.meanings[index])));
    }).filter(Boolean);
  }

  // MARK: Parts of a step

  function results(step, other) {
    const differs = other && other[STEP.results] !== step[STEP.results];
    return make('section', { class: 'part' },
      make('h3', { class: 'instruction mono' }, code(text(step[STEP.text]))),
      differs ? make('p', { class: 'differs' }, 'The two machines differ in this step.') : null,
      make('ul', { class: 'results', 'aria-label': 'Observations' },
        ...data.lists[step[STEP.results]].map((line) => make('li', {}, code(text(line))))));
  }

  function aborts(step) {
    const list = data.lists[step[STEP.aborts]];
    if (!list.length) return part('Aborts', make('p', { class: 'quiet' }, 'The step takes no abort to EL2.'));
    const shown = [];
    const seen = new Map();
    for (let index = 0; index < list.length; index += 3) {
      const key = list.slice(index, index + 3).join();
      if (seen.has(key)) { seen.get(key).count += 1; continue; }
      const abort = { words: list.slice(index, index + 3).map(word), count: 1, number: index / 3 + 1 };
      seen.set(key, abort);
      shown.push(abort);
    }
    const total = list.length / 3;
    return part(total === 1 ? 'The abort' : total + ' aborts', ...shown.map((abort, index) => {
      const [syndrome, far, hpfar] = abort.words;
      const times = abort.count > 1 ? ', ' + abort.count + ' times' : '';
      const title = (total > 1 ? 'Abort ' + abort.number + ': ' : '') + syndrome.summary + times;
      const names = ['ESR_EL2', 'FAR_EL2', 'HPFAR_EL2'];
      return make('details', { open: index === 0 },
        make('summary', {}, title),
        ...[syndrome, far, hpfar].flatMap((register, place) => [
          make('h4', {}, names[place], ' ', code('0x' + register.hex), ' ', register.summary),
          place === 0 ? strip(register, null, names[place]) : null,
          register.fields.length === 1 ? null : table('Fields of ' + names[place], ['Field', 'Bits', 'Value', 'Meaning'], fieldRows(register, null)),
        ]).filter(Boolean));
    }));
  }

  function calls(step) {
    const list = data.lists[step[STEP.events]];
    if (!list.length) return part('KVM’s functions', make('p', { class: 'quiet' }, 'KVM has no part in this step.'));
    const rows = [];
    for (let index = 0; index < list.length; index += 3) {
      const kind = text(list[index + 1]);
      rows.push(make('li', { class: 'd' + Math.min(list[index], 7) + ' ' + kind.replace(/[^a-z]+/g, '-') },
        make('span', { class: 'kind' }, kind), code(text(list[index + 2]))));
    }
    return part('KVM’s functions and events, in order',
      make('ol', { class: 'calls', tabindex: '0', 'aria-label': 'KVM’s functions and events, in order' }, ...rows));
  }

  function walk(beforeNumber, afterNumber) {
    const [before, after] = [data.walks[beforeNumber], data.walks[afterNumber]];
    const address = word(after[0]);
    const levels = new Map();
    for (const [side, list] of [['before', before], ['after', after]]) {
      for (let index = 1; index < list.length; index += 4) {
        const level = list[index];
        if (!levels.has(level)) levels.set(level, {});
        levels.get(level)[side] = { table: text(list[index + 1]), index: list[index + 2], entry: word(list[index + 3]) };
      }
    }
    const rows = [...levels.keys()].sort().map((level) => {
      const { before: old, after: now } = levels.get(level);
      const place = now || old;
      const isChanged = !old || !now || old.entry.hex !== now.entry.hex;
      return make('tr', { class: isChanged ? 'changed' : undefined },
        make('th', { scope: 'row' }, String(level)),
        make('td', { class: 'mono' }, place.table),
        make('td', { class: 'mono' }, String(place.index)),
        make('td', { class: 'mono' }, old ? old.entry.hex : '–'),
        make('td', { class: 'mono entry' }, now ? now.entry.hex : '–', isChanged ? make('span', { class: 'mark' }, ' changed') : null),
        make('td', {}, now ? now.entry.summary : 'the walk ends above'));
    });
    return part('The walk of ' + address.summary,
      strip(address, null, 'The address'),
      table('The walk of ' + address.summary + ' through the tables', ['Level', 'Table', 'Index', 'Entry before', 'Entry after', 'Is'], rows));
  }

  const last = (list) => word(list[list.length - 1]);

  function entry(beforeNumber, afterNumber) {
    const [old, now] = [last(data.walks[beforeNumber]), last(data.walks[afterNumber])];
    const isChanged = old.hex !== now.hex;
    const title = 'The entry of ' + word(data.walks[afterNumber][0]).summary;
    return part(title,
      isChanged ? make('h4', {}, 'Before ', code(old.hex), ' ', old.summary) : null,
      isChanged ? strip(old, now, 'The entry before') : null,
      make('h4', {}, isChanged ? 'After ' : 'Unchanged ', code(now.hex), ' ', now.summary),
      strip(now, isChanged ? old : null, 'The entry'),
      table('Fields of the entry', ['Field', 'Bits', 'Before', 'After', 'Meaning after'], fieldRows(now, old)));
  }

  function writes(step) {
    const list = data.lists[step[STEP.writes]];
    if (!list.length) return null;
    const rows = [];
    for (let index = 0; index < list.length; index += 3) {
      rows.push(make('tr', {},
        make('th', { scope: 'row', class: 'mono' }, text(list[index])),
        make('td', { class: 'mono' }, word(list[index + 1]).hex),
        make('td', { class: 'mono' }, word(list[index + 2]).hex),
        make('td', {}, word(list[index + 2]).summary)));
    }
    return part('Writes of entries, in order', table('Writes of entries', ['Entry at', 'Before', 'After', 'Is after'], rows));
  }

  function lines(title, step, place, none) {
    const list = data.lists[step[place]];
    if (!list.length) return none ? part(title, make('p', { class: 'quiet' }, none)) : null;
    return part(title, make('ul', { class: 'log' }, ...list.map((line) => make('li', {}, code(text(line))))));
  }

  // The lines of a log so far, of which the page shows the last ones.
  const logs = new Map();

  function log(machine, place) {
    const key = machine + ' ' + place;
    let kept = logs.get(key);
    if (!kept) { kept = { steps: 0, lines: [] }; logs.set(key, kept); }
    const { steps } = data.machines[machine];
    for (; kept.steps < steps.length; kept.steps += 1) {
      for (const line of data.lists[steps[kept.steps][place]]) kept.lines.push([kept.steps, line]);
    }
    return kept.lines;
  }

  function logPart(title, machine, number, place) {
    const all = log(machine, place);
    let [low, high] = [0, all.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (all[middle][0] <= number) low = middle + 1; else high = middle;
    }
    const shown = all.slice(Math.max(0, low - 8), low);
    return [make('h4', {}, title), shown.length
      ? make('ul', { class: 'log' }, ...shown.map(([at, line]) => make('li', { class: at === number ? 'now' : 'then' }, code(text(line)),
        at === number ? make('span', { class: 'only-read' }, ' (in this step)') : null)))
      : make('p', { class: 'quiet' }, 'no lines so far')];
  }

  // MARK: The page

  function pane(machine, other) {
    const { name, machine: description, notes, steps } = data.machines[machine];
    const number = Math.min(state.step, steps.length - 1);
    const head = [make('h2', { class: text(name) === document.title ? 'only-read' : undefined }, text(name)), make('p', { class: 'machine' }, code(text(description))),
      notes.length ? make('ul', { class: 'notes' }, ...notes.map((note) => make('li', {}, text(note)))) : null];
    if (number < 0) return make('section', { class: 'pane', 'aria-label': text(name) }, ...head.filter(Boolean), make('p', {}, 'There are no steps.'));
    const step = steps[number];
    const beside = other === -1 ? null : data.machines[other].steps[number];
    const walks = data.lists[step[STEP.walks]];
    const walkParts = [];
    for (let index = 0; index < walks.length; index += 2) walkParts.push(walk(walks[index], walks[index + 1]));
    const left = [results(step, beside), lines('Warnings', step, STEP.warnings, ''), aborts(step), calls(step)];
    const right = [walks.length ? entry(walks[0], walks[1]) : null, ...walkParts, writes(step),
      lines('TLB invalidations', step, STEP.invalidations, 'No TLB entry is invalidated.'),
      part('Logs', ...logPart('The guest’s kernel', machine, number, STEP.guest), ...logPart('The host’s kernel', machine, number, STEP.host))];
    return make('section', { class: 'pane', 'aria-label': text(name) }, ...head.filter(Boolean),
      make('div', { class: 'parts' }, make('div', { class: 'column' }, ...left.filter(Boolean)), make('div', { class: 'column' }, ...right.filter(Boolean))));
  }

  const shownMachines = () => state.second === -1 ? [state.first] : [state.first, state.second];
  const stepCount = () => Math.max(...shownMachines().map((machine) => data.machines[machine].steps.length));

  function link(number) {
    const machines = data.machines.length === 1 ? 'step' : shownMachines().map((machine) => machine + 1).join(',');
    return '#' + machines + '-' + (number + 1);
  }

  function title(number) {
    const { steps } = data.machines[state.first];
    const step = steps[Math.min(number, steps.length - 1)];
    return step ? text(step[STEP.text]) : '';
  }

  function drawNear() {
    const near = element('near');
    const hadFocus = near.contains(document.activeElement);
    const count = stepCount();
    const from = Math.max(0, Math.min(state.step - 4, count - 9));
    const items = [];
    for (let number = from; number < Math.min(count, from + 9); number += 1) {
      const step = data.machines[state.first].steps[number];
      const line = step ? text(step[STEP.text]) : 'the first machine has no such step';
      items.push(make('li', {}, make('a', { href: link(number), 'aria-current': number === state.step ? 'step' : undefined },
        (number + 1) + '. ', code(line))));
    }
    near.replaceChildren(make('h2', {}, 'Steps'), make('ol', {}, ...items));
    if (hadFocus) { const present = near.querySelector('[aria-current]'); if (present) present.focus(); }
  }

  function draw() {
    const count = stepCount();
    state.step = Math.max(0, Math.min(state.step, count - 1));
    const machines = shownMachines();
    const [first, second] = machines;
    const panes = machines.length === 1 ? [pane(first, -1)] : [pane(first, second), pane(second, first)];
    element('step').replaceChildren(make('div', { class: machines.length === 1 ? 'panes one' : 'panes two' }, ...panes));
    const slider = element('slider');
    slider.max = Math.max(1, count);
    slider.value = state.step + 1;
    const place = count ? 'Step ' + (state.step + 1) + ' of ' + count : 'No steps';
    slider.setAttribute('aria-valuetext', place + ': ' + title(state.step));
    element('place').textContent = place;
    element('status').textContent = place + ': ' + title(state.step);
    element('link').href = link(state.step);
    element('start').disabled = element('back').disabled = state.step === 0;
    element('end').disabled = element('forward').disabled = state.step >= count - 1;
    element('difference').hidden = element('difference-key').hidden = machines.length === 1;
    drawNear();
    // A browser limits how often a page may change its address. replaceState() makes no event hashchange: a late one would go back to this step.
    clearTimeout(state.linkTimer);
    state.linkTimer = setTimeout(() => history.replaceState(null, '', link(state.step)), 300);
  }

  function go(number) {
    const step = Math.max(0, Math.min(number, stepCount() - 1));
    if (step === state.step) return;
    state.step = step;
    draw();
  }

  function play(isOn) {
    clearInterval(state.timer);
    state.timer = 0;
    if (isOn) {
      if (state.step >= stepCount() - 1) go(0);
      state.timer = setInterval(() => {
        go(state.step + 1);
        if (state.step >= stepCount() - 1) play(false);
      }, 1200);
    }
    const button = element('play');
    button.textContent = state.timer ? 'Pause' : 'Play';
    button.setAttribute('aria-pressed', String(Boolean(state.timer)));
  }

  function nextDifference() {
    const [left, right] = shownMachines().map((machine) => data.machines[machine].steps);
    if (!right) return;
    const count = stepCount();
    for (let offset = 1; offset <= count; offset += 1) {
      const number = (state.step + offset) % count;
      const [one, two] = [left[number], right[number]];
      if (!one || !two || one[STEP.results] !== two[STEP.results]) { go(number); return; }
    }
    element('status').textContent = 'The two machines have the same observations in each step.';
    element('place').textContent = 'No differences';
  }

  function follow(hash) {
    const found = /^#(?:step|(\d+)(?:,(\d+))?)-(\d+)$/.exec(hash);
    if (!found) return false;
    const count = data.machines.length;
    const [first, second] = [found[1], found[2]].map((digits) => digits ? Number(digits) - 1 : -1);
    if (first >= count || second >= count) return false;
    if (found[1]) { state.first = Math.max(0, first); state.second = second; }
    state.step = Number(found[3]) - 1;
    drawChoice();
    draw();
    return true;
  }

  // MARK: Controls

  function drawChoice() {
    const count = data.machines.length;
    element('choice').hidden = count < 2;
    const options = data.machines.map((machine, index) => [index, (index + 1) + '. ' + text(machine.name)]);
    for (const [id, first, list] of [['first', state.first, options], ['second', state.second, [[-1, 'none'], ...options]]]) {
      const select = element(id);
      if (select.options.length !== list.length) select.replaceChildren(...list.map(([value, label]) => make('option', { value: String(value) }, label)));
      select.value = String(first);
    }
  }

  function setTheme(theme) {
    if (theme === 'automatic') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    element('theme').textContent = 'Theme: ' + theme;
  }

  const byHand = (action) => () => { play(false); action(); };

  element('start').addEventListener('click', byHand(() => go(0)));
  element('back').addEventListener('click', byHand(() => go(state.step - 1)));
  element('forward').addEventListener('click', byHand(() => go(state.step + 1)));
  element('end').addEventListener('click', byHand(() => go(stepCount() - 1)));
  element('difference').addEventListener('click', byHand(nextDifference));
  element('play').addEventListener('click', () => play(!state.timer));
  element('slider').addEventListener('input', byHand(() => go(Number(element('slider').value) - 1)));
  element('theme').addEventListener('click', () => {
    const present = document.documentElement.dataset.theme || 'automatic';
    setTheme(themes[(themes.indexOf(present) + 1) % themes.length]);
  });
  for (const id of ['first', 'second']) {
    element(id).addEventListener('change', () => {
      state[id] = Number(element(id).value);
      draw();
    });
  }
  addEventListener('hashchange', () => { if (location.hash !== link(state.step)) follow(location.hash); });

  const keys = {
    ArrowLeft: () => go(state.step - 1), ArrowRight: () => go(state.step + 1),
    Home: () => go(0), End: () => go(stepCount() - 1),
    PageUp: () => go(state.step - 10), PageDown: () => go(state.step + 10), d: nextDifference,
  };
  addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest('select, textarea, input:not([type=range])')) return;
    if (event.key === ' ') {
      if (event.target.closest('button, a, summary')) return;
      event.preventDefault();
      play(!state.timer);
      return;
    }
    // The slider has the same keys.
    const action = event.target.closest('input') ? undefined : keys[event.key];
    if (!action) return;
    event.preventDefault();
    play(false);
    action();
  });

  if (data.machines.length === 2) state.second = 1;
  if (!follow(location.hash)) { drawChoice(); draw(); }

  // For the script of a live page.
  return {
    make,
    steps: () => data.machines[0].steps.length,
    // Takes content: values that are new, or all values of a page that has begun anew.
    take(content, isNew) {
      const wasLast = state.step >= stepCount() - 1;
      if (isNew) {
        for (const name of ['strings', 'layouts', 'words', 'walks', 'lists']) data[name] = [];
        data.machines[0].steps = [];
        logs.clear();
      }
      for (const name of ['strings', 'layouts', 'words', 'walks', 'lists']) {
        for (const value of content[name]) data[name].push(value);
      }
      for (const step of content.machines[0].steps) data.machines[0].steps.push(step);
      if (wasLast && !state.timer) state.step = stepCount() - 1;
      draw();
    },
    last: () => go(stepCount() - 1),
    isLast: () => state.step >= stepCount() - 1,
  };
})();
