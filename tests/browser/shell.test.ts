import { expect, test } from "./support/pages";
import { complaints, demo, sessionOf, shell, shows, signIn, text, type } from "./support/person";

test("one click opens a shell that takes keys and obeys the window", async ({ page }) => {
  await signIn(page, "alice");
  const tab = await shell(page);
  const heard = complaints(tab);
  await type(tab, "echo sum: $((40 + 2))");
  await shows(tab, "sum: 42");
  const columns = async (): Promise<number> => {
    await type(tab, "stty size");
    const found = /\n(\d+) (\d+)\s*\n/g;
    let last = 0;
    for (const match of (await text(tab)).matchAll(found)) last = Number(match[2]);
    return last;
  };
  await expect.poll(columns).toBeGreaterThan(80);
  const wide = await columns();
  await tab.setViewportSize({ width: 640, height: 600 });
  await expect.poll(columns).toBeLessThan(wide);
  await type(tab, "exit");
  await expect(tab.getByText("The session is over.")).toBeVisible();
  expect(heard).toEqual([]);
});

test("a page that is loaded anew goes on where it was, screen and all", async ({ page }) => {
  await signIn(page, "alice");
  const tab = await shell(page);
  await type(tab, "export KEPT=through; echo before-$KEPT");
  await shows(tab, "before-through");
  await tab.reload();
  await shows(tab, "before-through");
  await type(tab, "echo after-$KEPT");
  await shows(tab, "after-through");
  const lines = (await text(tab)).split("\n").filter((line) => line.startsWith("before-through"));
  expect(lines).toHaveLength(1);
  await type(tab, "exit");
});

test("a shell whose tab was closed goes on in another one, screen and keys", async ({ page }) => {
  await signIn(page, "alice");
  const tab = await shell(page);
  await type(tab, "export KEPT=through; echo before-$KEPT");
  await shows(tab, /^before-through *$/m);
  const address = tab.url();
  await tab.close();
  const again = await page.context().newPage();
  await again.goto(address);
  await shows(again, /^before-through *$/m);
  await type(again, "echo after-$KEPT");
  await shows(again, /^after-through *$/m);
  const lines = (await text(again)).split("\n").filter((line) => line.startsWith("before-through"));
  expect(lines).toHaveLength(1);
  await type(again, "exit");
  await expect(again.getByText("The session is over.")).toBeVisible();
});

test("a network that is gone for a while ends nothing and loses no key", async ({ page }) => {
  await signIn(page, "alice");
  const tab = await shell(page);
  await type(tab, "echo one");
  await shows(tab, /\none\s*\n/);
  await tab.context().setOffline(true);
  await expect(tab.getByText("the session goes on and is taken up again")).toBeVisible();
  await type(tab, "echo typed while away");
  await tab.context().setOffline(false);
  await shows(tab, /\ntyped while away\s*\n/);
  await expect(tab.getByText("Connected")).toBeVisible();
  await type(tab, "exit");
});

test("a flood does not freeze the tab, and Ctrl-C ends it", async ({ page }) => {
  // What the agent has read already comes first: with a slow build that takes its time.
  test.setTimeout(300_000);
  await signIn(page, "alice");
  const tab = await shell(page);
  await type(tab, "yes 0123456789012345678901234567890123456789012345678901234567890123456789");
  await shows(tab, "0123456789012345678901234567890123456789");
  // The page comes to its own work again and again, while the flood goes on: at two
  // seconds each time, which is what frozen feels like, the test would be over first.
  await tab.evaluate(async () => {
    for (let turn = 0; turn < 150; turn += 1) {
      await new Promise((next) => setTimeout(next, 5));
    }
  });
  await tab.keyboard.press("Control+c");
  await type(tab, "echo calm again");
  await expect.poll(async () => /\ncalm again\s*\n/.test(await text(tab)), { timeout: 240_000 }).toBe(true);
  await type(tab, "exit");
});

test("a large paste arrives whole", async ({ page }) => {
  await signIn(page, "alice");
  const tab = await shell(page);
  // The shell takes brackets around a paste until it runs this, and wc would count them.
  await type(tab, "stty -echo; echo cou''nting; wc -c; stty echo");
  await shows(tab, "\ncounting");
  const bytes = 200_000;
  await tab.evaluate((bytes) => {
    const line = `${"x".repeat(99)}\n`;
    const area = document.querySelector(".xterm-helper-textarea");
    const data = new DataTransfer();
    data.setData("text/plain", line.repeat(bytes / line.length));
    area?.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
  }, bytes);
  await tab.keyboard.press("Control+d");
  await shows(tab, new RegExp(`\\n${bytes}\\s*\\n`));
  await type(tab, "exit");
});

test("the shell's session is listed, and its address is its own", async ({ page }) => {
  await signIn(page, "alice");
  const tab = await shell(page);
  await page.getByRole("link", { name: "Sessions" }).click();
  await expect(page.getByRole("link", { name: `Watch ${sessionOf(tab)}` })).toBeVisible();
  await page.goto(`${demo().endpoint}/console/sessions/${sessionOf(tab)}`);
  await expect(page.getByRole("heading", { name: /alice on web-dev/ })).toBeVisible();
  await type(tab, "exit");
});

test("a shell that is opened in a second window goes on there, and back, and never in both", async ({ page }) => {
  await signIn(page, "alice");
  const first = await shell(page);
  await type(first, "export KEPT=through; echo before-$KEPT");
  await shows(first, /^before-through *$/m);
  const second = await page.context().newPage();
  await second.goto(first.url());
  await shows(second, /^before-through *$/m);
  await type(second, "echo second-$KEPT");
  await shows(second, /^second-through *$/m);
  await expect(first.getByText("This shell goes on in another window.")).toBeVisible();
  await first.getByRole("button", { name: "Take it here" }).click();
  await shows(first, /^second-through *$/m);
  await type(first, "echo back-$KEPT");
  await shows(first, /^back-through *$/m);
  await expect(second.getByText("This shell goes on in another window.")).toBeVisible();
  await type(first, "exit");
  await expect(first.getByText("The session is over.")).toBeVisible();
});
