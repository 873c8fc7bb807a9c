'use strict';
// Keeps the page as the server would draw it now. Only what changed is put in, so that an open table,
// the focus and the place in the timeline stay where they are.
(() => {
  const pulse = document.getElementById('pulse');
  const pause = ms => new Promise(done => setTimeout(done, ms));
  const two = n => String(n).padStart(2, '0');
  let skew = 0;
  let heard = Date.now();

  const short = s => s < 60 ? s + 's'
    : s < 3600 ? Math.floor(s / 60) + 'm' + two(s % 60) + 's'
    : s < 86400 ? Math.floor(s / 3600) + 'h' + two(Math.floor(s % 3600 / 60)) + 'm'
    : Math.floor(s / 86400) + 'd' + two(Math.floor(s % 86400 / 3600)) + 'h';

  function tick() {
    for (const time of document.querySelectorAll('time.age')) {
      const age = Math.floor((Date.now() + skew - Date.parse(time.dateTime)) / 1000);
      const text = short(Math.max(0, age || 0));
      if (time.textContent !== text) time.textContent = text;
    }
  }

  function say(state, text) {
    if (pulse.className !== state) pulse.className = state;
    if (pulse.textContent !== text) pulse.textContent = text;
  }

  // Said aloud by screen readers whenever it changes.
  function live() {
    say('live', 'live, ' + document.getElementById('live').dataset.status);
  }

  function replace(old, fresh) {
    for (const open of old.querySelectorAll('details[open]')) {
      const same = fresh.querySelector('#' + CSS.escape(open.id));
      if (same) same.open = true;
    }
    const focused = old.contains(document.activeElement) ? document.activeElement.id : '';
    old.replaceWith(fresh);
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }

  function sync(list, fresh) {
    let at = list.firstElementChild;
    for (const child of [...fresh.children]) {
      const old = document.getElementById(child.id);
      if (!old || old.parentNode !== list) {
        child.classList.add('fresh');
        list.insertBefore(child, at);
        continue;
      }
      if (old === at) at = at.nextElementSibling; else list.insertBefore(old, at);
      if (old.dataset.tag !== child.dataset.tag) replace(old, child);
    }
    while (at) {
      const gone = at;
      at = at.nextElementSibling;
      gone.remove();
    }
  }

  function take(text) {
    const doc = new DOMParser().parseFromString(text, 'text/html');
    const fresh = doc.getElementById('live');
    const live = document.getElementById('live');
    const top = doc.getElementById('top');
    if (top.dataset.tag !== document.getElementById('top').dataset.tag) {
      replace(document.getElementById('top'), document.adoptNode(top));
    }
    for (const list of doc.querySelectorAll('[data-list]')) {
      sync(document.getElementById(list.id), document.adoptNode(list));
    }
    Object.assign(live.dataset, fresh.dataset);
    document.title = live.dataset.title;
    document.getElementById('icon').href = live.dataset.icon;
    skew = Number(live.dataset.now) - Date.now();
  }

  function seen() {
    return new Promise(done => {
      if (!document.hidden) return done();
      document.addEventListener('visibilitychange', () => done(seen()), { once: true });
    });
  }

  async function ask() {
    const tag = document.getElementById('live').dataset.tag;
    const answer = await fetch('/page/updates?seen=' + encodeURIComponent(tag), {
      cache: 'no-store', signal: AbortSignal.timeout(40000),
    });
    if (!answer.ok) throw new Error(String(answer.status));
    if (answer.status === 200) take(await answer.text());
    heard = Date.now();
    live();
    return Number(answer.headers.get('retry-after') || 0) * 1000;
  }

  async function follow() {
    for (;;) {
      await seen();
      let wait = 1000;
      try {
        wait = Math.max(wait, await ask());
      } catch {
        say('lost', 'no answer since ' + new Date(heard).toLocaleTimeString() + ': what you see is old');
        wait = 2000;
      }
      tick();
      await pause(wait);
    }
  }

  skew = Number(document.getElementById('live').dataset.now) - Date.now();
  live();
  setInterval(tick, 1000);
  follow();
})();
