// What the viewer and the picking page share.
"use strict";
const ptrackPage = {
  // Whether (x, y) lies in a polygon of [x, y] corners.
  inPolygon(polygon, x, y) {
    let odd = false;
    for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
      const [xi, yi] = polygon[i], [xj, yj] = polygon[j];
      if (yi > y !== yj > y && x < (xj - xi) * (y - yi) / (yj - yi) + xi) odd = !odd;
    }
    return odd;
  },

  // A list of options with one tab stop for all (roving tabindex): arrows, Home, End and Page keys move through it.
  // moved(option) is called after a move by key, keys[name](option) for other keys. Returns make(option), which makes
  // an option the tab stop; with focus it is focused too.
  rovingList(list, moved, keys = {}) {
    const make = (option, focus = false) => {
      for (const other of list.querySelectorAll('[role="option"][tabindex="0"]')) other.tabIndex = -1;
      if (!option) return;
      option.tabIndex = 0;
      if (focus) option.focus();
    };
    list.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const options = [...list.querySelectorAll('[role="option"]')].filter((option) => option.style.display !== "none");
      const at = options.indexOf(event.target.closest('[role="option"]'));
      if (at < 0) return;
      const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + 10, PageUp: at - 10, Home: 0, End: options.length - 1 }[event.key];
      if (to === undefined && !keys[event.key]) return;
      event.preventDefault();
      event.stopPropagation();
      if (to === undefined) { keys[event.key](options[at]); return; }
      const option = options[Math.max(0, Math.min(options.length - 1, to))];
      make(option, true);
      moved(option);
    });
    return make;
  },

  // Dark or light: as the system has it until it is turned.
  setTheme(name) { document.documentElement.dataset.theme = name; },
  turnTheme() { ptrackPage.setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"); },
};
ptrackPage.setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
