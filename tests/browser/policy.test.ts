import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "./support/pages";
import { another, demo, opened, sessionOf, shell, shows, signIn, type } from "./support/person";

const PICTURE = "../../build/browser/pages/policies-light.png";

test("a denial says which policy and why, and is in the ledger", async ({ page }) => {
  await signIn(page, "carol");
  await page.getByRole("button", { name: "Open a shell on db-prod" }).click();
  const dialog = page.getByRole("dialog");
  await expect(dialog).toContainText("auditors replay sessions, they do not start them");
  await expect(dialog).toContainText("auditors-do-not-connect");
  await dialog.getByRole("button", { name: "Close" }).click();
  await page.getByRole("link", { name: "Decisions" }).click();
  await page.locator(".decisions .badge.bad").first().click();
  await expect(page.getByText("auditors-do-not-connect").first()).toBeVisible();
});

test("where policy wants a reason the page asks for it", async ({ page }) => {
  await signIn(page, "alice");
  await page.getByRole("button", { name: "Open a shell on db-prod" }).click();
  const dialog = page.getByRole("dialog");
  await expect(dialog).toContainText("Policy wants to know why");
  await dialog.getByLabel("Reason").fill("INC-7: <b>disk</b> full");
  const tab = await opened(page, () => dialog.getByRole("button", { name: "Open shell" }).click());
  await shows(tab, /db-prod\$ /);
  await shows(tab, "Production. This session is recorded");
  await page.getByRole("link", { name: "Sessions" }).click();
  await expect(page.getByText("“INC-7: <b>disk</b> full”").first()).toBeVisible();
  await type(tab, "exit");
});

test("who may not see a target is not shown it", async ({ page }) => {
  await signIn(page, "bob");
  await expect(page.getByRole("heading", { name: "web-dev" })).toBeVisible();
  await expect(page.getByRole("heading", { name: "db-prod" })).toHaveCount(0);
});

test("an auditor watches a session as it goes on and ends it with a reason", async ({ page, context }) => {
  await signIn(page, "alice");
  const tab = await shell(page);
  await type(tab, "echo seen-before-watching");
  await shows(tab, /\nseen-before-watching/);

  const carol = await another(context);
  await signIn(carol, "carol");
  await carol.getByRole("link", { name: "Sessions" }).click();
  await carol.getByRole("link", { name: `Watch ${sessionOf(tab)}` }).click();
  await shows(carol, "seen-before-watching", ".watched");
  await type(tab, "echo seen-while-watching");
  await shows(carol, "seen-while-watching", ".watched");

  await carol.getByRole("button", { name: "End…" }).click();
  await carol.getByLabel("Reason").fill("enough for today");
  await carol.getByRole("button", { name: "End session" }).click();
  await expect(tab.getByText("The session is over.")).toBeVisible();
  await shows(tab, "ended by carol: enough for today");
  await expect(carol.getByText("Terminated").first()).toBeVisible();
});

test("nobody reads another person's session without the right to", async ({ page, context }) => {
  await signIn(page, "alice");
  const tab = await shell(page);
  const bob = await another(context);
  await signIn(bob, "bob");
  await bob.goto(new URL(`/console/sessions/${sessionOf(tab)}`, tab.url()).href);
  await expect(bob.getByRole("alert")).toContainText("there is no session");
  for (const path of ["watch", "replay", "verify", "download/txt", "chain", "screen?before=1"]) {
    const answer = await bob.request.get(new URL(`/console/api/sessions/${sessionOf(tab)}/${path}`, tab.url()).href);
    expect(answer.status(), path).toBeGreaterThanOrEqual(400);
  }
  await type(tab, "exit");
});

test("who administers reads the policy files, and what is wrong with them", async ({ page }) => {
  const file = (name: string): string => join(demo().policies, name);
  const admins = `@id("browser-test-admins") permit (principal in Postern::Group::"auditors", action == Postern::Action::"administer", resource);`;
  writeFileSync(file("browser-test.cedar"), admins);
  try {
    await signIn(page, "carol");
    await expect(async () => {
      await page.reload();
      await expect(page.getByRole("link", { name: "Policies" })).toBeVisible({ timeout: 1000 });
    }).toPass();
    await page.getByRole("link", { name: "Policies" }).click();
    await expect(page.getByText("The folder is what decides now.")).toBeVisible();
    await page.getByRole("button", { name: "browser-test.cedar" }).click();
    await expect(page.locator(".files pre")).toContainText("browser-test-admins");
    await page.screenshot({ path: PICTURE });
    writeFileSync(file("browser-wrong.cedar"), `@id("wrong") permit (principal == 7);`);
    await page.reload();
    await expect(page.getByText("the set before it stays in force")).toBeVisible();
    await expect(page.locator(".problem")).toContainText("browser-wrong.cedar");
  } finally {
    rmSync(file("browser-wrong.cedar"), { force: true });
    rmSync(file("browser-test.cedar"), { force: true });
  }
});
