import { expect, it } from "vitest";
import { bytes, clean, clock, heard, shellWord, system } from "../src/words";

it("takes out what could make a text look like another one", () => {
  expect(clean("a\u001b[2Jb\u202egnp.exe\u0000")).toBe("a[2Jbgnp.exe");
});

it("quotes what a shell would take apart", () => {
  expect(shellWord("web-1")).toBe("web-1");
  expect(shellWord("it's; rm -rf /")).toBe(`'it'\\''s; rm -rf /'`);
});

it("says sizes and moments shortly", () => {
  expect([bytes(0), bytes(1536), bytes(123_456_789)]).toEqual(["0 B", "1.5 KB", "123 MB"]);
  expect([clock(61_500), clock(3_661_000)]).toEqual(["01:01", "01:01:01"]);
});

it("says of a machine what is known of it", () => {
  const named = { platform: "Linux", platform_name: "Ubuntu\u001b", platform_version: "24.04" };
  expect(system(named)).toBe("Ubuntu 24.04");
  expect(system({ ...named, platform_version: null })).toBe("Ubuntu");
  expect(system({ ...named, platform_name: null })).toBe("Linux");
  expect(system({ platform: null, platform_name: null, platform_version: null })).toBe("");
  const minute = 60_000;
  expect(heard({ online: true, last_ping_ms: 0 }, 5 * minute)).toBe("online");
  expect(heard({ online: false, last_ping_ms: minute }, 5 * minute)).toBe("its agent has not answered for 4 min");
  expect(heard({ online: false, last_ping_ms: null }, 5 * minute)).toBe("its agent does not answer");
});
