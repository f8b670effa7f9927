// Classifies the images that are dropped on the page.
import { prepare } from "./prepare.js";

const SHOWN = 5; // classes with a bar
const NAMED = 12; // classes of a set that are named
const READY = "Ready";
const element = (id) => document.getElementById(id);
const percent = (p) => `${(100 * p).toFixed(2)} %`;
let metadata, ort, session;

/** Returns the classes of the prediction set, the most probable first. */
function predictionSet(probs, { score }, threshold) {
  const order = sorted(probs);
  let total = 0;
  const scores = order.map((k, rank) => {
    total += probs[k];
    if (score === "thr") return 1 - probs[k];
    return score === "raps" ? total + 0.1 * rank : total;
  });
  return order.filter((_, rank) => rank === 0 || scores[rank] <= threshold + 1e-6);
}

/** Returns the classes, the most probable first. */
function sorted(probs) {
  return [...probs.keys()].sort((a, b) => probs[b] - probs[a] || a - b);
}

/** Returns the outputs for pixels uint8 [B · H · W · C]: {name: numbers}. */
async function run(pixels, size = 1) {
  await ready;
  if (!size) throw new Error("images has no image; accepted: at least one");
  const shape = [size, ...metadata.input.shape.slice(1)];
  const outputs = await session.run({ images: new ort.Tensor("uint8", pixels, shape) });
  return Object.fromEntries(
    Object.keys(metadata.outputs).map((name) => [name, Array.from(outputs[name].data)]),
  );
}

async function load() {
  const answer = await fetch("metadata.json");
  if (!answer.ok) throw new Error(`metadata.json: ${answer.status} ${answer.statusText}`);
  metadata = await answer.json();
  const [, height, width, channels] = metadata.input.shape;
  element("about").textContent =
    `${metadata.name ? `${metadata.name}: ` : ""}${metadata.classes.length} classes, ` +
    `${width} × ${height} pixels, ${channels === 1 ? "greyscale" : "colour"}`;
  const runtime = new URL(metadata.runtime, document.baseURI).href;
  ort = await import(`${runtime}ort.wasm.min.mjs`);
  ort.env.wasm.wasmPaths = runtime;
  ort.env.wasm.numThreads = 1; // several need headers that static servers do not send
  session = await ort.InferenceSession.create("model.onnx");
}

/** Classifies files in their order, once the network has loaded; adds a card for each. */
async function show(files) {
  element("error").textContent = "";
  if (!session) {
    element("state").textContent = "Loading the network; the image is classified then …";
    try {
      await ready;
    } catch (error) {
      return refuse(error);
    }
  }
  for (const file of files) {
    const name = file.name ?? "image";
    element("state").textContent = `Classifying ${name} …`;
    await new Promise((resolve) => setTimeout(resolve)); // draws the line above
    try {
      const pixels = await prepare(file, metadata);
      element("results").prepend(card(file, name, pixels, await run(pixels)));
    } catch (error) {
      element("error").textContent += `${name} cannot be classified: ${error.message}\n`;
    }
  }
  element("state").textContent = READY;
}

/** Says why the network cannot be loaded. */
function refuse(error) {
  element("state").textContent = "";
  element("error").textContent = `The network cannot be loaded: ${error.message}`;
}

function card(file, name, pixels, outputs) {
  const made = element("card").content.cloneNode(true);
  const find = (selector) => made.querySelector(selector);
  const { probs } = outputs;
  const order = sorted(probs);
  const image = find("img");
  const seen = find(".seen");
  image.onload = () => {
    image.classList.toggle("small", image.naturalWidth < 100);
    const { width, height } = seen.firstElementChild;
    seen.hidden = image.naturalWidth === width && image.naturalHeight === height;
    URL.revokeObjectURL(image.src);
  };
  image.src = URL.createObjectURL(file);
  find(".file").textContent = name;
  draw(find("canvas"), pixels);
  find(".class").textContent = metadata.classes[order[0]];
  find(".probability").textContent = percent(probs[order[0]]);
  for (const k of order.slice(0, SHOWN)) {
    const row = find(".bars").insertRow();
    const head = document.createElement("th");
    head.textContent = metadata.classes[k];
    row.append(head);
    const bar = document.createElement("i");
    bar.style.width = percent(probs[k]).replace(" ", "");
    row.insertCell().append(bar);
    row.insertCell().textContent = percent(probs[k]);
  }
  const fitted = metadata.prediction_sets;
  for (const { coverage, threshold } of fitted ? fitted.thresholds : []) {
    const found = predictionSet(probs, fitted, threshold);
    const more = found.length > NAMED ? ` and ${found.length - NAMED} more` : "";
    const names = found.slice(0, NAMED).map((k) => metadata.classes[k]).join(", ");
    add(find(".sets"), `Prediction set with ${+(100 * coverage).toFixed(4)} % coverage`, names + more);
  }
  const scores = Object.keys(outputs).filter((key) => key !== "probs");
  find("details").hidden = !scores.length;
  for (const key of scores) {
    const term = add(find(".scores"), key.replaceAll("_", " "), outputs[key][0].toFixed(4));
    term.append(document.createElement("small"));
    term.lastChild.textContent = metadata.outputs[key].meaning ?? "";
  }
  return made;
}

/** Adds a term and its value to a list; returns the element of the term. */
function add(list, term, value) {
  for (const [tag, text] of [["dt", term], ["dd", value]]) {
    const made = document.createElement(tag);
    made.textContent = text;
    list.append(made);
  }
  return list.lastChild.previousSibling;
}

/** Draws the network's input. */
function draw(canvas, pixels) {
  const [, height, width, channels] = metadata.input.shape;
  [canvas.width, canvas.height] = [width, height];
  const data = new Uint8ClampedArray(4 * width * height).fill(255);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) data[4 * i + c] = pixels[channels * i + (channels === 1 ? 0 : c)];
  }
  canvas.getContext("2d").putImageData(new ImageData(data, width, height), 0, 0);
}

let queue = Promise.resolve();
function enqueue(list) {
  const files = [...list]; // the list is empty once the event is over
  if (files.length) queue = queue.then(() => show(files));
  else element("error").textContent = "Nothing to classify: only image files can be dropped.";
}

element("file").addEventListener("change", (event) => {
  enqueue(event.target.files);
  event.target.value = ""; // so that the same file can be chosen again
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) enqueue(event.clipboardData.files);
});
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    element("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") enqueue(event.dataTransfer.files);
  });
}

const ready = load();
window.classifier = { ready, run, show };
ready.then(() => { element("state").textContent = READY; }, refuse);
