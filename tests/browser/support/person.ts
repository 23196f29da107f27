// What a person does in the console, in the words of the tests.
import { expect, type BrowserContext, type Page } from "@playwright/test";
import type { Demo } from "./gateway";
import { withPages } from "./pages";

export const demo = (): Demo => JSON.parse(process.env["POSTERN_DEMO"] ?? "{}") as Demo;
export const DEV = "mi-0d0e0000000000001";
export const PROD = "mi-0d0e0000000000002";

/** Signs a fresh page in, by picking in the demo. */
export async function signIn(page: Page, name: string): Promise<void> {
  await page.goto(demo().console);
  await page.getByRole("button", { name: new RegExp(`^${name}`) }).click();
  await expect(page.getByRole("heading", { name: "Targets" })).toBeVisible();
}

/** Opens a shell with one click and waits for its prompt. */
export async function shell(page: Page, target = "web-dev"): Promise<Page> {
  const tab = await opened(page, () => page.getByRole("button", { name: `Open a shell on ${target}` }).click());
  await shows(tab, new RegExp(`${target}\\$ `));
  return tab;
}

/** The tab that something opens. */
export async function opened(page: Page, by: () => Promise<void>): Promise<Page> {
  const [tab] = await Promise.all([page.context().waitForEvent("page"), by()]);
  await tab.waitForURL(/\/console\/shell\//);
  return tab;
}

/** The text of a terminal, scrollback included. */
export async function text(page: Page, place = ".terminal"): Promise<string> {
  return page.evaluate((place) => {
    interface Line { translateToString(trim: boolean): string }
    interface Buffer { length: number; getLine(at: number): Line | undefined }
    const element = document.querySelector(place) as (Element & { terminal?: { buffer: { active: Buffer } } }) | null;
    const buffer = element?.terminal?.buffer.active;
    if (!buffer) return "";
    return Array.from({ length: buffer.length }, (_, at) => buffer.getLine(at)?.translateToString(true) ?? "").join("\n");
  }, place);
}

/** Waits until the terminal shows it. */
export async function shows(page: Page, what: string | RegExp, place = ".terminal"): Promise<void> {
  const found = async (): Promise<boolean> => {
    const all = await text(page, place);
    return typeof what === "string" ? all.includes(what) : what.test(all);
  };
  await expect.poll(found, { message: `the terminal shows ${what}`, timeout: 20_000 }).toBe(true);
}

export async function type(page: Page, line: string): Promise<void> {
  await page.locator(".terminal .xterm-helper-textarea").focus();
  await page.keyboard.type(`${line}\n`);
}

export function sessionOf(tab: Page): string {
  return decodeURIComponent(new URL(tab.url()).pathname.split("/").pop() ?? "");
}

/** What the page complained of: nothing of ours may break its own rules. */
export function complaints(page: Page): string[] {
  const heard: string[] = [];
  page.on("console", (message) => message.type() === "error" && heard.push(message.text()));
  page.on("pageerror", (error) => heard.push(String(error)));
  return heard;
}

/** Another person in a browser of their own. */
export async function another(context: BrowserContext): Promise<Page> {
  const fresh = await context.browser()?.newContext({ ignoreHTTPSErrors: true });
  if (!fresh) throw new Error("there is no browser");
  return (await withPages(fresh)).newPage();
}
