"use strict";
// Unpacks what mmif/report/volumes.py packed: base64, gzip, byte planes, LOCO-I residuals.
const mmifVolumes = (() => {
  const bytesOf = (base64) => {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
    const text = atob(base64);
    const bytes = new Uint8Array(text.length);
    for (let n = 0; n < text.length; n++) bytes[n] = text.charCodeAt(n);
    return bytes;
  };

  const gunzip = async (bytes) => {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };

  // One channel: each code is its prediction from left, up and corner plus a folded residual.
  const unpredict = (high, low, codes, mask, [width, height, depth]) => {
    let n = 0;
    for (let z = 0; z < depth; z++) {
      for (let y = 0; y < height; y++) {
        let left = 0;
        let corner = 0;
        for (let x = 0; x < width; x++, n++) {
          const up = y ? codes[n - width] : 0;
          const least = left < up ? left : up;
          const most = left < up ? up : left;
          const guess = corner >= most ? least : corner <= least ? most : left + up - corner;
          const folded = (high ? high[n] << 8 : 0) | low[n];
          left = (guess + ((folded >>> 1) ^ -(folded & 1))) & mask;
          codes[n] = left;
          corner = up;
        }
      }
    }
  };

  // A channel kept at 1/factor of the resolution of a slice, each code repeated.
  const enlarge = (small, [smallWidth, smallHeight], [width, height, depth], factor) => {
    const codes = new small.constructor(width * height * depth);
    for (let z = 0, n = 0; z < depth; z++) {
      for (let y = 0; y < height; y++) {
        const row = smallWidth * (Math.floor(y / factor) + smallHeight * z);
        for (let x = 0; x < width; x++, n++) codes[n] = small[row + Math.floor(x / factor)];
      }
    }
    return codes;
  };

  // -> one typed array of codes a channel, i fastest, then j, then k.
  const unpack = async (base64, description, shape) => {
    const { factor = 1 } = description;
    const stored = [Math.ceil(shape[0] / factor), Math.ceil(shape[1] / factor), shape[2]];
    const planes = await unpackStored(base64, description, stored);
    return factor === 1 ? planes : planes.map((codes) => enlarge(codes, stored, shape, factor));
  };
  const unpackStored = async (base64, { channels, bits }, shape) => {
    const size = shape[0] * shape[1] * shape[2];
    const bytes = await gunzip(bytesOf(base64.trim()));
    const wide = bits === 16;
    const planes = [];
    for (let c = 0; c < channels; c++) {
      const start = c * size * (wide ? 2 : 1);
      const high = wide ? bytes.subarray(start, start + size) : null;
      const low = bytes.subarray(start + (wide ? size : 0), start + (wide ? 2 : 1) * size);
      const codes = wide ? new Uint16Array(size) : new Uint8Array(size);
      unpredict(high, low, codes, wide ? 0xffff : 0xff, shape);
      planes.push(codes);
    }
    if (channels === 3) {
      const [green, red, blue] = planes;
      for (let n = 0; n < size; n++) {
        red[n] += green[n];
        blue[n] += green[n];
      }
      return [red, green, blue];
    }
    return planes;
  };

  return { unpack, bytesOf };
})();
