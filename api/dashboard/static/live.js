// Keeps a page's parts up to date: every few seconds the page is read again and the parts that have changed are replaced. When
// that fails the page says how old it is. Without this everything still works; a reload shows what is new.
"use strict";
(() => {
  for (const button of document.querySelectorAll("[data-copy]")) {
    if (!navigator.clipboard) break;
    button.hidden = false;
    const label = button.textContent;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = label; }, 1500);
    });
  }

  const seconds = Number(document.body.dataset.live);
  if (!seconds) return;
  const stale = document.getElementById("stale");
  let read = new Date();
  const age = (failed) => {
    stale.hidden = !failed;
    if (failed) stale.textContent = `Not updated since ${read.toISOString().slice(11, 19)} UTC: memhook does not answer. What you see may be out of date.`;
  };
  // A part with the focus or an open form is left as it is. No part has fields outside of such forms.
  const busy = (part) => (part.contains(document.activeElement) && document.activeElement !== part) || part.querySelector("details[open]");
  const refresh = async () => {
    if (document.visibilityState !== "visible") return;
    const answer = await fetch(location.href, { credentials: "same-origin", redirect: "error", signal: AbortSignal.timeout(5000) });
    if (answer.status === 401) return location.reload(); // a portal that has closed says so
    if (!answer.ok) throw new Error(answer.status);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-part]")) {
      const now = fresh.getElementById(part.id);
      if (now && now.innerHTML !== part.innerHTML && !busy(part)) part.replaceChildren(...now.childNodes);
    }
    const time = fresh.querySelector("footer time");
    if (time) document.querySelector("footer time").replaceWith(time);
    read = new Date();
  };
  const loop = async () => {
    try {
      await refresh();
      age(false);
    } catch {
      age(true); // the next round tries again
    }
    setTimeout(loop, seconds * 1000);
  };
  setTimeout(loop, seconds * 1000);
})();
