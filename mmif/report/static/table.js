"use strict";
// Sorts a table at a click on a column's head: figures as figures, texts as texts, blanks last.
(() => {
  const key = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.sort ?? cell.textContent.trim();
    const figure = Number(text.replace("−", "-"));
    return { blank: text === "" || text === "nan", text, figure: text === "" ? NaN : figure };
  };
  const compare = (a, b) => {
    const figures = !Number.isNaN(a.figure) && !Number.isNaN(b.figure);
    return figures ? a.figure - b.figure : a.text.localeCompare(b.text);
  };
  const sort = (table, head) => {
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => ({ row, key: key(row, head.cellIndex) }));
    rows.sort((a, b) => {
      if (a.key.blank || b.key.blank) return a.key.blank - b.key.blank;
      return down ? compare(b.key, a.key) : compare(a.key, b.key);
    });
    body.append(...rows.map((entry) => entry.row));
  };
  for (const button of document.querySelectorAll("table.sortable th > button")) {
    button.addEventListener("click", () => sort(button.closest("table"), button.parentElement));
  }
})();
