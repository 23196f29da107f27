// Looks at every page: who cannot see well can use it, and a picture of each.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import type { Page } from "@playwright/test";
import { expect, test } from "./support/pages";
import { another, demo, opened, sessionOf, shell, shows, signIn, type } from "./support/person";

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

/** A picture and a scan in every view. */
async function look(page: Page, name: string, whole = false): Promise<void> {
  for (const view of VIEWS) {
    await page.emulateMedia({ colorScheme: view.colorScheme, reducedMotion: "reduce" });
    await page.setViewportSize({ width: view.width, height: view.height });
    await page.waitForTimeout(400);
    await page.screenshot({ path: join(PICTURES, `${name}-${view.name}.png`), fullPage: whole });
    const wider = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    expect(wider, `${name} in ${view.name} is wider than the window`).toBeLessThanOrEqual(0);
    await scan(page, `${name} in ${view.name}`);
  }
  await page.setViewportSize({ width: 1280, height: 800 });
}

test("every page is whole, readable and named, in light, dark and on a phone", async ({ page }) => {
  test.setTimeout(240_000);
  await page.goto(demo().console);
  await expect(page.getByRole("button", { name: /^alice/ })).toBeVisible();
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

test("why and what if are whole, readable and named too", async ({ page }) => {
  test.setTimeout(180_000);
  await signIn(page, "alice");
  await page.getByRole("button", { name: "Other ways to db-prod" }).click();
  await page.getByText("Why can’t I?").first().click();
  await expect(page.getByText("To be allowed:").first()).toBeVisible();
  await look(page, "why-not");
  await page.keyboard.press("Escape");
  await page.goto(`${demo().endpoint}/console/policies`);
  await page.getByLabel("On which target").fill("db-prod");
  await page.getByRole("button", { name: "Ask" }).click();
  await expect(page.getByText("To be allowed:").first()).toBeVisible();
  await look(page, "ask-own");
  const carol = await another(page.context());
  await signIn(carol, "carol");
  await carol.getByRole("button", { name: "Open a shell on db-prod" }).click();
  await expect(carol.getByRole("dialog").locator(".advice")).toBeVisible();
  await look(carol, "denied");
  await carol.goto(`${demo().endpoint}/console/policies`);
  await expect(carol.getByText("The folder is what decides now.")).toBeVisible();
  await look(carol, "policies");
  await carol.goto(`${demo().endpoint}/console/policies/ask`);
  await carol.getByLabel("Who").fill("group:contractors");
  await carol.getByLabel("Does what").selectOption("forwardPortToHost");
  await carol.getByLabel("On which target").fill("db-prod");
  await carol.getByRole("textbox", { name: "Host" }).fill("orders.internal");
  await carol.locator("form").getByRole("button", { name: "Ask" }).click();
  await expect(carol.getByText("Forbidden by")).toBeVisible();
  await look(carol, "ask-whole", true);
  await carol.context().close();
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
