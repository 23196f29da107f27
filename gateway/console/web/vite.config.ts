// Builds the pages into dist/app, packed beside as .gz, with all licences.
import { existsSync, readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { defineConfig, type Plugin } from "vite";

const OUT = "dist/app";
const PACKED = /\.(js|css|html|svg|txt)$/;

function packed(): Plugin {
  const pack = (folder: string): void => {
    for (const name of readdirSync(folder)) {
      const path = join(folder, name);
      if (statSync(path).isDirectory()) pack(path);
      else if (PACKED.test(name)) writeFileSync(`${path}.gz`, gzipSync(readFileSync(path), { level: 9 }));
    }
  };
  return { name: "packed", apply: "build", closeBundle: () => (licences(), pack(OUT)) };
}

/** What is in the pages besides our own work, and on which terms. */
function licences(): void {
  const ours = JSON.parse(readFileSync("package.json", "utf8")) as { dependencies: Record<string, string> };
  const names = [...Object.keys(ours.dependencies), "solid-js", "seroval"];
  const texts = names.map((name) => {
    const file = ["LICENSE", "LICENSE.md", "LICENSE.txt"].map((f) => join("node_modules", name, f)).find(existsSync);
    return `${name}\n\n${file ? readFileSync(file, "utf8") : "see its package"}\n`;
  });
  writeFileSync(join(OUT, "licences.txt"), texts.join(`\n${"-".repeat(72)}\n\n`));
}

export default defineConfig({
  base: "/console/",
  build: { outDir: OUT, emptyOutDir: true, target: "es2022", chunkSizeWarningLimit: 600, modulePreload: { polyfill: false } },
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  plugins: [packed()],
  test: { include: ["tests/**/*.test.ts"], setupFiles: ["tests/setup.ts"] },
} as never);
