// Prepares an image as `edp.data.image_preparation` does, as far as a browser can.

/** Returns the uint8 input [height · width · channels] of an image file. */
export async function prepare(blob, metadata) {
  const [, height, width, channels] = metadata.input.shape;
  const { resize, downsample } = metadata.preparation;
  const pixels = await decode(blob);
  const image = channels === 1 ? toGrey(pixels) : toColours(pixels);
  const size = [downsample * width, downsample * height];
  const large = resample(image, size, box(image, size, resize));
  return average(large, downsample);
}

/** Decodes a file on white, upright, without its colour profile. */
async function decode(blob) {
  const bitmap = await createImageBitmap(blob, {
    imageOrientation: "from-image", colorSpaceConversion: "none",
  });
  const canvas = document.createElement("canvas");
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const all = [0, 0, canvas.width, canvas.height];
  context.drawImage(bitmap, 0, 0);
  const isOpaque = context.getImageData(...all).data.every((v, i) => i % 4 < 3 || v === 255);
  context.globalCompositeOperation = "destination-over";
  context.fillStyle = "white";
  context.fillRect(...all);
  const pixels = context.getImageData(...all);
  if (!isOpaque && pixels.data.every((value) => value === 255)) {
    throw new Error(
      "it is blank once its transparency is laid on white; give it an opaque background",
    );
  }
  return pixels;
}

/** ITU-R 601-2 luma in 16-bit fixed point, rounded. */
function toGrey({ data, width, height }) {
  const out = new Uint8Array(width * height);
  for (let i = 0; i < out.length; i++) {
    const [r, g, b] = [data[4 * i], data[4 * i + 1], data[4 * i + 2]];
    out[i] = (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;
  }
  return { data: out, width, height, channels: 1 };
}

function toColours({ data, width, height }) {
  const out = new Uint8Array(3 * width * height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) out[3 * i + c] = data[4 * i + c];
  }
  return { data: out, width, height, channels: 3 };
}

/** Returns [left, top, right, bottom]: all of the image, or its centre. */
function box({ width, height }, size, resize) {
  if (resize === "whole") return [0, 0, width, height];
  const scale = (224 / 256) * Math.min(width / size[0], height / size[1]);
  const left = (width - scale * size[0]) / 2, top = (height - scale * size[1]) / 2;
  return [left, top, left + scale * size[0], top + scale * size[1]];
}

// Weights are integers of so many bits, as Pillow's, so that sums round as its do.
const ONE = 2 ** 22;

/** Returns for each output position the first input position and the weights. */
function weights(inSize, start, end, outSize) {
  const scale = (end - start) / outSize, filter = Math.max(scale, 1);
  return Array.from({ length: outSize }, (_, position) => {
    const center = start + (position + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - filter + 0.5));
    const last = Math.min(inSize, Math.trunc(center + filter + 0.5));
    const found = [];
    for (let x = first; x < last; x++) {
      found.push(Math.max(0, 1 - Math.abs((x - center + 0.5) / filter)));
    }
    const sum = found.reduce((a, b) => a + b, 0);
    return { first, found: found.map((w) => Math.floor((w / sum) * ONE + 0.5)) };
  });
}

/** Bilinear resampling with antialiasing: the rows, then the columns, as uint8. */
function resample(image, [outWidth, outHeight], [left, top, right, bottom]) {
  const { data, width, height, channels } = image;
  const columns = weights(width, left, right, outWidth);
  const rows = weights(height, top, bottom, outHeight);
  const middle = new Uint8ClampedArray(height * outWidth * channels);
  for (let y = 0; y < height; y++) {
    columns.forEach(({ first, found }, x) => {
      for (let c = 0; c < channels; c++) {
        let sum = 0;
        found.forEach((w, i) => {
          sum += w * data[(y * width + first + i) * channels + c];
        });
        middle[(y * outWidth + x) * channels + c] = Math.floor(sum / ONE + 0.5);
      }
    });
  }
  const out = new Uint8ClampedArray(outHeight * outWidth * channels);
  rows.forEach(({ first, found }, y) => {
    for (let i = 0; i < outWidth * channels; i++) {
      let sum = 0;
      found.forEach((w, j) => { sum += w * middle[(first + j) * outWidth * channels + i]; });
      out[y * outWidth * channels + i] = Math.floor(sum / ONE + 0.5);
    }
  });
  return { data: out, width: outWidth, height: outHeight, channels };
}

/** Averages squares of factor · factor pixels. */
function average({ data, width, height, channels }, factor) {
  if (factor === 1) return Uint8Array.from(data);
  const [w, h] = [width / factor, height / factor];
  const out = new Uint8Array(w * h * channels);
  for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) for (let c = 0; c < channels; c++) {
    let sum = 0;
    for (let i = 0; i < factor; i++) for (let j = 0; j < factor; j++) {
      sum += data[((y * factor + i) * width + x * factor + j) * channels + c];
    }
    out[(y * w + x) * channels + c] = roundToEven(sum / factor ** 2);
  }
  return out;
}

function roundToEven(number) {
  const rounded = Math.round(number);
  return rounded - number === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}
