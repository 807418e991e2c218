(() => {
  const live = JSON.parse(document.getElementById('live').textContent);
  const { make } = page;
  let epoch = live.epoch;

  const answer = make('pre', { class: 'answer', role: 'log', 'aria-label': 'The answer of control', tabindex: '0' });
  const state = make('p', { class: 'quiet', role: 'status' }, 'Live: new steps come by themselves while the last step is shown.');

  async function control(line) {
    const response = await fetch('control', { method: 'POST', headers: { 'Content-Type': 'text/plain', 'X-Virt-Walker': 'control' }, body: line + '\n' });
    answer.textContent = await response.text();
    if (!page.isLast()) page.last();
  }

  function report(error) { answer.textContent = 'The page cannot reach its server: ' + error.message; }

  function drawControls() {
    const buttons = live.controls.map(([label, line]) => {
      const button = make('button', { type: 'button', title: line }, label);
      button.addEventListener('click', () => control(line).catch(report));
      return button;
    });
    const field = make('input', { type: 'text', id: 'line', maxlength: '254', autocomplete: 'off', spellcheck: 'false', placeholder: 'guest fetch 0x40000000' });
    const form = make('form', { class: 'line' }, make('label', { for: 'line' }, 'A line for control '), field, ' ', make('button', { type: 'submit' }, 'Perform'));
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      if (field.value) control(field.value).catch(report);
    });
    return make('section', { class: 'part live', 'aria-label': 'Control' }, make('h2', {}, 'Control'), make('div', { class: 'buttons' }, ...buttons), form, answer);
  }

  document.querySelector('.controls').after(make('div', {}, state, live.controls.length ? drawControls() : null));
  page.last();

  const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

  async function follow() {
    for (;;) {
      try {
        const response = await fetch('changes/' + epoch + '/' + page.steps());
        if (!response.ok) throw new Error((await response.text()).trim());
        if (response.status === 200) {
          const changes = await response.json();
          epoch = changes.epoch;
          page.take(changes.content, changes.isNew);
        }
        state.textContent = 'Live: new steps come by themselves while the last step is shown.';
      } catch (error) {
        state.textContent = 'Not live: ' + error.message + '. The page tries again.';
        await pause(2000);
      }
    }
  }

  follow();
})();
