import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { expect, test } from "./support/pages";
import { another, complaints, demo, DEV, opened, sessionOf, shell, shows, signIn, type } from "./support/person";

const HOSTILE = `<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>`;

/** Runs the command line as one of the demo's people. */
function postern(...args: string[]): string {
  const line = `. "$1"; shift; exec "$@"`;
  return execFileSync("bash", ["-c", line, "bash", demo().environment_file, join(demo().bin, "postern"), ...args], { encoding: "utf8" });
}

test("the command line's link signs in once and leaves no trace in the address", async ({ page, context }) => {
  const url = postern("console", "--profile", "bob").trim();
  expect(url).toMatch(/\/console\/enter#[\w-]+$/);
  await page.goto(url);
  // Somebody else may have sent it: nobody is signed in before the click.
  const button = page.getByRole("button", { name: "Sign in as bob" });
  await expect(button).toBeVisible();
  expect(page.url()).not.toContain("#");
  expect(await context.cookies()).toHaveLength(0);
  await button.click();
  await expect(page.getByRole("heading", { name: "Targets" })).toBeVisible();
  await expect(page.locator(".who .name")).toHaveText("bob");
  const second = await another(context);
  await second.goto(url);
  await expect(second.getByRole("alert")).toContainText("this link was used or is too old");
});

test("the cookie is locked to this host and no script reads it", async ({ page, context }) => {
  await signIn(page, "alice");
  const cookies = await context.cookies();
  expect(cookies).toHaveLength(1);
  expect(cookies[0]).toMatchObject({ name: "__Host-postern", httpOnly: true, secure: true, sameSite: "Strict", path: "/" });
  expect(await page.evaluate(() => document.cookie)).toBe("");
  const kept = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }]));
  expect(kept).not.toContain(cookies[0]?.value ?? "?");
});

test("signing out everywhere ends every browser, and what they watch", async ({ page, context }) => {
  await signIn(page, "alice");
  const other = await another(context);
  await signIn(other, "alice");
  await page.locator(".who summary").click();
  await page.getByRole("button", { name: "Sign out everywhere" }).click();
  await expect(page.getByText("Your AWS identity opens this door")).toBeVisible();
  await other.getByRole("link", { name: "Sessions" }).click();
  await expect(other.getByText("You are not signed in any more")).toBeVisible();
});

test("what was typed is kept for the next page, and not after the end or signing out", async ({ page }) => {
  await signIn(page, "alice");
  const tab = await shell(page);
  const kept = (of: typeof page): Promise<string[]> => of.evaluate(() => Object.keys(sessionStorage).filter((key) => key.startsWith("postern-channel-")));
  const leave = (): Promise<boolean> => tab.evaluate(() => window.dispatchEvent(new PageTransitionEvent("pagehide")));
  await leave();
  expect(await kept(tab)).toHaveLength(1);
  await type(tab, "exit");
  await shows(tab, /\[.*\]\s*$/);
  await leave();
  expect(await kept(tab)).toHaveLength(0);
  await page.evaluate(() => sessionStorage.setItem("postern-channel-x", "{}"));
  await page.locator(".who summary").click();
  await page.getByRole("button", { name: "Sign out", exact: true }).click();
  await expect(page.getByText("Your AWS identity opens this door")).toBeVisible();
  expect(await kept(page)).toHaveLength(0);
});

test("another site can neither ask nor dial nor frame", async ({ page, context }) => {
  await signIn(page, "alice");
  const { endpoint } = demo();
  const cookie = (await context.cookies())[0];
  const headers = { cookie: `${cookie?.name}=${cookie?.value}`, "content-type": "application/json" };
  const body = JSON.stringify({ Target: DEV });
  const token = ((await (await page.request.get(`${endpoint}/console/api/me`)).json()) as { token: string }).token;
  const attempts = [
    { ...headers },
    { ...headers, origin: "https://evil.example", "x-postern-token": token },
    { ...headers, origin: endpoint },
    { ...headers, origin: endpoint, "x-postern-token": "guess" },
    { ...headers, origin: endpoint, "x-postern-token": token, "sec-fetch-site": "cross-site" },
  ];
  for (const headers of attempts) {
    const answer = await page.request.post(`${endpoint}/console/api/sessions`, { headers, data: body });
    expect(answer.status(), JSON.stringify(Object.keys(headers))).toBe(403);
  }
  const upgrade = { connection: "Upgrade", upgrade: "websocket", "sec-websocket-version": "13", "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==" };
  const dialled = await page.request.get(`${endpoint}/v1/data-channel/x`, { headers: { ...upgrade, origin: "https://evil.example" } });
  expect(dialled.status()).toBe(403);
  const shown = await page.request.get(`${endpoint}/console/`);
  expect(shown.headers()["x-frame-options"]).toBe("DENY");
  const policy = shown.headers()["content-security-policy"] ?? "";
  expect(policy).toContain("frame-ancestors 'none'");
  expect(policy).toMatch(/script-src 'self' 'wasm-unsafe-eval';/);
});

