// What pages gain with script: they renew themselves, count down, open forms in a dialog, copy texts. All of it works without.
"use strict";
(() => {
  // --- countdowns ---------------------------------------------------------------------------------------------------------------
  const words = (seconds) => {
    const h = Math.floor(seconds / 3600), m = Math.floor(seconds / 60) % 60, s = seconds % 60;
    if (h > 0) return m > 0 ? `${h} h ${m} min` : `${h} h`;
    if (m >= 5) return `${m} min`;
    return m > 0 ? `${m} min ${s} s` : `${s} s`;
  };
  const over = new Set();
  const tick = () => {
    for (const mark of document.querySelectorAll("[data-until]")) {
      const left = Math.max(0, Math.round((Date.parse(mark.dataset.until) - Date.now()) / 1000));
      mark.textContent = words(left);
      mark.classList.toggle("soon", left < 900);
      const id = `${mark.dataset.until}`;
      if (left === 0 && !over.has(id)) {
        over.add(id);
        changed();
      }
    }
    for (const mark of document.querySelectorAll("time[datetime]:not([data-local])")) {
      const at = new Date(mark.getAttribute("datetime"));
      if (isNaN(at)) continue;
      const two = (n) => String(n).padStart(2, "0");
      mark.title = mark.textContent;
      mark.textContent = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}`;
      mark.dataset.local = "";
    }
  };

  // --- live ---------------------------------------------------------------------------------------------------------------------
  let due = 0;
  const changed = () => {
    clearTimeout(due);
    due = setTimeout(() => document.body.dispatchEvent(new CustomEvent("daypass")), 60);
  };
  if (document.querySelector("[data-live]")) {
    const source = new EventSource("/live");
    // the first word tells what happened since the page was written, or while the line was down
    source.addEventListener("changed", (event) => {
      if (document.querySelector("[data-live]")?.dataset.live !== event.data) changed();
    });
    addEventListener("pagehide", () => source.close());
  }

  // --- forms in a dialog --------------------------------------------------------------------------------------------------------
  const dialog = document.getElementById("dialog");
  document.addEventListener("htmx:after:swap", () => {
    tick();
    reveal();
    if (dialog && dialog.querySelector("form, section") && !dialog.open) dialog.showModal();
    // what was replaced took the focus with it: on to what went wrong, else to the first field
    if (document.activeElement && document.activeElement !== document.body && document.activeElement !== dialog) return;
    const form = dialog?.open ? dialog : document.getElementById("form");
    (form?.querySelector("[role=alert]") ?? form?.querySelector("input:not([type=hidden]):not([hidden]), select, textarea"))?.focus();
  });
  dialog?.addEventListener("close", () => { dialog.querySelector("#dialog-body").replaceChildren(); });
  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-close]") && dialog?.open) {
      event.preventDefault();
      dialog.close();
    }
    const copy = event.target.closest("[data-copy]");
    if (copy) {
      const text = document.getElementById(copy.dataset.copy)?.textContent ?? "";
      navigator.clipboard.writeText(text).then(() => {
        const label = copy.textContent;
        copy.textContent = "Copied";
        setTimeout(() => { copy.textContent = label; }, 1500);
      });
    }
  });
  const reveal = () => { for (const button of document.querySelectorAll("[data-copy][hidden]")) button.hidden = false; };

  // one menu at a time, and Escape closes it
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of document.querySelectorAll("details.menu[open]")) { menu.open = false; menu.querySelector("summary").focus(); }
  });
  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
  });

  tick();
  reveal();
  setInterval(tick, 1000);
})();
