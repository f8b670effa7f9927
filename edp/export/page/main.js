// Classifies the image that is dropped on the page.
import { prepare } from "./prepare.js";

const element = (id) => document.getElementById(id);
const metadata = await (await fetch("metadata.json")).json();
const runtime = new URL(metadata.runtime, document.baseURI).href;
let session, ort;

/** Returns the classes of the prediction set, the most probable first. */
export function predictionSet(probs, { score }, threshold) {
  const order = [...probs.keys()].sort((a, b) => probs[b] - probs[a] || a - b);
  let total = 0;
  const scores = order.map((k, rank) => {
    total += probs[k];
    if (score === "thr") return 1 - probs[k];
    return score === "raps" ? total + 0.1 * rank : total;
  });
  return order.filter((_, rank) => rank === 0 || scores[rank] <= threshold + 1e-6);
}

/** Returns the outputs for one image file: {name: numbers}. */
export async function classify(blob) {
  const pixels = await prepare(blob, metadata);
  const input = new ort.Tensor("uint8", pixels, [1, ...metadata.input.shape.slice(1)]);
  const outputs = await session.run({ images: input });
  return Object.fromEntries(
    Object.keys(metadata.outputs).map((name) => [name, Array.from(outputs[name].data)]),
  );
}

async function show(blob) {
  element("error").textContent = "";
  element("result").hidden = true;
  try {
    const outputs = await classify(blob);
    const best = outputs.probs.indexOf(Math.max(...outputs.probs));
    element("class").textContent = metadata.classes[best];
    element("probability").textContent = outputs.probs[best].toFixed(4);
    const fitted = metadata.prediction_sets;
    element("sets").hidden = !fitted;
    element("set").replaceChildren(...(fitted ? fitted.thresholds : []).map((one) => {
      const line = document.createElement("div");
      const found = predictionSet(outputs.probs, fitted, one.threshold);
      const names = found.map((k) => metadata.classes[k]).join(", ");
      line.textContent = `${one.coverage}: ${names}`;
      return line;
    }));
    element("uncertainty").replaceChildren(
      ...Object.keys(outputs).filter((name) => name !== "probs").map((name) => {
        const line = document.createElement("div");
        line.textContent = `${name.replaceAll("_", " ")}: ${outputs[name][0].toFixed(4)}`;
        return line;
      }),
    );
    element("image").src = URL.createObjectURL(blob);
    element("image").hidden = element("result").hidden = false;
  } catch (error) {
    element("error").textContent = `This file cannot be classified: ${error.message}`;
  }
}

element("file").addEventListener("change", (e) => e.target.files[0] && show(e.target.files[0]));
const drop = element("drop");
for (const name of ["dragover", "dragleave", "drop"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files[0]) show(event.dataTransfer.files[0]);
  });
}

try {
  ort = await import(`${runtime}ort.wasm.min.mjs`);
  ort.env.wasm.wasmPaths = runtime;
  ort.env.wasm.numThreads = 1; // several need headers that static servers do not send
  session = await ort.InferenceSession.create("model.onnx");
  element("state").textContent = metadata.name ? `Network: ${metadata.name}` : "Ready";
} catch (error) {
  element("state").textContent = "";
  element("error").textContent = `The network cannot be loaded: ${error.message}`;
}
window.classifier = { classify, show };
