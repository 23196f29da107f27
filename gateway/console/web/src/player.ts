/** Replay: asciinema-player over scenes that the gateway makes. */
import * as Asciinema from "asciinema-player";
import "asciinema-player/dist/bundle/asciinema-player.css";
import { get, query } from "./api";
import { real, shown } from "./moments";
import { isDark, whenThemeChanges } from "./theme";

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
  const theme = (): string => (isDark() ? "postern-dark" : "postern-light");
  const player = Asciinema.create(source as never, place, {
    fit: "both",
    speed: options.speed,
    startAt: shown(cuts, options.atMs) / 1000,
    theme: theme(),
    terminalFontFamily: 'ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace',
    preload: true,
    poster: `npt:${Math.max(shown(cuts, options.atMs) / 1000, 0)}`,
  });
  const unheard = whenThemeChanges(() => recolour(place, theme()));
  return {
    marks: index.markers.map(([seconds, label]) => [real(cuts, seconds * 1000), label]),
    seek: (ms) => player.seek(shown(cuts, ms) / 1000),
    nowMs: () => real(cuts, player.getCurrentTime() * 1000),
    close: () => {
      unheard();
      player.dispose();
    },
  };
}

const THEME = "asciinema-player-theme-";

/** A player that is open has no word for another theme: it is a class. */
function recolour(place: HTMLElement, theme: string): void {
  for (const element of place.querySelectorAll(`[class*="${THEME}"]`)) {
    const old = [...element.classList].filter((name) => name.startsWith(THEME));
    element.classList.remove(...old);
    element.classList.add(THEME + theme);
  }
}
