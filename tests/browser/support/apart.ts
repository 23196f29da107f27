// `postern serve` beside the demo, whose machines it leads to: it can be
// stopped and killed, and they go on. Browsers reach it through a wire of our
// own, which can go dead without anybody being told.
import { execFile, spawn, type ChildProcess } from "node:child_process";
import { mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { demo } from "./person";

/** A line between browser and gateway. */
class Wire {
  private readonly open = new Set<[Socket, Socket]>();
  private delayMs = 0;
  private isHushed = false;

  private constructor(private readonly server: Server) {}

  static async to(port: number): Promise<Wire> {
    const server = createServer();
    const wire = new Wire(server);
    server.on("connection", (near) => wire.join(near, port));
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    return wire;
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  /** What is connected now hears nothing any more, and is not told. */
  die(): void {
    for (const [near, far] of this.open) {
      near.removeAllListeners("data");
      near.on("data", () => {});
      far.destroy();
    }
    this.open.clear();
  }

  /** Who connects from now on is accepted, and never answered. */
  hush(hushed: boolean): void {
    this.isHushed = hushed;
  }

  /** Everything arrives so much later from now on, each way. */
  slow(ms: number): void {
    this.delayMs = ms;
  }

  close(): void {
    for (const pair of this.open) for (const socket of pair) socket.destroy();
    this.server.close();
  }

  private join(near: Socket, port: number): void {
    near.on("error", () => {});
    if (this.isHushed) return void near.on("data", () => {});
    const far = connect(port, "127.0.0.1");
    const pair: [Socket, Socket] = [near, far];
    this.open.add(pair);
    const isOpen = (): boolean => this.open.has(pair);
    const carry = (from: Socket, to: Socket): void => {
      from.on("data", (bytes) => void setTimeout(() => isOpen() && !to.destroyed && to.write(bytes), this.delayMs));
      from.on("error", () => {});
      from.on("close", () => {
        if (!isOpen()) return;
        this.open.delete(pair);
        to.destroy();
      });
    };
    carry(near, far);
    carry(far, near);
  }
}

export class Apart {
  private process: ChildProcess | undefined;

  private constructor(
    private readonly folder: string,
    private readonly environment: Record<string, string>,
    private readonly admin: number,
    readonly wire: Wire,
  ) {}

  static async start(): Promise<Apart> {
    const folder = mkdtempSync(join(tmpdir(), "postern-apart-"));
    const [port, admin] = [await freePort(), await freePort()];
    const wire = await Wire.to(port);
    const about = demo();
    const [tls, aws] = [join(about.state, "tls"), about.aws_endpoint];
    const account = about.identities[0]?.arn.split(":")[4] ?? "";
    mkdirSync(join(folder, "state"));
    const config = `
state_directory = "${folder}/state"
[listen]
address = "127.0.0.1:${port}"
public_url = "https://127.0.0.1:${wire.port}"
certificate = "${tls}/server.pem"
key = "${tls}/server.key"
[admin]
address = "127.0.0.1:${admin}"
[identity]
allowed_accounts = ["${account}"]
regions = ["${about.region}"]
sts_endpoint_url = "${aws}"
ca_bundle = "${tls}/ca.pem"
[policy]
directory = "${about.state}/policies"
[broker]
region = "${about.region}"
account = "${account}"
ssm_endpoint_url = "${aws}"
sts_endpoint_url = "${aws}"
kms_endpoint_url = "${aws}"
tagging_endpoint_url = "${aws}"
role_arn = "arn:aws:iam::${account}:role/PosternBroker"
ca_bundle = "${tls}/ca.pem"
starts_per_second = 0
`;
    writeFileSync(join(folder, "postern.toml"), config);
    const profiles = readFileSync(about.aws_config_file, "utf8").replaceAll(about.endpoint, `https://127.0.0.1:${wire.port}`);
    writeFileSync(join(folder, "aws-config"), profiles);
    const { keys } = JSON.parse(readFileSync(join(about.state, "identities.json"), "utf8")) as {
      keys: { name: string; access_key_id: string; secret_access_key: string }[];
    };
    const broker = keys.find((key) => key.name === "gateway");
    const environment = { AWS_ACCESS_KEY_ID: broker?.access_key_id ?? "", AWS_SECRET_ACCESS_KEY: broker?.secret_access_key ?? "" };
    const apart = new Apart(folder, environment, admin, wire);
    await apart.again();
    return apart;
  }

  /** A link that signs a browser in as one of the demo's people. */
  async link(name: string): Promise<string> {
    const line = `. "$1"; AWS_CONFIG_FILE="$2/aws-config" POSTERN_CACHE_DIR="$2/cache" exec "$3" console --profile "$4"`;
    const words = ["-c", line, "bash", demo().environment_file, this.folder, join(demo().bin, "postern"), name];
    // It goes over the wire, which is in this process: so this does not stand still.
    return (await promisify(execFile)("bash", words)).stdout.trim();
  }

  /** Starts the process (again) and waits until it takes sessions. */
  async again(): Promise<void> {
    const log = openSync(join(this.folder, "serve.log"), "a");
    const kept = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(AWS_|POSTERN_|SSL_CERT_)/.test(name)));
    const started = spawn(process.env["POSTERN_BIN"] ?? "", ["serve", "--config", join(this.folder, "postern.toml")], {
      env: { ...kept, ...this.environment },
      stdio: ["ignore", log, log],
    });
    this.process = started;
    for (;;) {
      if (started.exitCode !== null) throw new Error(readFileSync(join(this.folder, "serve.log"), "utf8"));
      const ready = await fetch(`http://127.0.0.1:${this.admin}/readyz`).then((answer) => answer.ok, () => false);
      if (ready) return;
      await new Promise((next) => setTimeout(next, 50));
    }
  }

  /** Stops it as a service manager does, or kills it. */
  async end(how: "SIGTERM" | "SIGKILL"): Promise<void> {
    const ending = this.process;
    if (!ending || ending.exitCode !== null) return;
    const ended = new Promise((done) => ending.once("exit", done));
    ending.kill(how);
    await ended;
  }

  async close(): Promise<void> {
    await this.end("SIGTERM");
    this.wire.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address() as AddressInfo;
  await new Promise((done) => server.close(done));
  return port;
}
