import { expect, test } from "vitest";
import { channelKey, forgetChannels } from "../src/kept";

/** Storage as browsers have it: keys move up when one is removed. */
function storage(entries: Record<string, string>): Storage {
  const map = new Map(Object.entries(entries));
  return {
    get length() {
      return map.size;
    },
    key: (at: number) => [...map.keys()][at] ?? null,
    getItem: (key: string) => map.get(key) ?? null,
    setItem: (key: string, value: string) => void map.set(key, value),
    removeItem: (key: string) => void map.delete(key),
    clear: () => map.clear(),
  };
}

test("signing out forgets what every channel kept, and nothing else", () => {
  const kept = storage({ [channelKey("alice-1")]: "{}", [channelKey("alice-2")]: "{}", "postern-font-size": "14" });
  forgetChannels(kept);
  expect(kept.length).toBe(1);
  expect(kept.getItem("postern-font-size")).toBe("14");
});
