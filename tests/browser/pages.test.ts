// Looks at every page: who cannot see well can use it, and a picture of each.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import type { Page } from "@playwright/test";
import { expect, test } from "./support/pages";
import { demo, opened, sessionOf, shell, shows, signIn, type } from "./support/person";

const PICTURES = join(import.meta.dirname ?? new URL(".", import.meta.url).pathname, "../../build/browser/pages");
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const VIEWS = [
  { name: "light", colorScheme: "light", width: 1280, height: 800 },
  { name: "dark", colorScheme: "dark", width: 1280, height: 800 },
  { name: "phone", colorScheme: "light", width: 390, height: 844 },
] as const;

interface Violation {
  id: string;
  help: string;
  nodes: { target: string[]; failureSummary: string }[];
}

async function scan(page: Page, what: string): Promise<void> {
  // Evaluated by the test, not loaded by the page: its own rules stay strict.
  await page.evaluate(AXE);
  const found = await page.evaluate(async () => {
    const axe = (window as unknown as { axe: { run: (about: unknown, options: unknown) => Promise<{ violations: Violation[] }> } }).axe;
    const rules = { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] };
    // What is inside a terminal or a player is theirs.
    return (await axe.run({ exclude: [[".xterm"], [".ap-wrapper"]] }, rules)).violations;
  });
  const told = found.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((node) => node.target.join(" ")).join(", ")}`);
  expect(told, what).toEqual([]);
}

test("every page is whole, readable and named, in light, dark and on a phone", async ({ page }) => {
  test.setTimeout(240_000);
  await page.goto(demo().console);
  await expect(page.getByRole("button", { name: /^alice/ })).toBeVisible();
  const look = async (page: Page, name: string): Promise<void> => {
    for (const view of VIEWS) {
      await page.emulateMedia({ colorScheme: view.colorScheme, reducedMotion: "reduce" });
      await page.setViewportSize({ width: view.width, height: view.height });
      await page.waitForTimeout(400);
      await page.screenshot({ path: join(PICTURES, `${name}-${view.name}.png`) });
      const wider = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      expect(wider, `${name} in ${view.name} is wider than the window`).toBeLessThanOrEqual(0);
      await scan(page, `${name} in ${view.name}`);
    }
    await page.setViewportSize({ width: 1280, height: 800 });
  };
  await look(page, "sign-in");
  await signIn(page, "alice");
  await look(page, "targets");
  await page.getByRole("button", { name: "Other ways to web-dev" }).click();
  await expect(page.getByText("Why can’t I?").or(page.getByText("Why?")).first()).toBeVisible();
  await look(page, "ways");
  await page.keyboard.press("Escape");

  const tab = await shell(page);
  await type(tab, String.raw`for c in 1 2 3 4 5 6; do printf '\033[3%dmcolour %d ' $c $c; done; printf '\033[0m\n'; ls -l /`);
  await shows(tab, /usr/);
  await look(tab, "shell");
  await page.goto(`${demo().endpoint}/console/sessions`);
  await expect(page.locator("td .badge.good").first()).toBeVisible();
  await look(page, "sessions");
  await page.goto(`${demo().endpoint}/console/sessions/${sessionOf(tab)}`);
  await shows(page, /usr/, ".watched");
  await look(page, "watch");
  await type(tab, "exit");
  await expect(tab.getByText("The session is over.")).toBeVisible();
  await look(tab, "shell-over");
  await page.goto(`${demo().endpoint}/console/sessions/${sessionOf(tab)}?t=2`);
  await expect(page.getByText("signed, unaltered")).toBeVisible();
  await look(page, "replay");
  await page.goto(`${demo().endpoint}/console/sessions?state=history`);
  await expect(page.locator("table.list, .empty").first()).toBeVisible();
  await look(page, "history");
  await page.goto(`${demo().endpoint}/console/search?q=colour`);
  await expect(page.locator(".hits li").first().or(page.getByText("Nothing found"))).toBeVisible();
  await look(page, "search");
  await page.goto(`${demo().endpoint}/console/decisions`);
  await page.locator(".decisions summary").first().click();
  await look(page, "decisions");
});

test("the keyboard alone is enough to open a shell", async ({ page }) => {
  await signIn(page, "alice");
  await page.keyboard.press("/");
  await page.keyboard.type("web-dev");
  await expect(page.getByRole("heading", { name: "db-prod" })).toHaveCount(0);
  await page.locator(".targets button.primary").focus();
  const tab = await opened(page, () => page.keyboard.press("Enter"));
  await shows(tab, /web-dev\$ /);
  await type(tab, "exit");
});

test("the first page weighs less than 350 KB", async ({ page }) => {
  let bytes = 0;
  const session = await page.context().newCDPSession(page);
  await session.send("Network.enable");
  session.on("Network.loadingFinished", (event) => (bytes += event.encodedDataLength));
  await page.goto(demo().console);
  await expect(page.getByRole("button", { name: /^alice/ })).toBeVisible();
  expect(bytes).toBeLessThan(350_000);
  expect(bytes).toBeGreaterThan(10_000);
});
