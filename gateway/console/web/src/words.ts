/** Times, sizes and names as people read them. */

/** Control and direction characters never reach the page. */
export function clean(text: string | null | undefined): string {
  return (text ?? "").replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "");
}

export function ago(ms: number, nowMs: number): string {
  return `${span(nowMs - ms)} ago`;
}

export function span(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} days`;
}

export function clock(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  const [hours, minutes, rest] = parts.map((part) => String(part).padStart(2, "0"));
  return parts[0] === 0 ? `${minutes}:${rest}` : `${hours}:${minutes}:${rest}`;
}

const moments = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

export function moment(ms: number): string {
  return moments.format(new Date(ms));
}

export function bytes(count: number): string {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let [value, unit] = [count, 0];
  while (value >= 1000 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

const KINDS: Record<string, string> = {
  shell: "Shell",
  interactive_command: "Command",
  non_interactive_command: "Plain command",
  port: "Port",
  port_to_host: "Port of a host",
  ssh: "SSH",
};

export function kind(word: string): string {
  return KINDS[word] ?? word;
}

export function hasScreen(word: string): boolean {
  return word === "shell" || word.endsWith("_command");
}

export function isOver(state: string): boolean {
  return state === "Terminated" || state === "Failed";
}

/** Whether a machine's agent answers; if not, for how long. */
export function heard(machine: { online: boolean; last_ping_ms: number | null }, nowMs: number): string {
  if (machine.online) return "online";
  if (machine.last_ping_ms === null) return "its agent does not answer";
  return `its agent has not answered for ${span(nowMs - machine.last_ping_ms)}`;
}

/** A machine's operating system, as exactly as it is known. */
export function system(machine: { platform: string | null; platform_name: string | null; platform_version: string | null }): string {
  if (machine.platform_name === null) return clean(machine.platform);
  return clean([machine.platform_name, machine.platform_version ?? ""].join(" ").trim());
}

/** A word for a shell, quoted if need be. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
