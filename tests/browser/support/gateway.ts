// Starts `postern demo` on free ports, and stops it at the end.
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface Demo {
  endpoint: string;
  console: string;
  bin: string;
  state: string;
  policies: string;
  environment_file: string;
  targets: { id: string; name: string }[];
  identities: { name: string; arn: string }[];
  region: string;
  aws_endpoint: string;
  aws_config_file: string;
}

export default async function start(): Promise<() => Promise<void>> {
  const postern = process.env["POSTERN_BIN"];
  if (!postern || !existsSync(postern)) throw new Error("POSTERN_BIN must be the path of a built postern");
  const state = mkdtempSync(join(tmpdir(), "postern-browser-"));
  const demo = spawn(postern, ["demo", "--state", state, "--listen", "127.0.0.1:0"], { stdio: ["ignore", "pipe", "inherit"] });
  const file = join(state, "demo.json");
  await new Promise<void>((up, down) => {
    // It prints the tour once everything can be reached.
    demo.stdout.on("data", (text: Buffer) => text.toString().includes("Ctrl-C stops it") && up());
    demo.once("exit", (code) => down(new Error(`the demo ended with ${code}`)));
  });
  const about = JSON.parse(readFileSync(file, "utf8")) as Demo;
  process.env["POSTERN_DEMO"] = JSON.stringify({ ...about, state });
  return async () => {
    const ended = new Promise((done) => demo.once("exit", done));
    demo.kill("SIGTERM");
    await ended;
    rmSync(state, { recursive: true, force: true });
  };
}
