// Sorting and filtering of tables. Without it the page says the same, in the order of the records.
"use strict";
(() => {
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const key = (row, column) => {
    const cell = row.cells[column];
    return cell === undefined ? "" : cell.dataset.sort ?? cell.textContent.trim();
  };
  const compare = (one, other) => {
    const [a, b] = [Number(one), Number(other)];
    if (one !== "" && other !== "" && !Number.isNaN(a) && !Number.isNaN(b)) return a - b;
    return collator.compare(one, other);
  };

  const sortable = (table) => {
    const body = table.tBodies[0];
    const original = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        if (before === "descending") {
          body.append(...original);
          return;
        }
        const sign = before === "ascending" ? -1 : 1;
        head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
        const rows = original.map((row) => [key(row, column), row]);
        rows.sort(([a], [b]) => sign * compare(a, b));
        body.append(...rows.map(([, row]) => row));
      });
    });
  };

  const filterable = (table) => {
    const rows = [...table.tBodies[0].rows];
    const place = table.closest(".scroll");
    const label = document.createElement("label");
    label.className = "filter";
    const input = document.createElement("input");
    input.type = "search";
    const status = document.createElement("output");
    label.append("Filter rows ", input);
    const line = document.createElement("p");
    line.className = "filters";
    line.append(label, status);
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let left = 0;
      rows.forEach((row) => {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        left += row.hidden ? 0 : 1;
      });
      status.textContent = words.length ? `${left} of ${rows.length} rows` : "";
    });
    place.before(line);
  };

  document.querySelectorAll("table.sortable").forEach((table) => {
    sortable(table);
    if (table.tBodies[0].rows.length > 7) filterable(table);
  });
  // What is folded away is printed all the same, unless it is minor.
  const folded = [];
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll("details:not(.minor):not([open])").forEach((one) => {
      one.open = true;
      folded.push(one);
    });
  });
  window.addEventListener("afterprint", () => {
    folded.splice(0).forEach((one) => {
      one.open = false;
    });
  });
})();
