// Segment an image on a segrt server, with Node.js 18 or later:
//   node client.mjs http://localhost:8080 road.png result.jpg
import { readFile, writeFile } from "node:fs/promises";

const [server, picture, output] = process.argv.slice(2);
const reply = await fetch(`${server}/semantic-segmentation`, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ image: await readFile(picture, "base64"), visualize: true }),
});
const { errorCode, errorMsg, result } = await reply.json();
if (errorCode !== 0) {
  console.error(errorMsg);
  process.exit(1);
}

const names = new Map(result.classes.map(({ id, name }) => [id, name]));
const counts = new Map();
for (const label of result.labelMap) counts.set(label, (counts.get(label) ?? 0) + 1);
const [height, width] = result.size;
console.log(`${width} x ${height}`);
for (const [label, count] of [...counts].sort(([a, m], [b, n]) => n - m || a - b)) {
  const percent = ((100 * count) / (width * height)).toFixed(2).padStart(6);
  console.log(`${percent} %  ${names.get(label)}`);
}
await writeFile(output, result.image, "base64");
