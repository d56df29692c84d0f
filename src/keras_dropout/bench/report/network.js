// Shows another step, or another variant, of the network: classes and numbers change, nothing is drawn anew.
document.addEventListener("DOMContentLoaded", () => {
  const root = document.getElementById("network");
  const picture = root.querySelector("svg[data-thinned]");
  if (!picture) return;
  const network = JSON.parse(document.getElementById("data").textContent).network;
  const slider = root.querySelector("input"), select = root.querySelector("select");
  const layers = [...picture.querySelectorAll(".units")];
  const size = (shape) => shape.reduce((product, n) => product * n, 1);

  // A mask's bits, the first one first.
  const unpacked = (hex, count) => Array.from({ length: count }, (_, i) => (parseInt(hex[i >> 2], 16) >> (3 - (i & 3))) & 1);

  // A mask's bits for each unit: on an axis of size 1 all share one.
  const spread = (bits, mask, shape) => Array.from({ length: size(shape) }, (_, unit) => {
    let at = 0, width = 1;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      if (mask[axis] > 1) {
        at += (unit % shape[axis]) * width;
        width *= mask[axis];
      }
      unit = Math.floor(unit / shape[axis]);
    }
    return bits[at];
  });

  function show() {
    const variant = select ? select.value : Object.keys(network.steps)[0];
    const drawn = network.steps[variant], sites = network.variants[variant];
    slider.max = drawn.steps.length - 1;
    const step = drawn.steps[slider.value], epoch = Math.floor((step.step - 1) / drawn.epoch_steps) + 1;
    const said = `step ${step.step.toLocaleString("en")}, epoch ${epoch}, seed ${drawn.seed}`;
    const counts = [], gone = {};
    for (const layer of layers) {
      const nodes = layer.dataset.nodes.split(" ").map(Number), [stride, count] = [+layer.dataset.stride, +layer.dataset.count];
      const here = sites.map((site, place) => ({ site, hex: step.masks[place] })).filter(({ site }) => nodes.includes(site.node));
      const masks = here.filter(({ hex }) => hex !== null).map(({ site, hex }) => ({ site, bits: unpacked(hex, size(site.mask)) }));
      const over = masks.map(({ site, bits }) => spread(bits, site.mask, network.nodes[site.node].shape));
      const kept = (unit) => over.every((bits) => bits[unit]);
      const states = layer.dataset.starts.split(" ").map((start) => {
        let left = 0;
        for (let n = 0; n < count; n++) left += kept(+start + n * stride);
        return left === count ? "" : left ? "part" : "gone";
      });
      states.forEach((state, n) => layer.children[n].setAttribute("class", state));
      gone[layer.dataset.layer] = layer.dataset.ends.split(" ").map((end) => {
        const [first, many] = end.split(":").map(Number);
        return states.slice(first, first + many).every((state) => state === "gone");
      });
      const bits = masks.length === 1 ? masks[0].bits : masks.length ? over[0].map((_, unit) => +kept(unit)) : [];
      const total = bits.reduce((sum, bit) => sum + bit, 0).toLocaleString("en");
      const text = bits.length ? `${total} of ${bits.length.toLocaleString("en")} kept` : here.length ? "mask not shown" : "";
      const caption = picture.querySelector(`[data-kept="${layer.dataset.layer}"]`);
      caption.textContent = text || caption.dataset.size;
      caption.setAttribute("class", text ? "" : "muted");
      if (text) counts.push(`${network.nodes[nodes[0]].name} ${text}`);
    }
    for (const lines of picture.querySelectorAll(".lines")) {
      const from = gone[lines.dataset.from], to = gone[lines.dataset.to], each = "each" in lines.dataset;
      [...lines.children].forEach((line, n) => {
        const [a, b] = each ? [n, n] : [Math.floor(n / to.length), n % to.length];
        line.setAttribute("class", from[a] || to[b] ? "gone" : "");
      });
    }
    for (const marks of root.querySelectorAll(".marks")) {
      marks.toggleAttribute("hidden", marks.dataset.variant !== variant);
      if (marks.dataset.variant !== variant) continue;
      for (const text of marks.querySelectorAll("[data-rate]")) {
        const rate = step.rates[text.dataset.rate];
        text.textContent = rate === null ? "" : `rate ${+rate.toPrecision(3)}`;
      }
    }
    picture.setAttribute("aria-label", `The thinned network of ${said}: ${counts.join("; ") || "no masks shown"}.`);
    root.querySelector("[data-variant-name]").textContent = variant;
    for (const place of root.querySelectorAll("output, [data-said]")) place.textContent = said;
    slider.setAttribute("aria-valuetext", said);
  }

  root.querySelector(".controls").hidden = false;
  slider.addEventListener("input", show);
  if (select) select.addEventListener("change", show);
  show(); // a browser may have kept the values of an earlier visit
});
