import { expect, it } from "vitest";
import { real, shown } from "../src/moments";

it("finds a moment of the session in a player whose pauses are cut, and back", () => {
  const cuts: [number, number][] = [[100, 7900], [10_000, 48_000]];
  for (const ms of [0, 50, 100, 9000, 10_000, 60_000, 60_500]) expect(real(cuts, shown(cuts, ms)), String(ms)).toBe(ms);
  expect(shown(cuts, 60_500)).toBe(4600);
  expect(shown([], 42)).toBe(42);
});
