"use strict";
(() => {
  const all = (where, selector) => [...where.querySelectorAll(selector)];
  const name = document.title.replace(/[^\w-]+/g, "-").replace(/^-|-$/g, "").slice(0, 60);
  all(document, "[data-js]").forEach((part) => { part.hidden = false; });

  const save = (file, blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = file;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };

  // A chart on its own: colours as they are on the page now, on the page's ground, without what only the page uses.
  const alone = (figure) => {
    const svg = figure.querySelector("svg").cloneNode(true);
    const style = getComputedStyle(document.documentElement);
    all(svg, "[data-tip]").forEach((mark) => mark.removeAttribute("data-tip"));
    svg.setAttribute("font-family", "system-ui, sans-serif");
    svg.setAttribute("style", `background: ${style.getPropertyValue("--paper")}`);
    for (const name of ["fill", "stroke"]) {
      all(svg, `[${name}^="var("]`).forEach((mark) => mark.setAttribute(name, style.getPropertyValue(mark.getAttribute(name).slice(4, -1))));
    }
    return new XMLSerializer().serializeToString(svg);
  };
  all(document, "figure[id]").forEach((figure) => {
    const file = `${name}-${figure.id}`;
    figure.querySelector("[data-save=svg]").addEventListener("click", () => {
      save(`${file}.svg`, new Blob([alone(figure)], { type: "image/svg+xml" }));
    });
    figure.querySelector("[data-save=png]").addEventListener("click", () => {
      const svg = figure.querySelector("svg"), image = new Image(), canvas = document.createElement("canvas");
      canvas.width = 3 * svg.width.baseVal.value;
      canvas.height = 3 * svg.height.baseVal.value;
      image.onload = () => {
        const paint = canvas.getContext("2d");
        paint.fillStyle = getComputedStyle(document.body).backgroundColor;
        paint.fillRect(0, 0, canvas.width, canvas.height);
        paint.drawImage(image, 0, 0, canvas.width, canvas.height);
        canvas.toBlob((blob) => save(`${file}.png`, blob), "image/png");
      };
      image.src = `data:image/svg+xml,${encodeURIComponent(alone(figure))}`;
    });
  });

  all(document, "table.runs").forEach((table) => {
    const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells], box = table.closest("section");
    const value = (cell) => cell.dataset.value ?? cell.textContent.trim();
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
        const order = (one, other) => {
          const a = value(one.cells[column]), b = value(other.cells[column]);
          if (a === "" || b === "") return (a === "") - (b === ""); // no value comes last either way
          return sign * (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b);
        };
        body.append(...[...body.rows].sort(order));
      });
    });
    const shown = box.querySelector("output"), filter = box.querySelector("input");
    filter.addEventListener("input", () => {
      const words = filter.value.toLowerCase().split(/\s+/);
      const rows = [...body.rows];
      rows.forEach((row) => { row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word)); });
      shown.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} runs`;
    });
    box.querySelector("[data-save=csv]").addEventListener("click", () => {
      // A spreadsheet would compute a text that begins so; behind an apostrophe it is a text.
      const safe = (text) => (/^\s*[=+\-@＝＋－＠]/.test(text) && isNaN(text) ? `'${text}` : text);
      const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
      const line = (cells) => cells.map((text) => quoted(safe(text))).join(",");
      const rows = [...body.rows].filter((row) => !row.hidden).map((row) => line([...row.cells].map(value)));
      const text = [line(heads.map((head) => head.dataset.name)), ...rows].join("\r\n") + "\r\n";
      save(`${name}-runs.csv`, new Blob([text], { type: "text/csv" }));
    });
  });

  const tip = document.getElementById("tip");
  document.addEventListener("pointermove", (event) => {
    const mark = event.target.closest?.("[data-tip]");
    tip.hidden = !mark;
    if (!mark) return;
    tip.textContent = mark.dataset.tip;
    tip.style.left = `${Math.max(0, Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${Math.max(0, event.clientY - tip.offsetHeight - 10)}px`;
  });
  let closed = []; // opened for paper, and closed again
  addEventListener("beforeprint", () => {
    closed = all(document, "details:not([open])");
    closed.forEach((part) => { part.open = true; });
  });
  addEventListener("afterprint", () => closed.forEach((part) => { part.open = false; }));
})();
