import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "./support/pages";
import { another, demo, opened, PROD, sessionOf, shell, shows, signIn, type } from "./support/person";

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

test("why one may not is told with what would help, and with nothing that is hidden", async ({ page }) => {
  await signIn(page, "alice");
  await page.getByRole("button", { name: "Other ways to db-prod" }).click();
  const dialog = page.getByRole("dialog");
  const way = (name: string) => dialog.locator("li").filter({ has: page.getByText(name, { exact: true }) });
  await way("Shell").getByText("Why can’t I?").click();
  await expect(way("Shell")).toContainText("To be allowed: give a reason.");
  await way("Port forward").getByText("Why can’t I?").click();
  await expect(way("Port forward")).toContainText("no policy permits forwardPort");
  await expect(way("Port forward")).toContainText("Nothing that you can do alone would allow it");
  for (const hidden of ["developers-dev", "env", "demo.cedar", "Group"]) await expect(dialog).not.toContainText(hidden);
  await way("Port forward").getByRole("link", { name: "Ask with other values" }).click();
  await expect(page.getByLabel("Does what")).toHaveValue("forwardPort");
  await expect(page.getByLabel("On which target")).toHaveValue(PROD);
});

test("who does not administer asks about nobody else and under no other circumstances", async ({ page }) => {
  await signIn(page, "bob");
  await page.getByRole("link", { name: "Policies" }).click();
  for (const label of ["Who", "Second factor", "From address", "When"]) await expect(page.getByLabel(label)).toHaveCount(0);
  const answer = page.getByRole("region", { name: "The answer" });
  await page.getByLabel("On which target").fill("web-dev");
  await page.getByRole("button", { name: "Ask" }).click();
  await expect(answer.getByText("allowed", { exact: true })).toBeVisible();
  await expect(answer).toContainText("contractors-dev");
  await expect(answer).not.toContainText("demo.cedar");
  await page.getByLabel("Does what").selectOption("forwardPort");
  await page.getByRole("button", { name: "Ask" }).click();
  await expect(answer).toContainText("Nothing that you can do alone");
  // A machine that he is not shown is answered as one that is not there.
  for (const name of ["db-prod", "db-none"]) {
    await page.getByLabel("On which target").fill(name);
    await page.getByRole("button", { name: "Ask" }).click();
    await expect(page.getByRole("alert")).toContainText(`no machine ${name} is shown to you`);
  }
});

test("who administers asks about anybody and is told which lines decide", async ({ page }) => {
  await signIn(page, "carol");
  await page.getByRole("link", { name: "Policies" }).click();
  await page.getByRole("button", { name: "Ask" }).click();
  const ask = async (who: string): Promise<void> => {
    await page.getByLabel("Who").fill(who);
    await page.locator("form").getByRole("button", { name: "Ask" }).click();
  };
  const answer = page.getByRole("region", { name: "The answer" });
  await page.getByLabel("On which target").fill("db-prod");
  await ask("arn:aws:iam::000000000000:user/alice");
  await expect(answer.getByText("denied", { exact: true })).toBeVisible();
  await expect(answer).toContainText(/demo\.cedar:\d+/);
  await expect(answer.locator(".changes")).toContainText("give a reason");
  await page.getByLabel("Reason", { exact: true }).fill("INC-1");
  await ask("arn:aws:iam::000000000000:user/alice");
  await expect(answer.getByText("allowed", { exact: true })).toBeVisible();
  await ask("group:contractors");
  await expect(answer).toContainText("contractors-no-prod");
  await expect(answer.locator(".needs .good").first()).toBeVisible();
  await ask("<b>nobody</b>");
  await expect(page.getByRole("alert")).toContainText("name a person by ARN or e-mail address");
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

test("the list of sessions changes by itself and ends with the sign-in", async ({ page, context }) => {
  await signIn(page, "alice");
  const list = await context.newPage();
  const asked: string[] = [];
  list.on("request", (request) => asked.push(new URL(request.url()).pathname));
  await list.goto(`${demo().endpoint}/console/sessions`);
  await expect(list.getByRole("heading", { name: "Sessions" })).toBeVisible();
  await list.bringToFront();
  const tab = await shell(page);
  await list.bringToFront();
  const row = list.getByRole("link", { name: `Watch ${sessionOf(tab)}` });
  await expect(row).toBeVisible();
  await tab.bringToFront();
  await type(tab, "exit");
  await list.bringToFront();
  await expect(row).toHaveCount(0);
  expect(asked.filter((path) => path.endsWith("/api/sessions"))).toEqual([]);
  const other = await another(context);
  await signIn(other, "alice");
  await other.locator(".who summary").click();
  await other.getByRole("button", { name: "Sign out everywhere" }).click();
  await expect(list.getByText("You are not signed in any more")).toBeVisible();
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
