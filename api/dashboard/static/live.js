// Keeps a page's parts up to date: every few seconds the page is read again and the parts that have changed
// are replaced. Without it everything still works; a reload shows what is new.
"use strict";
(() => {
  const seconds = Number(document.body.dataset.live);
  if (!seconds) return;
  const busy = (part) => part.contains(document.activeElement) && document.activeElement !== part;
  const refresh = async () => {
    if (document.visibilityState !== "visible") return;
    const answer = await fetch(location.href, { credentials: "same-origin", redirect: "error" });
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-part]")) {
      const now = fresh.getElementById(part.id);
      if (now && now.innerHTML !== part.innerHTML && !busy(part)) part.replaceChildren(...now.childNodes);
    }
    const time = fresh.querySelector("footer time");
    if (time) document.querySelector("footer time").replaceWith(time);
  };
  const loop = async () => {
    try {
      await refresh();
    } catch {
      // the service is away for a moment: the next round tries again
    }
    setTimeout(loop, seconds * 1000);
  };
  setTimeout(loop, seconds * 1000);
})();
