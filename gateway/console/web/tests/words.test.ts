import { expect, it } from "vitest";
import { bytes, clean, clock, shellWord } from "../src/words";

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