test("hostile output, reasons and titles stay text", async ({ page }) => {
  await signIn(page, "alice");
  await page.getByRole("button", { name: "Open a shell on db-prod" }).click();
  await page.getByRole("dialog").getByLabel("Reason").fill(HOSTILE);
  const tab = await opened(page, () => page.getByRole("button", { name: "Open shell" }).click());
  await shows(tab, /db-prod\$ /);
  const heard = complaints(tab);
  await type(tab, String.raw`printf '\033]0;<img src=x onerror=window.hacked=1>\007\033]52;c;aGFja2Vk\007done-%s\n' now`);
  await shows(tab, "done-now");
  await type(tab, `echo '${HOSTILE}'`);
  await shows(tab, "window.hacked=1");
  expect(await tab.evaluate(() => navigator.clipboard.readText().catch(() => ""))).not.toContain("hacked");
  await type(tab, "exit");
  await expect(tab.getByText("The session is over.")).toBeVisible();
  await tab.goto(`${demo().endpoint}/console/sessions/${sessionOf(tab)}`);
  await expect(tab.getByText(HOSTILE).first()).toBeVisible();
  await expect(tab.getByText("signed, unaltered")).toBeVisible();
  for (const place of [tab, page]) expect(await place.evaluate(() => "hacked" in window)).toBe(false);
  expect(heard).toEqual([]);
});

test("without its key the demo lets nobody be anybody", async ({ page }) => {
  const { endpoint } = demo();
  await page.goto(`${endpoint}/console/enter#demo=wrong`);
  await expect(page.getByRole("alert")).toContainText("not the one that the demo printed");
  const headers = { origin: endpoint, "content-type": "application/json" };
  const answer = await page.request.post(`${endpoint}/console/api/sign-in`, { headers, data: JSON.stringify({ key: "", name: "alice" }) });
  expect(answer.status()).toBe(403);
});

test("every page's own rules hold while somebody walks through all of them", async ({ page }) => {
  const heard = complaints(page);
  await signIn(page, "alice");
  const tab = await shell(page);
  await type(tab, "exit");
  for (const path of ["targets", "sessions", "sessions?state=history", "search", "decisions", "nowhere"]) {
    await page.goto(`${demo().endpoint}/console/${path}`);
    await expect(page.locator("main")).not.toBeEmpty();
    await expect(page.getByText(/^ *Loading /)).toHaveCount(0);
  }
  // The one answer that is no success: nobody was signed in at first.
  expect(heard.filter((text) => !text.includes("401"))).toEqual([]);
});

test("signing in leads on to the page that was asked for, and to no other site", async ({ page, context }) => {
  await page.route("**/console/api/ways", (route) => route.fulfill({ json: { provider: true } }));
  await page.goto(`${demo().endpoint}/console/sessions?state=history`);
  const company = page.getByRole("link", { name: "Sign in with your company account" });
  await expect(company).toHaveAttribute("href", "/v1/login/oidc?return_to=%2Fconsole%2Fsessions%3Fstate%3Dhistory");
  const key = demo().console.split("#")[1] ?? "";
  const enter = async (to: string): Promise<string> => {
    const fresh = await another(context);
    await fresh.goto(`${demo().endpoint}/console/enter?to=${encodeURIComponent(to)}#${key}`);
    await fresh.getByRole("button", { name: /^alice/ }).click();
    await expect(fresh.locator(".who .name")).toHaveText("alice");
    const url = new URL(fresh.url());
    expect(url.origin).toBe(demo().endpoint);
    await fresh.context().close();
    return url.pathname + url.search;
  };
  expect(await enter("/console/decisions?allowed=false")).toBe("/console/decisions?allowed=false");
  for (const bad of ["https://evil.example/console/", "//evil.example/console/", "/console/../v1/access", "/console/api/me", "/console/enter", "javascript:alert(1)"]) {
    expect(await enter(bad), bad).toBe("/console/targets");
  }
});
