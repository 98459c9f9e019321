"use strict";

// Decodes a point of the latent space, E[x|z], as the reader moves it. What it computes with is in the page.
(() => {
  const holder = document.getElementById("explorer-data");
  if (!holder) return;
  const spec = JSON.parse(holder.textContent);
  const find = (id) => document.getElementById(id);

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const floats = (text) => new Float32Array(bytes(text));

  // Abramowitz & Stegun 7.1.26, to 1.5e-7.
  const erf = (x) => {
    const t = 1 / (1 + 0.3275911 * Math.abs(x));
    const poly = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
    return Math.sign(x) * (1 - poly * Math.exp(-x * x));
  };
  const sigmoid = (x) => 1 / (1 + Math.exp(-x));
  const ACTIVATIONS = {
    "": (x) => x,
    relu: (x) => Math.max(0, x),
    gelu: (x) => 0.5 * x * (1 + erf(x * Math.SQRT1_2)),
    silu: (x) => x * sigmoid(x),
    tanh: Math.tanh,
    softplus: (x) => Math.max(0, x) + Math.log1p(Math.exp(-Math.abs(x))),
  };
  const LINKS = { identity: (x) => x, sigmoid, exp: Math.exp };

  function network() {
    const layers = spec.layers.map(({ bits, weight, scale, bias, activation }) => {
      const rounded = bits === 16 ? new Int16Array(bytes(weight)) : new Int8Array(bytes(weight));
      const scales = floats(scale);
      const inputs = rounded.length / scales.length;
      const weights = Float32Array.from(rounded, (value, i) => value * scales[Math.floor(i / inputs)]);
      return { inputs, weights, biases: floats(bias), activate: ACTIVATIONS[activation] };
    });
    const factors = floats(spec.factors);
    const links = spec.links.flatMap(([name, count]) => Array(count).fill(LINKS[name]));
    return (z) => {
      let x = z;
      for (const { inputs, weights, biases, activate } of layers) {
        const out = new Float32Array(biases.length);
        for (let o = 0, w = 0; o < out.length; o++) {
          let sum = biases[o];
          for (let i = 0; i < inputs; i++, w++) sum += weights[w] * x[i];
          out[o] = activate(sum);
        }
        x = out;
      }
      return x.map((raw, d) => factors[d] * links[d](raw));
    };
  }

  // Bilinear interpolation between means that were decoded beforehand.
  function grid() {
    const { size } = spec.grid;
    const values = new Uint16Array(bytes(spec.grid.values));
    const low = floats(spec.grid.low);
    const high = floats(spec.grid.high);
    const nearest = new Set(spec.grid.nearest); // categories, of which nothing is between two
    const place = (z, j) => {
      const at = ((z[j] - spec.from[j]) / (spec.to[j] - spec.from[j])) * (size - 1);
      const node = Math.min(size - 2, Math.max(0, Math.floor(at)));
      return [node, at - node];
    };
    return (z) => {
      const [i, right] = place(z, spec.chosen[0]);
      const [j, up] = place(z, spec.chosen[1]);
      return low.map((least, d) => {
        const node = (b, a) => values[(b * size + a) * low.length + d];
        const [across, along] = nearest.has(d) ? [right, up].map((part) => (part >= 0.5 ? 1 : 0)) : [right, up];
        const below = (1 - across) * node(j, i) + across * node(j, i + 1);
        const above = (1 - across) * node(j + 1, i) + across * node(j + 1, i + 1);
        return least + ((high[d] - least) * ((1 - along) * below + along * above)) / 65535;
      });
    };
  }

  const part = (value, d) => {
    const low = spec.low[d % spec.low.length];
    return Math.min(1, Math.max(0, (value - low) / (spec.high[d % spec.high.length] - low)));
  };

  function image() {
    const [channels, height, width] = spec.shape;
    const canvas = find("picture");
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d", { willReadFrequently: true }); // written pixel by pixel, not drawn on
    const pixels = context.createImageData(width, height);
    const area = width * height;
    return (x) => {
      for (let p = 0; p < area; p++) {
        for (let c = 0; c < 3; c++) pixels.data[4 * p + c] = 255 * part(x[(channels === 3 ? c : 0) * area + p], 0);
        pixels.data[4 * p + 3] = 255;
      }
      context.putImageData(pixels, 0, 0);
    };
  }

  // A column's value as the reader knows it, from the model's.
  function written(value, { loc = 0, scale = 1, categories, seconds }) {
    const own = value * scale + loc;
    if (categories) return categories[Math.round(own)] ?? String(Math.round(own));
    if (seconds) return new Date(1000 * seconds * own).toISOString().slice(0, seconds > 1 ? 10 : 19).replace("T", " ");
    return own.toPrecision(4).replace("-", "−");
  }

  function columns() {
    const rows = spec.columns.map(({ name, ...facts }, d) => {
      const row = find("columns").insertRow();
      row.appendChild(Object.assign(document.createElement("th"), { textContent: name, scope: "row" }));
      const meter = row.insertCell().appendChild(document.createElement("meter"));
      meter.setAttribute("aria-label", name);
      return { meter, value: row.insertCell(), facts, d };
    });
    return (x) => {
      for (const { meter, value, facts, d } of rows) {
        meter.value = part(x[d], d);
        value.textContent = written(x[d], facts);
      }
    };
  }

  const decode = spec.layers ? network() : grid();
  const draw = spec.shape.length === 3 ? image() : columns();

  const pad = find("pad");
  const marker = find("marker");
  const sliders = [find("across"), find("up")];
  const choices = [find("across-dimension"), find("up-dimension")];
  const SIDE = 200; // of the pad's drawing

  const z = spec.base.slice();
  const axes = spec.chosen.slice();
  const name = (j) => `z${String(j + 1).replace(/\d/g, (digit) => "₀₁₂₃₄₅₆₇₈₉"[digit])}`;
  const span = (j) => spec.to[j] - spec.from[j];
  const place = (j, value) => (SIDE * (value - spec.from[j])) / span(j);
  const text = (value) => value.toFixed(2).replace("-", "−");

  let due = false;
  function update() {
    if (due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      draw(decode(z));
      marker.setAttribute("transform", `translate(${place(axes[0], z[axes[0]])} ${SIDE - place(axes[1], z[axes[1]])})`);
      const at = axes.map((j) => `${name(j)} = ${text(z[j])}`);
      find("position").textContent = at.join(",  ");
      pad.setAttribute("aria-valuenow", z[axes[0]].toFixed(2));
      pad.setAttribute("aria-valuetext", at.join(", "));
      pad.dataset.z = z.join(" ");
      sliders.forEach((slider, i) => {
        slider.value = z[axes[i]];
        slider.setAttribute("aria-valuetext", at[i]);
      });
    });
  }

  function move(i, value) {
    const j = axes[i];
    z[j] = Math.min(spec.to[j], Math.max(spec.from[j], value));
    update();
  }

  function show() {
    const group = find("points");
    const index = axes.map((j) => spec.axes.indexOf(j));
    group.replaceChildren(
      ...spec.points.map((code, n) => {
        const point = document.createElementNS("http://www.w3.org/2000/svg", "circle");
        point.setAttribute("cx", place(axes[0], code[index[0]]));
        point.setAttribute("cy", SIDE - place(axes[1], code[index[1]]));
        point.setAttribute("r", 1.6);
        point.setAttribute("class", spec.labels ? `point c${spec.labels[n]}` : "point");
        return point;
      }),
    );
    axes.forEach((j, i) => {
      find(`${sliders[i].id}-name`).textContent = name(j);
      sliders[i].min = spec.from[j];
      sliders[i].max = spec.to[j];
      sliders[i].step = span(j) / 400;
      if (choices[i]) choices[i].value = j;
    });
    pad.setAttribute("aria-valuemin", spec.from[axes[0]].toFixed(2));
    pad.setAttribute("aria-valuemax", spec.to[axes[0]].toFixed(2));
    update();
  }

  function point(event) {
    const box = pad.getBoundingClientRect();
    move(0, spec.from[axes[0]] + ((event.clientX - box.left) / box.width) * span(axes[0]));
    move(1, spec.to[axes[1]] - ((event.clientY - box.top) / box.height) * span(axes[1]));
  }

  pad.addEventListener("pointerdown", (event) => {
    pad.setPointerCapture(event.pointerId);
    point(event);
  });
  pad.addEventListener("pointermove", (event) => {
    if (pad.hasPointerCapture(event.pointerId)) point(event);
  });

  const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowDown: [1, -1], ArrowUp: [1, 1] };
  pad.addEventListener("keydown", (event) => {
    if (event.key === "Home") {
      start(spec.base);
    } else if (STEPS[event.key] && !event.altKey && !event.ctrlKey && !event.metaKey) {
      const [i, sign] = STEPS[event.key];
      move(i, z[axes[i]] + (sign * (event.shiftKey ? 10 : 2) * span(axes[i])) / 100);
    } else {
      return;
    }
    event.preventDefault();
  });

  sliders.forEach((slider, i) => slider.addEventListener("input", () => move(i, Number(slider.value))));

  choices.forEach((choice, i) => {
    if (!choice) return;
    choice.addEventListener("change", () => {
      const chosen = Number(choice.value);
      if (axes[1 - i] === chosen) axes[1 - i] = axes[i];
      axes[i] = chosen;
      show();
    });
  });

  function start(from) {
    from.forEach((value, j) => {
      z[j] = value;
    });
    update();
  }
  document.querySelectorAll("[data-start]").forEach((button) => {
    button.addEventListener("click", () => {
      const which = button.dataset.start;
      start(which === "mean" ? spec.base : spec.starts[which]);
    });
  });

  show();
  find("explorer-body").hidden = false;
})();
