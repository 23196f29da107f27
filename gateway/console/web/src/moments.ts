/** Moments of a session, and of a player whose pauses are cut. */

/** A moment of the session as a moment of the player, whose pauses are cut. */
export function shown(cuts: [number, number][], ms: number): number {
  let cut = 0;
  for (const [began, length] of cuts) {
    if (began >= ms) break;
    cut += Math.min(length, ms - began);
  }
  return ms - cut;
}

/** And back. */
export function real(cuts: [number, number][], ms: number): number {
  let cut = 0;
  for (const [began, length] of cuts) {
    if (began - cut >= ms) break;
    cut += length;
  }
  return ms + cut;
}
