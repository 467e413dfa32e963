// Builds the script of src/unifeat/explorer/page/ from src/, and the licences of what is in it. The page and its style
// are written there by hand.
// `bundle.json` says what they were built from, so that a test finds a bundle that is not the sources', or not checked.

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const page = join(here, "..", "src", "unifeat", "explorer", "page");
const sha256 = (content) => createHash("sha256").update(content).digest("hex");
const read = (...path) => readFileSync(join(here, ...path), "utf8");

// Nothing is written that TypeScript finds wrong: esbuild leaves types out without reading them.
execFileSync(process.execPath, [join(here, "node_modules", "typescript", "bin", "tsc"), "--noEmit"], {
  cwd: here,
  stdio: "inherit",
});

const { outputFiles, metafile } = await build({
  absWorkingDir: here,
  entryPoints: ["src/main.ts"],
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  charset: "ascii",
  legalComments: "none",
  metafile: true,
  write: false,
});

// Packages whose code is in the bundle, with their licences.
const names = new Set();
for (const [path, { bytesInOutput }] of Object.entries(Object.values(metafile.outputs)[0].inputs)) {
  const found = /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path);
  if (found && bytesInOutput) names.add(found[1]);
}
const packages = {};
const licences = [];
for (const name of [...names].sort()) {
  const { version, license } = JSON.parse(read("node_modules", name, "package.json"));
  const file = readdirSync(join(here, "node_modules", name)).find((entry) => /^licen[cs]e/i.test(entry));
  if (!file) throw new Error(`${name} has no licence`);
  packages[name] = version;
  licences.push(`${name} ${version} (${license})\n\n${read("node_modules", name, file).trim()}\n`);
}

mkdirSync(page, { recursive: true });
const files = {
  "explorer.js": outputFiles[0].text,
  "LICENCES.txt": licences.join(`\n${"-".repeat(80)}\n\n`),
};
for (const [name, content] of Object.entries(files)) writeFileSync(join(page, name), content);

const sources = ["package.json", "package-lock.json", "tsconfig.json", "build.mjs"];
sources.push(...readdirSync(join(here, "src")).map((name) => `src/${name}`));
const bundle = {
  packages,
  sources: Object.fromEntries(sources.sort().map((path) => [path, sha256(read(path))])),
  files: Object.fromEntries(Object.entries(files).map(([name, content]) => [name, sha256(content)])),
};
writeFileSync(join(page, "bundle.json"), `${JSON.stringify(bundle, null, 1)}\n`);
console.log(
  Object.entries(files)
    .map(([name, content]) => `${name}: ${content.length.toLocaleString("en")}`)
    .join("\n"),
);
