/** Replay: asciinema-player over scenes that the gateway makes. */
import * as Asciinema from "asciinema-player";
import "asciinema-player/dist/bundle/asciinema-player.css";
import { get, query } from "./api";
import { real, shown } from "./moments";
import { isDark } from "./theme";

interface Index {
  duration: number;
  markers: [number, string][];
  cuts: [number, number][] | null;
}

export interface PlayerHandle {
  marks: [number, string][];
  /** Goes to a moment of the session. */
  seek: (ms: number) => Promise<unknown>;
  /** The moment of the session that is shown. */
  nowMs: () => number;
  close: () => void;
}

export async function openPlayer(
  place: HTMLElement,
  options: { path: string; idle: string; speed: number; atMs: number },
): Promise<PlayerHandle> {
  const path = `${options.path}/replay${query({ idle: options.idle })}`;
  const index = await get<Index>(path);
  const cuts = index.cuts ?? [];
  const source = { format: "segmented", url: `/console/api${path}` };
  const player = Asciinema.create(source as never, place, {
    fit: "both",
    speed: options.speed,
    startAt: shown(cuts, options.atMs) / 1000,
    theme: isDark() ? "postern-dark" : "postern-light",
    terminalFontFamily: 'ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace',
    preload: true,
    poster: `npt:${Math.max(shown(cuts, options.atMs) / 1000, 0)}`,
  });
  return {
    marks: index.markers.map(([seconds, label]) => [real(cuts, seconds * 1000), label]),
    seek: (ms) => player.seek(shown(cuts, ms) / 1000),
    nowMs: () => real(cuts, player.getCurrentTime() * 1000),
    close: () => player.dispose(),
  };
}
