// The loss over a box: shading by rank and level lines.

/** Return the array that packing.pack wrote. */
export function unpack({ shape, dtype, base64 }) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)).buffer;
  const types = { "<f8": Float64Array, "<f4": Float32Array, "<i2": Int16Array, "<i1": Int8Array };
  return { shape, data: new types[dtype](bytes) };
}

/** Return the ends of equal shares of the finite values: a valley shows beside a wall. */
export function quantiles(values, count) {
  const sorted = Float64Array.from(values).filter(Number.isFinite).sort();
  if (!sorted.length) return [];
  const at = Array.from({ length: count }, (_, k) => sorted[Math.floor(((k + 1) / (count + 1)) * (sorted.length - 1))]);
  return [...new Set(at)];
}

/** Return a canvas with the loss from the colour `low` to `high`, each [r, g, b]; rows upwards. */
export function shading({ shape: [rows, columns], data }, low, high) {
  const canvas = Object.assign(document.createElement("canvas"), { width: columns, height: rows });
  const context = canvas.getContext("2d"), pixels = context.createImageData(columns, rows), levels = quantiles(data, 63);
  for (let k = 0; k < data.length; k++) {
    let rank = 0, top = levels.length;
    while (rank < top) { const m = (rank + top) >> 1; if (levels[m] < data[k]) rank = m + 1; else top = m; }
    const share = Number.isFinite(data[k]) ? rank / Math.max(1, levels.length) : 1;
    const to = 4 * ((rows - 1 - Math.floor(k / columns)) * columns + (k % columns));
    for (let c = 0; c < 3; c++) pixels.data[to + c] = low[c] + share * (high[c] - low[c]);
    pixels.data[to + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

/** Return the segments [x0, y0, x1, y1] of the line where the values are `level` (marching squares). */
export function contour({ shape: [rows, columns], data }, level, [x0, x1], [y0, y1]) {
  const found = [], dx = (x1 - x0) / (columns - 1), dy = (y1 - y0) / (rows - 1);
  for (let r = 0; r + 1 < rows; r++) {
    for (let c = 0; c + 1 < columns; c++) {
      const corners = [[c, r], [c + 1, r], [c + 1, r + 1], [c, r + 1]];
      const values = corners.map(([i, j]) => data[j * columns + i]);
      if (!values.every(Number.isFinite)) continue;
      const cut = [];
      for (let k = 0; k < 4; k++) {
        const a = values[k], b = values[(k + 1) % 4];
        if (a < level === b < level) continue;
        const share = (level - a) / (b - a), [i, j] = corners[k], [m, n] = corners[(k + 1) % 4];
        cut.push([x0 + dx * (i + share * (m - i)), y0 + dy * (j + share * (n - j))]);
      }
      for (let k = 0; k + 1 < cut.length; k += 2) found.push([...cut[k], ...cut[k + 1]]);
    }
  }
  return found;
}
