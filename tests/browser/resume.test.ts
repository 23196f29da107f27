// Networks, laptops and gateways that go away while a shell is open.
import type { Page } from "@playwright/test";
import { Apart } from "./support/apart";
import { expect, test } from "./support/pages";
import { shell, shows, text, type } from "./support/person";

let apart: Apart;

test.beforeAll(async () => {
  apart = await Apart.start();
});
test.afterAll(() => apart.close());
test.afterEach(() => {
  apart.wire.hush(false);
  apart.wire.slow(0);
});

async function signIn(page: Page): Promise<void> {
  await page.goto(await apart.link("alice"));
  await page.getByRole("button", { name: "Sign in as alice" }).click();
  await expect(page.getByRole("heading", { name: "Targets" })).toBeVisible();
}

const lost = (tab: Page) => tab.getByText("the session goes on and is taken up again");

/** The lines that a loop has counted, as the terminal shows them. */
async function counted(tab: Page): Promise<number[]> {
  return [...(await text(tab)).matchAll(/^line-(\d+)$/gm)].map((match) => Number(match[1]));
}

for (const how of ["SIGTERM", "SIGKILL"] as const) {
  test(`a gateway that ends by ${how} and is started again goes on with the same shell`, async ({ page }) => {
    await signIn(page);
    const tab = await shell(page);
    // Unechoed: what is typed meanwhile would stand between the lines.
    await type(tab, "ME=$BASHPID; stty -echo; for i in $(seq 1 200); do echo line-$i; sleep 0.02; done; stty echo");
    await shows(tab, /^line-30$/m);
    await apart.end(how);
    await expect(lost(tab)).toBeVisible();
    await type(tab, "echo same-shell-$((ME == BASHPID))");
    await apart.again();
    await shows(tab, /^same-shell-1$/m);
    expect(await counted(tab)).toEqual(Array.from({ length: 200 }, (_, i) => i + 1));
    await expect(tab.getByText("Connected")).toBeVisible();
    // And the page beside it is still somebody's.
    await page.reload();
    await expect(page.getByRole("heading", { name: "Targets" })).toBeVisible();
    await type(tab, "exit");
    await expect(tab.getByText("The session is over.")).toBeVisible();
  });
}

test("a laptop that slept for hours goes on, though nobody told it that its connection died", async ({ page }) => {
  await page.context().clock.install();
  await signIn(page);
  const tab = await shell(page);
  await type(tab, "for i in $(seq 1 400); do echo line-$i; sleep 0.02; done");
  await shows(tab, /^line-20$/m);
  apart.wire.die();
  await tab.clock.fastForward("03:00:00");
  // It asks by itself whether anybody is there, and finds that nobody is.
  await tab.clock.runFor(8000);
  await shows(tab, /^line-400$/m);
  expect(await counted(tab)).toEqual(Array.from({ length: 400 }, (_, i) => i + 1));
  await type(tab, "exit");
  await expect(tab.getByText("The session is over.")).toBeVisible();
});

test("a network that is gone for twenty minutes ends nothing and repeats nothing", async ({ page }) => {
  await page.context().clock.install();
  await signIn(page);
  const tab = await shell(page);
  await type(tab, "stty -echo; for i in $(seq 1 200); do echo line-$i; sleep 0.02; done; stty echo");
  await shows(tab, /^line-20$/m);
  await tab.context().setOffline(true);
  await expect(lost(tab)).toBeVisible();
  await type(tab, "echo typed-while-away");
  // A minute of attempts; then nobody looks for a while.
  await tab.clock.runFor("01:00");
  await tab.clock.fastForward("19:00");
  await tab.context().setOffline(false);
  await tab.clock.runFor(6000);
  await shows(tab, /^typed-while-away$/m);
  expect(await counted(tab)).toEqual(Array.from({ length: 200 }, (_, i) => i + 1));
  expect((await text(tab)).match(/^typed-while-away$/gm)).toHaveLength(1);
  await type(tab, "exit");
});

test("a network that swallows everything does not hold up the next attempt", async ({ page }) => {
  await page.context().clock.install();
  await signIn(page);
  const tab = await shell(page);
  apart.wire.die();
  apart.wire.hush(true);
  await type(tab, "echo at-last");
  await tab.clock.runFor(8000);
  await expect(lost(tab)).toBeVisible();
  await tab.clock.runFor(25_000);
  apart.wire.hush(false);
  await tab.clock.runFor(12_000);
  await shows(tab, /^at-last$/m);
  await type(tab, "exit");
});

test("a slow line is no dead one, however long it was quiet", async ({ page }) => {
  await page.context().clock.install();
  await signIn(page);
  const tab = await shell(page);
  const dialled: string[] = [];
  tab.on("websocket", (socket) => dialled.push(socket.url()));
  apart.wire.slow(250);
  for (const word of ["one", "two", "three"]) {
    await tab.clock.runFor(9000);
    await type(tab, `echo quiet-${word}`);
    await shows(tab, new RegExp(`^quiet-${word}$`, "m"));
  }
  expect(dialled).toEqual([]);
  await type(tab, "exit");
});
