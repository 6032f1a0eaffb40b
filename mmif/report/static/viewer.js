"use strict";
// The viewer: three planes of two or three sources and their fusion, drawn on 2-D canvases.
// Voxels (i, j, k): i from the patient's right to left, j from front to back, k from feet to head.
(() => {
  const root = document.getElementById("viewer");
  const study = JSON.parse(document.getElementById("study").textContent);
  const [X, Y, Z] = study.shape;
  const PLANES = {
    axial: { across: 0, down: 1, normal: 2, flipped: false },
    coronal: { across: 0, down: 2, normal: 1, flipped: true },
    sagittal: { across: 1, down: 2, normal: 0, flipped: true },
  };
  const STRIDES = [1, X, X * Y];
  const EDGE = [255, 150, 50];
  const MOVED = ["moving", "third"].filter((name) => study.volumes[name]);
  const SOURCES = ["reference", ...MOVED, "fused"];
  const codes = {};
  const query = (selector) => root.querySelector(selector);
  const state = {
    at: [...study.start],
    mode: "fused",
    blend: 0.5,
    swapped: false,
    flickering: true,
    rate: 1,
    cell: 20,
    against: "moving",
    edges: "moving-on-reference",
    before: false,
    smooth: true,
    cross: true,
    zoom: 1,
    centre: [...study.start],
    windowed: "fused",
    windows: Object.fromEntries(SOURCES.map((name) => [name, [...study.volumes[name].window]])),
  };

  // ---- values and brightness ---------------------------------------------------------------

  const indexOf = ([i, j, k]) => i + X * (j + Y * k);
  const valueOf = (name, index) => {
    const volume = study.volumes[name];
    return volume.offset + volume.step * codes[name][0][index];
  };
  const covered = (name, index) => codes[`${name}-coverage`][0][index] > 0;
  // 1: a strong structure of the reference alone is lost in the fused volume; 2: of the moving one.
  const lostBy = (index) => Math.round(codes.lost[0][index] / 127.5);
  const tables = {};
  const brightnessTable = (name) => {
    const { offset, step, largest } = study.volumes[name];
    const [low, high] = state.windows[name];
    const key = `${low} ${high}`;
    if (tables[name]?.key === key) return tables[name].table;
    const table = new Uint8ClampedArray(largest + 1);
    const scale = 255 / Math.max(high - low, 1e-9);
    for (let c = 0; c <= largest; c++) table[c] = Math.round((offset + step * c - low) * scale);
    tables[name] = { key, table };
    return table;
  };
  const palettes = Object.fromEntries(
    SOURCES.filter((name) => study.volumes[name].palette).map((name) => [
      name,
      mmifVolumes.bytesOf(study.volumes[name].palette),
    ]),
  );

  // ---- one plane as RGB --------------------------------------------------------------------

  const geometry = (plane) => {
    const { across, down, normal, flipped } = PLANES[plane];
    const width = study.shape[across];
    const height = study.shape[down];
    const stride = flipped ? -STRIDES[down] : STRIDES[down];
    const first = state.at[normal] * STRIDES[normal] + (flipped ? (height - 1) * STRIDES[down] : 0);
    return { width, height, stepAcross: STRIDES[across], stepDown: stride, first };
  };

  const eachPixel = (shape, visit) => {
    for (let v = 0, n = 0; v < shape.height; v++) {
      let index = shape.first + v * shape.stepDown;
      for (let u = 0; u < shape.width; u++, n += 3, index += shape.stepAcross) visit(index, n, u, v);
    }
  };

  const put = (out, n, grey, palette) => {
    if (!palette) {
      out[n] = out[n + 1] = out[n + 2] = grey;
      return;
    }
    const entry = 3 * grey;
    out[n] = palette[entry];
    out[n + 1] = palette[entry + 1];
    out[n + 2] = palette[entry + 2];
  };

  // A moved volume as its own headers place it: the registered one, carried back (trilinear).
  const beforeBrightness = (name, table) => {
    const m = study.volumes[name].before;
    const volume = codes[name][0];
    return (i, j, k) => {
      const x = m[0][0] * i + m[0][1] * j + m[0][2] * k + m[0][3];
      const y = m[1][0] * i + m[1][1] * j + m[1][2] * k + m[1][3];
      const z = m[2][0] * i + m[2][1] * j + m[2][2] * k + m[2][3];
      if (!(x >= 0 && y >= 0 && z >= 0 && x <= X - 1 && y <= Y - 1 && z <= Z - 1)) return 0;
      const [x0, y0, z0] = [Math.floor(x), Math.floor(y), Math.floor(z)];
      let sum = 0;
      for (let corner = 0; corner < 8; corner++) {
        const [dx, dy, dz] = [corner & 1, (corner >> 1) & 1, corner >> 2];
        const weight =
          (dx ? x - x0 : 1 - x + x0) * (dy ? y - y0 : 1 - y + y0) * (dz ? z - z0 : 1 - z + z0);
        if (!weight) continue;
        const index = indexOf([x0 + dx, y0 + dy, z0 + dz]);
        if (covered(name, index)) sum += weight * table[volume[index]];
      }
      return Math.round(sum);
    };
  };

  const layers = {
    reference(shape, out) {
      const table = brightnessTable("reference");
      const [volume] = codes.reference;
      eachPixel(shape, (index, n) => put(out, n, table[volume[index]], palettes.reference));
    },
    fused(shape, out) {
      const table = brightnessTable("fused");
      const [red, green = red, blue = red] = codes.fused;
      eachPixel(shape, (index, n) => {
        out[n] = table[red[index]];
        out[n + 1] = table[green[index]];
        out[n + 2] = table[blue[index]];
      });
    },
    share(shape, out) {
      const [from, middle, to] = study.shareKnots;
      eachPixel(shape, (index, n) => {
        const share = codes.share[0][index] / 127.5 - 1;
        const lit = codes.strength[0][index] / 255;
        const end = share < 0 ? from : to;
        const part = Math.abs(share);
        for (let c = 0; c < 3; c++) out[n + c] = lit * (middle[c] + part * (end[c] - middle[c]));
        if (codes.lost[0][index]) out.set(study.lostColours[lostBy(index) - 1], n);
      });
    },
  };
  const moved = (name) => (shape, out) => {
    const table = brightnessTable(name);
    const [volume] = codes[name];
    if (state.before && study.volumes[name].before) {
      const sample = beforeBrightness(name, table);
      eachPixel(shape, (index, n) => {
        const k = Math.floor(index / (X * Y));
        const j = Math.floor((index - k * X * Y) / X);
        put(out, n, sample(index % X, j, k), palettes[name]);
      });
      return;
    }
    eachPixel(shape, (index, n) => {
      put(out, n, covered(name, index) ? table[volume[index]] : 0, palettes[name]);
    });
  };
  for (const name of MOVED) {
    layers[name] = moved(name);
    layers[`${name}-coverage`] = (shape, out) =>
      eachPixel(shape, (index, n) => put(out, n, covered(name, index) ? 255 : 0));
  }
  const layer = (name, shape) => {
    const out = new Uint8ClampedArray(3 * shape.width * shape.height);
    layers[name](shape, out);
    return out;
  };

  const greyOf = (rgb) => {
    const grey = new Float32Array(rgb.length / 3);
    for (let n = 0; n < grey.length; n++) {
      grey[n] = 0.299 * rgb[3 * n] + 0.587 * rgb[3 * n + 1] + 0.114 * rgb[3 * n + 2];
    }
    return grey;
  };

  // Lines of equal brightness: what a blurred source has in place of edges.
  const contoursOf = (rgb, { width }, levels) => {
    const grey = greyOf(rgb);
    const steps = [-1, 1, -width, width];
    return (n) =>
      levels.some((level) => {
        const limit = 255 * level;
        return grey[n] >= limit && steps.some((step) => grey[n + step] < limit);
      });
  };

  // Thin edges of a layer: the largest slope along the steeper axis, above a threshold.
  const edgesOf = (rgb, { width, height }) => {
    const grey = greyOf(rgb);
    const smooth = blurred(blurred(grey, width, height, 1), width, height, width);
    const slope = new Float32Array(grey.length);
    const steepDown = new Uint8Array(grey.length);
    for (let v = 1; v < height - 1; v++) {
      for (let u = 1; u < width - 1; u++) {
        const n = v * width + u;
        const across = (smooth[n + 1] - smooth[n - 1]) / 2;
        const down = (smooth[n + width] - smooth[n - width]) / 2;
        slope[n] = Math.hypot(across, down);
        steepDown[n] = Math.abs(down) > Math.abs(across);
      }
    }
    return (n) => {
      const step = steepDown[n] ? width : 1;
      return slope[n] >= 15 && slope[n] >= slope[n - step] && slope[n] >= slope[n + step];
    };
  };
  // Whether a moved volume ends within 2 pixels: an edge there is not the patient's.
  const endOf = (coverage, { width }) => {
    const outside = (n) => coverage[3 * n] < 128;
    const steps = [1, 2, width, 2 * width];
    return (n) => outside(n) || steps.some((step) => outside(n - step) || outside(n + step));
  };
  // A layer in square pixels, so that an edge is as thin across the slices as along them.
  const squared = (rgb, { width, height }, plane) => {
    const mm = [study.spacing[PLANES[plane].across], study.spacing[PLANES[plane].down]];
    const fine = Math.min(...mm);
    const wide = Math.round((width * mm[0]) / fine);
    const high = Math.round((height * mm[1]) / fine);
    if (wide === width && high === height) return { rgb, width, height };
    const out = new Uint8ClampedArray(3 * wide * high);
    const between = (n, few, many) => {
      const at = Math.min(few - 1, Math.max(0, ((n + 0.5) * few) / many - 0.5));
      const first = Math.floor(at);
      return [first, Math.min(few - 1, first + 1), at - first];
    };
    const columns = Array.from({ length: wide }, (_, u) => between(u, width, wide));
    for (let v = 0, n = 0; v < high; v++) {
      const [above, below, low] = between(v, height, high);
      for (const [left, right, part] of columns) {
        for (let c = 0; c < 3; c++, n++) {
          const at = (x, y) => rgb[3 * (y * width + x) + c];
          const top = at(left, above) + part * (at(right, above) - at(left, above));
          const bottom = at(left, below) + part * (at(right, below) - at(left, below));
          out[n] = top + low * (bottom - top);
        }
      }
    }
    return { rgb: out, width: wide, height: high };
  };
  const blurred = (values, width, height, step) => {
    const out = values.slice();
    for (let n = step; n < values.length - step; n++) {
      out[n] = (values[n - step] + 2 * values[n] + values[n + step]) / 4;
    }
    return out;
  };

  const mixed = {
    blend(shape) {
      const [under, over] = [layer("reference", shape), layer(state.against, shape)];
      for (let n = 0; n < under.length; n++) under[n] += state.blend * (over[n] - under[n]);
      return under;
    },
    flicker: (shape) => layer(state.swapped ? state.against : "reference", shape),
    checker(shape, plane) {
      const [under, over] = [layer("reference", shape), layer(state.against, shape)];
      const { across, down } = PLANES[plane];
      eachPixel(shape, (_, n, u, v) => {
        const column = Math.floor((u * study.spacing[across]) / state.cell);
        const row = Math.floor((v * study.spacing[down]) / state.cell);
        if ((column + row) & 1) for (let c = n; c < n + 3; c++) under[c] = over[c];
      });
      return under;
    },
  };
  const edged = (shape, plane) => {
    const fine = (name) => squared(layer(name, shape), shape, plane);
    const [top, under] = state.edges.split("-on-");
    const over = fine(top);
    const out = fine(under);
    const { contours } = study.volumes[top];
    const isEdge = contours.length
      ? contoursOf(over.rgb, over, contours)
      : edgesOf(over.rgb, over);
    const ended =
      MOVED.includes(top) && !state.before ? endOf(fine(`${top}-coverage`).rgb, over) : () => false;
    for (let n = 0; n < out.width * out.height; n++) {
      if (isEdge(n) && !ended(n)) out.rgb.set(EDGE, 3 * n);
    }
    return out;
  };
  // -> {rgb, width, height}
  const picture = (plane) => {
    const shape = geometry(plane);
    if (state.mode === "edges") return edged(shape, plane);
    const rgb = mixed[state.mode] ? mixed[state.mode](shape, plane) : layer(state.mode, shape);
    return { rgb, width: shape.width, height: shape.height };
  };

  // ---- drawing -----------------------------------------------------------------------------

  const panes = Object.keys(PLANES).map((plane) => {
    const figure = query(`[data-plane="${plane}"]`);
    return {
      plane,
      figure,
      stage: figure.querySelector(".stage"),
      image: figure.querySelector("canvas.image"),
      overlay: figure.querySelector("canvas.overlay"),
      slider: figure.querySelector("input"),
      caption: figure.querySelector("output"),
      pixels: document.createElement("canvas"),
    };
  });

  const extent = (plane) => {
    const { across, down } = PLANES[plane];
    return [
      study.shape[across] * study.spacing[across],
      study.shape[down] * study.spacing[down],
    ];
  };

  // Whether the pane had to change its size, which empties it.
  const fit = (pane) => {
    const [width, height] = extent(pane.plane);
    pane.stage.style.aspectRatio = `${width} / ${height}`;
    const ratio = window.devicePixelRatio || 1;
    const box = pane.stage.getBoundingClientRect();
    const size = {
      width: Math.max(1, Math.round(box.width * ratio)),
      height: Math.max(1, Math.round(box.height * ratio)),
    };
    if (pane.image.width === size.width && pane.image.height === size.height) return false;
    for (const canvas of [pane.image, pane.overlay]) Object.assign(canvas, size);
    return true;
  };

  // The part of an axis that the planes show, in voxels: [first, count].
  const seen = (axis) => {
    const count = study.shape[axis] / state.zoom;
    const first = state.centre[axis] + 0.5 - count / 2;
    return [Math.min(study.shape[axis] - count, Math.max(0, first)), count];
  };
  const inSight = (axis, value) => {
    const [first, count] = seen(axis);
    return value + 0.5 > first && value + 0.5 < first + count;
  };

  const drawImage = (pane) => {
    const { rgb, width, height } = picture(pane.plane);
    const data = new ImageData(width, height);
    for (let n = 0, m = 0; n < rgb.length; n += 3, m += 4) {
      data.data[m] = rgb[n];
      data.data[m + 1] = rgb[n + 1];
      data.data[m + 2] = rgb[n + 2];
      data.data[m + 3] = 255;
    }
    pane.pixels.width = width;
    pane.pixels.height = height;
    pane.pixels.getContext("2d").putImageData(data, 0, 0);
    const context = pane.image.getContext("2d");
    context.imageSmoothingEnabled = state.smooth;
    context.imageSmoothingQuality = "high";
    const { across, down, flipped } = PLANES[pane.plane];
    const [left, columns] = seen(across).map((part) => (part / study.shape[across]) * width);
    const [low, rows] = seen(down).map((part) => (part / study.shape[down]) * height);
    const top = flipped ? height - low - rows : low;
    const canvas = pane.image;
    context.drawImage(pane.pixels, left, top, columns, rows, 0, 0, canvas.width, canvas.height);
  };

  const place = (plane) => {
    const { across, down, flipped } = PLANES[plane];
    const [column, row] = [across, down].map((axis) => {
      const [first, count] = seen(axis);
      return (state.at[axis] + 0.5 - first) / count;
    });
    return [column, flipped ? 1 - row : row];
  };

  // Text on a dark plate: letters must be read on bone and on air.
  const write = (context, text, x, y, align, baseline) => {
    const ratio = window.devicePixelRatio || 1;
    const size = parseFloat(context.font.match(/[\d.]+px/));
    const width = context.measureText(text).width + 6 * ratio;
    const height = size + 4 * ratio;
    const left = { left: x, center: x - width / 2, right: x - width }[align];
    const top = { top: y, middle: y - height / 2, bottom: y - height }[baseline];
    const ink = context.fillStyle;
    context.fillStyle = "rgb(0 0 0 / 70%)";
    context.fillRect(left, top, width, height);
    context.fillStyle = ink;
    context.textAlign = "left";
    context.textBaseline = "middle";
    context.fillText(text, left + 3 * ratio, top + height / 2 + 0.5 * ratio);
  };

  const drawOverlay = (pane) => {
    const ratio = window.devicePixelRatio || 1;
    const context = pane.overlay.getContext("2d");
    const { width, height } = pane.overlay;
    context.clearRect(0, 0, width, height);
    if (state.cross) drawCross(context, pane.plane, width, height, ratio);
    context.font = `600 ${14 * ratio}px system-ui, sans-serif`;
    context.fillStyle = "#fff";
    const { across, down, flipped } = PLANES[pane.plane];
    const [left, right] = study.letters[across];
    const [top, bottom] = flipped ? [...study.letters[down]].reverse() : study.letters[down];
    const inset = 4 * ratio;
    write(context, left, inset, height / 2, "left", "middle");
    write(context, right, width - inset, height / 2, "right", "middle");
    write(context, top, width / 2, inset, "center", "top");
    write(context, bottom, width / 2, height - inset, "center", "bottom");
    drawScale(context, pane.plane, width, height, ratio);
    if (state.mode === "flicker") {
      const name = state.swapped ? state.against : "reference";
      context.fillStyle = state.swapped ? "#ffb877" : "#9ccdf8";
      write(context, study.volumes[name].label, inset, inset, "left", "top");
    }
  };

  const drawCross = (context, plane, width, height, ratio) => {
    const [x, y] = place(plane).map((part, axis) => part * [width, height][axis]);
    const gap = 7 * ratio;
    const end = 22 * ratio;
    for (const [style, thick] of [["rgb(0 0 0 / 60%)", 3], ["#5fe0e6", 1.25]]) {
      context.strokeStyle = style;
      context.lineWidth = thick * ratio;
      context.beginPath();
      for (const [x0, y0, x1, y1] of [
        [end, y, x - gap, y],
        [x + gap, y, width - end, y],
        [x, end, x, y - gap],
        [x, y + gap, x, height - end],
      ]) {
        if (x1 < x0 || y1 < y0) continue;
        context.moveTo(x0, y0);
        context.lineTo(x1, y1);
      }
      context.stroke();
    }
  };

  const drawScale = (context, plane, width, height, ratio) => {
    const across = extent(plane)[0] / state.zoom;
    const length = [100, 50, 20, 10, 5, 1].find((mm) => mm <= across / 3) ?? 1;
    const bar = (length / across) * width;
    const [x, y] = [10 * ratio, height - 10 * ratio];
    context.fillStyle = "rgb(0 0 0 / 85%)";
    context.fillRect(x - ratio, y - 2 * ratio, bar + 2 * ratio, 5 * ratio);
    context.fillStyle = "#fff";
    context.fillRect(x, y - ratio, bar, 3 * ratio);
    context.font = `${11 * ratio}px system-ui, sans-serif`;
    write(context, `${length} mm`, x - ratio, y - 4 * ratio, "left", "bottom");
  };

  // ---- words -------------------------------------------------------------------------------

  const figure = (value, digits = 1) => value.toFixed(digits).replace("-", "−");
  const worldOf = ([i, j, k]) =>
    study.affine.slice(0, 3).map((row) => row[0] * i + row[1] * j + row[2] * k + row[3]);
  const lettered = (ras) =>
    ras.map((mm, axis) => `${"RASLPI"[mm < 0 ? axis + 3 : axis]} ${figure(Math.abs(mm))}`);

  // The voxel of the written volume: the page holds a frame around the patient, reduced where large.
  const fullVoxel = (index, axis) =>
    study.first[axis] + index * study.factors[axis] + Math.floor(study.factors[axis] / 2);

  const sourceText = (name, index) => {
    const volume = study.volumes[name];
    if (MOVED.includes(name) && !covered(name, index)) return `outside the ${volume.label}`;
    const digits = volume.step >= 0.5 ? 0 : volume.step >= 0.05 ? 1 : volume.step >= 0.005 ? 2 : 4;
    return `${figure(valueOf(name, index), digits)} ${volume.unit}`.trim();
  };
  const fusedText = (index) => codes.fused.map((c) => (c[index] / 255).toFixed(3)).join(" ");
  const shareText = (index) => {
    if (codes.strength[0][index] < 32) return "no structure here";
    const percent = Math.round((codes.share[0][index] / 255) * 100);
    const { reference, moving } = study.volumes;
    const gone = [null, reference, moving][lostBy(index)];
    const lost = gone ? `; structure of the ${gone.label} is lost` : "";
    return `${100 - percent} % ${reference.label}, ${percent} % ${moving.label}${lost}`;
  };

  // What the legend says of the fused colour: the activities whose colours look like it.
  const { legend } = study;
  const legendColours = legend && mmifVolumes.bytesOf(legend.colours);
  const ALIKE = 6; // of 255, about what an eye tells apart
  const distance = (index, n) =>
    Math.hypot(...codes.fused.map((channel, c) => channel[index] - legendColours[n + c]));
  const legendText = (index) => {
    const far = Array.from({ length: legendColours.length / 3 }, (_, n) => distance(index, 3 * n));
    const limit = far.reduce((a, b) => Math.min(a, b)) + ALIKE;
    const alike = far.flatMap((d, n) => (d <= limit ? [n % legend.steps] : []));
    const [least, most] = [alike[0], alike[0]].map((first, n) =>
      alike.reduce((a, b) => (n ? Math.max(a, b) : Math.min(a, b)), first),
    );
    if (most - least > legend.steps / 2) return "too dark to tell";
    const [low, high] = legend.window;
    const digits = high - low >= 50 ? 0 : high - low >= 5 ? 1 : 3;
    const value = (n) => figure(low + (n / (legend.steps - 1)) * (high - low), digits);
    const range = value(least) === value(most) ? value(least) : `${value(least)} to ${value(most)}`;
    return `${legend.label} ${range} ${legend.unit}`.trim();
  };

  const tell = () => {
    const index = indexOf(state.at);
    const ras = worldOf(state.at);
    const set = (name, text) => (query(`[data-read="${name}"]`).textContent = text);
    set("position", `${lettered(ras).join("  ")} mm`);
    set("ras", ras.map((mm) => figure(mm, 2)).join(", "));
    set("voxel", state.at.map(fullVoxel).join(", "));
    for (const name of SOURCES) {
      const ready = codes[name] && (!MOVED.includes(name) || codes[`${name}-coverage`]);
      if (ready && name !== "fused") set(name, sourceText(name, index));
    }
    set("fused", fusedText(index));
    if (legend) set("legend", legendText(index));
    if (codes.lost) set("share", shareText(index));
    for (const pane of panes) {
      const { normal } = PLANES[pane.plane];
      const slice = state.at[normal];
      pane.slider.value = slice;
      const text = `${slice + 1} of ${study.shape[normal]}`;
      pane.slider.setAttribute("aria-valuetext", `${pane.plane} slice ${text}`);
      pane.caption.textContent = text;
    }
    root.dispatchEvent(new CustomEvent("slice", { detail: state.at[2] }));
  };

  // ---- one redraw a frame ------------------------------------------------------------------

  let planned = false;
  const draw = () => {
    planned = false;
    for (const pane of panes) {
      drawImage(pane);
      drawOverlay(pane);
    }
    tell();
  };
  const redraw = () => {
    if (planned || !codes.fused) return;
    planned = true;
    requestAnimationFrame(draw);
  };
  const clamp = (value, axis) => Math.min(study.shape[axis] - 1, Math.max(0, Math.round(value)));
  const go = (changes) => {
    for (const [axis, value] of changes) state.at[axis] = clamp(value, axis);
    if (state.at.some((value, axis) => !inSight(axis, value))) state.centre = [...state.at];
    redraw();
  };
  const step = (axis, by) => go([[axis, state.at[axis] + by]]);

  // ---- controls ----------------------------------------------------------------------------

  const point = (pane, event) => {
    const box = pane.stage.getBoundingClientRect();
    const { across, down, flipped } = PLANES[pane.plane];
    const right = (event.clientX - box.left) / box.width;
    const below = (event.clientY - box.top) / box.height;
    const voxel = (axis, part) => {
      const [first, count] = seen(axis);
      const inside = Math.min(1 - 1e-6, Math.max(0, part));
      return Math.floor(first + inside * count);
    };
    go([[across, voxel(across, right)], [down, voxel(down, flipped ? 1 - below : below)]]);
  };

  const dragWindow = (event) => {
    const [low, high] = state.windows[state.windowed];
    const [least, most] = study.volumes[state.windowed].range;
    const unit = (most - least) / 600;
    const width = Math.max(unit, high - low + event.movementX * unit);
    const level = (low + high) / 2 + event.movementY * unit;
    setWindow(level - width / 2, level + width / 2);
  };

  const onWheel = (pane, event) => {
    const { normal } = PLANES[pane.plane];
    const by = event.deltaY > 0 ? -1 : 1;
    const next = state.at[normal] + by;
    if (event.ctrlKey || !event.deltaY || next < 0 || next >= study.shape[normal]) return;
    event.preventDefault();
    step(normal, by);
  };

  const onKey = (pane, event) => {
    const { across, down, normal, flipped } = PLANES[pane.plane];
    const last = study.shape[normal] - 1;
    const moves = {
      ArrowLeft: [across, state.at[across] - 1],
      ArrowRight: [across, state.at[across] + 1],
      ArrowUp: [down, state.at[down] + (flipped ? 1 : -1)],
      ArrowDown: [down, state.at[down] + (flipped ? -1 : 1)],
      PageUp: [normal, state.at[normal] + 1],
      PageDown: [normal, state.at[normal] - 1],
      Home: [normal, 0],
      End: [normal, last],
    };
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (moves[event.key]) go([moves[event.key]]);
    else if (event.key === " ") swap();
    else if (event.key === "+" || event.key === "=") zoomTo(state.zoom + 0.5);
    else if (event.key === "-") zoomTo(state.zoom - 0.5);
    else if (modes[Number(event.key) - 1]) choose(modes[Number(event.key) - 1]);
    else return;
    event.preventDefault();
  };

  for (const pane of panes) {
    pane.slider.addEventListener("input", () =>
      go([[PLANES[pane.plane].normal, Number(pane.slider.value)]]),
    );
    pane.stage.addEventListener("wheel", (event) => onWheel(pane, event), { passive: false });
    pane.stage.addEventListener("keydown", (event) => onKey(pane, event));
    pane.stage.addEventListener("contextmenu", (event) => event.preventDefault());
    pane.stage.addEventListener("pointerdown", (event) => {
      pane.stage.setPointerCapture(event.pointerId);
      if (event.button === 0 && !event.shiftKey) point(pane, event);
    });
    pane.stage.addEventListener("pointermove", (event) => {
      if (!pane.stage.hasPointerCapture(event.pointerId)) return;
      if (event.buttons === 2 || event.shiftKey) dragWindow(event);
      else if (event.buttons === 1) point(pane, event);
    });
  }

  const radios = [...root.querySelectorAll('input[name="mode"]')];
  const modes = radios.map((radio) => radio.value);
  const choose = (mode) => {
    state.mode = mode;
    for (const radio of radios) radio.checked = radio.value === mode;
    for (const box of root.querySelectorAll("[data-for]")) {
      box.hidden = !box.dataset.for.split(" ").includes(mode);
    }
    // Level and width act on what is seen.
    if (SOURCES.includes(mode)) takeWindowOf(mode);
    else if (mode === "edges") takeWindowOf(state.edges.split("-on-")[1]);
    else if (state.windowed === "fused") takeWindowOf("reference");
    redraw();
  };
  for (const radio of radios) radio.addEventListener("change", () => choose(radio.value));

  const bind = (name, read) => {
    const control = query(`[data-set="${name}"]`);
    control?.addEventListener("input", () => {
      state[name] = read(control);
      const shown = query(`[data-shown="${name}"]`);
      if (shown) shown.textContent = control.value;
      redraw();
    });
  };
  bind("against", (control) => control.value);
  query('[data-set="against"]')?.addEventListener("input", ({ target }) => {
    query('[data-shown="against"]').textContent = study.volumes[target.value].label;
  });
  bind("blend", (control) => Number(control.value) / 100);
  bind("cell", (control) => Number(control.value));
  bind("rate", (control) => Number(control.value));
  bind("edges", (control) => control.value);
  query('[data-set="edges"]').addEventListener("input", () => choose("edges"));
  for (const name of ["before", "smooth", "cross", "flickering"]) bind(name, (box) => box.checked);

  const zoom = query('[data-set="zoom"]');
  const zoomTo = (factor) => {
    state.zoom = Math.min(Number(zoom.max), Math.max(1, factor));
    state.centre = [...state.at];
    zoom.value = state.zoom;
    query('[data-shown="zoom"]').textContent = state.zoom;
    redraw();
  };
  zoom.addEventListener("input", () => zoomTo(Number(zoom.value)));

  // At most two changes a second: below the three flashes of WCAG 2.3.1.
  const swap = () => {
    state.swapped = !state.swapped;
    redraw();
  };
  if (window.matchMedia("(prefers-reduced-motion: reduce)").matches) {
    state.flickering = false;
    query('[data-set="flickering"]').checked = false;
  }
  query('[data-do="swap"]').addEventListener("click", swap);
  const beat = () => {
    if (state.mode === "flicker" && state.flickering && !document.hidden) swap();
    window.setTimeout(beat, 1000 / state.rate);
  };
  window.setTimeout(beat, 1000 / state.rate);

  // ---- window and level --------------------------------------------------------------------

  const level = query('[data-window="level"]');
  const width = query('[data-window="width"]');
  const source = query('[data-window="source"]');
  const preset = query('[data-window="preset"]');
  const worded = (name) => {
    const { range, unit } = study.volumes[name];
    const digits = range[1] - range[0] > 20 ? 0 : 2;
    return (value) => `${figure(value, digits)} ${unit}`.trim();
  };
  const showWindow = () => {
    const { range } = study.volumes[state.windowed];
    const span = range[1] - range[0] || 1;
    const [low, high] = state.windows[state.windowed];
    Object.assign(level, { min: range[0], max: range[1], step: span / 1000 });
    Object.assign(width, { min: span / 1000, max: span, step: span / 1000 });
    level.value = (low + high) / 2;
    width.value = high - low;
    const text = worded(state.windowed);
    query('[data-shown="level"]').textContent = text((low + high) / 2);
    query('[data-shown="width"]').textContent = text(high - low);
    level.setAttribute("aria-valuetext", text((low + high) / 2));
    width.setAttribute("aria-valuetext", text(high - low));
    if (colours) showColours();
  };
  const setWindow = (low, high) => {
    state.windows[state.windowed] = [low, Math.max(high, low + 1e-6)];
    preset.value = "";
    showWindow();
    redraw();
  };
  const slideWindow = () => {
    const [middle, span] = [Number(level.value), Number(width.value)];
    setWindow(middle - span / 2, middle + span / 2);
  };
  const listPresets = () => {
    const own = new Option("own", "");
    own.hidden = true;
    const { presets } = study.volumes[state.windowed];
    preset.replaceChildren(own, ...presets.map(([name], n) => new Option(name, n)));
    const [low, high] = state.windows[state.windowed];
    preset.value = presets.findIndex(([, from, to]) => from === low && to === high);
    if (preset.selectedIndex < 0) preset.value = "";
  };
  level.addEventListener("input", slideWindow);
  width.addEventListener("input", slideWindow);
  const takeWindowOf = (name) => {
    state.windowed = source.value = name;
    listPresets();
    showWindow();
  };
  source.addEventListener("input", () => takeWindowOf(source.value));
  preset.addEventListener("input", () => {
    const [, low, high] = study.volumes[state.windowed].presets[Number(preset.value)];
    const chosen = preset.value;
    setWindow(low, high);
    preset.value = chosen;
  });

  // The colours of a coloured source, and what its ends stand for.
  const colourScale = query(".colour-scale");
  const colours = colourScale?.dataset.source;
  if (colours) {
    const canvas = colourScale.querySelector("canvas");
    const bar = new ImageData(256, 1);
    for (let n = 0; n < 256; n++) {
      bar.data.set([...palettes[colours].subarray(3 * n, 3 * n + 3), 255], 4 * n);
    }
    canvas.getContext("2d").putImageData(bar, 0, 0);
  }
  const showColours = () => {
    const [low, high] = state.windows[colours].map(worded(colours));
    query('[data-shown="low"]').textContent = low;
    query('[data-shown="high"]').textContent = high;
  };

  // ---- the rest of the page ----------------------------------------------------------------

  for (const button of document.querySelectorAll("[data-slice]")) {
    button.addEventListener("click", () => {
      go([[2, Math.floor(Number(button.dataset.slice) / study.factors[2])]]);
      if (!button.closest("svg")) {
        root.scrollIntoView({ block: "start" });
        panes[0].stage.focus({ preventScroll: true });
      }
    });
  }
  // On paper nothing can be unfolded.
  let folded = [];
  window.addEventListener("beforeprint", () => {
    folded = document.querySelectorAll("details.on-paper:not([open])");
    for (const part of folded) part.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const part of folded) part.open = false;
  });
  for (const line of document.querySelectorAll(".chart .now")) {
    const { left, right } = line.dataset;
    root.addEventListener("slice", ({ detail }) => {
      const x = Number(left) + ((detail + 0.5) / Z) * (Number(right) - Number(left));
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
      line.removeAttribute("visibility");
    });
  }

  // ---- start -------------------------------------------------------------------------------

  const load = async (name) => {
    const holder = document.getElementById(`volume-${name}`);
    codes[name] = await mmifVolumes.unpack(holder.textContent, study.volumes[name], study.shape);
    holder.remove();
  };
  const start = async () => {
    if (!("DecompressionStream" in window)) throw new Error("no DecompressionStream");
    takeWindowOf(state.windowed);
    for (const pane of panes) pane.slider.disabled = false;
    await load("fused");
    root.classList.add("live");
    for (const pane of panes) fit(pane);
    draw();
    root.dataset.firstPictureMs = Math.round(performance.now());
    for (const name of Object.keys(study.volumes)) if (!codes[name]) await load(name);
    for (const radio of radios) radio.disabled = false;
    redraw();
    // Drawn at once: the next frame would be too late, and an empty one seen.
    new ResizeObserver(() => {
      if (panes.filter(fit).length) draw();
    }).observe(root);
    root.dataset.ready = "yes";
  };
  start().catch((error) => {
    const message = query(".trouble");
    message.hidden = false;
    message.querySelector("span").textContent = String(error.message || error);
  });
})();
