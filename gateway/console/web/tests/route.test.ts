import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { onwards } from "../src/route";

beforeAll(() => vi.stubGlobal("location", new URL("https://gw.example.com/console/enter")));
afterAll(() => vi.unstubAllGlobals());

it("leads on to a page of the console and to nothing else", () => {
  expect(onwards("/console/")).toBe("/");
  expect(onwards("/console/sessions?state=history")).toBe("/sessions?state=history");
  expect(onwards("/console/sessions/a-1?t=7")).toBe("/sessions/a-1?t=7");
  const bad = [
    null, "", "/", "/console", "/v1/login/oidc", "console/", "https://evil.example/console/", "//evil.example/console/", "/\\evil.example/console/",
    "/console/../v1/access", "/console/..//evil.example/", "/console/%2e%2e/v1", "/console/api/me", "/console/enter", "/console/enter?to=/console/x", "javascript:alert(1)",
  ];
  for (const text of bad) expect(onwards(text), String(text)).toBeUndefined();
});
