// Keeps #live as the server has it: what differs is replaced, all else is left alone, so that focus and
// selection stay where they are.
"use strict";
(() => {
  const live = document.getElementById("live");
  const told = document.getElementById("told");
  let heard = Date.now();
  let refused = false;

  const same = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName;
  const morph = (from, to) => {
    if (from.nodeType === Node.TEXT_NODE) {
      if (from.data !== to.data) from.data = to.data;
      return;
    }
    if (from.nodeType === Node.ELEMENT_NODE) {
      // What a reader has opened stays open.
      const keeps = (name) => from.nodeName === "DETAILS" && name === "open";
      for (const { name } of [...from.attributes]) {
        if (!to.hasAttribute(name) && !keeps(name)) from.removeAttribute(name);
      }
      for (const { name, value } of to.attributes) {
        if (from.getAttribute(name) !== value) from.setAttribute(name, value);
      }
    }
    const [old, now] = [[...from.childNodes], [...to.childNodes]];
    now.forEach((node, at) => {
      if (at >= old.length) from.appendChild(document.importNode(node, true));
      else if (same(old[at], node)) morph(old[at], node);
      else from.replaceChild(document.importNode(node, true), old[at]);
    });
    old.slice(now.length).forEach((node) => node.remove());
  };

  const say = (text) => {
    if (told.textContent !== text) told.textContent = text;
  };
  const listen = () => {
    const events = new EventSource("/live");
    events.onmessage = (event) => {
      heard = Date.now();
      refused = false;
      const page = new DOMParser().parseFromString(event.data, "text/html");
      morph(live, page.getElementById("live"));
      say("Live.");
    };
    events.onerror = () => {
      // It connects again by itself, unless the server has refused.
      if (events.readyState === EventSource.CLOSED) {
        refused = true;
        setTimeout(listen, 5000);
      }
    };
  };
  setInterval(() => {
    if (Date.now() - heard > 7000) {
      const at = new Date(heard).toLocaleTimeString();
      say(refused
        ? `Not live: as many pages as may be are kept up to date already. What is shown is from ${at}.`
        : `Not live: nothing was heard from the process since ${at}. What is shown is from then.`);
    }
  }, 1000);
  listen();
})();
