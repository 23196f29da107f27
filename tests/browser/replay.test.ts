import { readFileSync } from "node:fs";
import { expect, test } from "./support/pages";
import { demo, sessionOf, shell, shows, signIn, type } from "./support/person";

test("a recording is replayed, sought, searched and taken away", async ({ page }) => {
  await signIn(page, "alice");
  const tab = await shell(page);
  const session = sessionOf(tab);
  await type(tab, "echo needle in a haystack");
  await shows(tab, /\nneedle in a haystack/);
  await type(tab, "echo the last words");
  await shows(tab, /\nthe last words/);
  await type(tab, "exit");
  await expect(tab.getByText("The session is over.")).toBeVisible();
  await tab.getByRole("link", { name: "Replay" }).click();

  const player = tab.locator(".player");
  await expect(player.locator(".ap-player, .asciinema-player, .ap-wrapper").first()).toBeVisible();
  await expect(tab.getByText("signed, unaltered")).toBeVisible();
  // A mark jumps to its command.
  await tab.getByRole("button", { name: /echo the last words/ }).first().click();
  await expect(player).toContainText("needle in a haystack");
  // A search in the recording jumps to the moment.
  await tab.getByLabel("Find in the recording").fill("needle in");
  await tab.keyboard.press("Enter");
  await tab.getByLabel("Lines found").getByRole("button").first().click();
  await tab.getByRole("button", { name: "Link to this moment" }).click();
  await expect(tab).toHaveURL(/\?t=\d+/);

  const path = `${demo().endpoint}/console/api/sessions/${session}`;
  const [download] = await Promise.all([tab.waitForEvent("download"), tab.getByLabel("Download Text").click()]);
  expect(readFileSync(await download.path(), "utf8")).toContain("\nneedle in a haystack\n");
  const cast = await (await tab.request.get(`${path}/download/cast`)).text();
  expect(JSON.parse(cast.split("\n")[0] ?? "")).toMatchObject({ version: 2 });
  const chain = (await (await tab.request.get(`${path}/chain`)).json()) as { recording_sha256: string; decision: { policies: string[] } };
  expect(chain.recording_sha256).toMatch(/^[0-9a-f]{64}$/);
  expect(chain.decision.policies).toEqual(["developers-dev"]);

  // It is found among all recordings, and the hit leads to the moment.
  await tab.goto(`${demo().endpoint}/console/search`);
  await expect(async () => {
    await tab.getByLabel("Text").fill("needle in a haystack");
    await tab.getByRole("button", { name: "Search", exact: true }).click();
    await expect(tab.locator(".hits li").first()).toBeVisible({ timeout: 2000 });
  }).toPass();
  await tab.locator(".hits a").first().click();
  await expect(tab).toHaveURL(/sessions\/.*\?t=\d+/);
});

test("an open replay turns dark with the page, and says where its recording is kept", async ({ page }) => {
  await signIn(page, "alice");
  const tab = await shell(page);
  await type(tab, "echo colours");
  await shows(tab, /\ncolours/);
  await type(tab, "exit");
  await expect(tab.getByText("The session is over.")).toBeVisible();
  await tab.emulateMedia({ colorScheme: "light" });
  await tab.goto(`${demo().endpoint}/console/sessions/${sessionOf(tab)}?t=1`);
  const screen = tab.locator(".player .ap-player");
  await expect(screen).toBeVisible();
  const background = (): Promise<string> => screen.evaluate((element) => getComputedStyle(element).backgroundColor);
  await expect.poll(background).toBe("rgb(255, 255, 255)");
  await tab.emulateMedia({ colorScheme: "dark" });
  await expect.poll(background).toBe("rgb(17, 22, 28)");
  // And the other way by the button, as somebody chooses.
  await tab.locator(".who summary").click();
  await tab.getByRole("button", { name: "Theme: system" }).click();
  await expect.poll(background).toBe("rgb(255, 255, 255)");
  await expect(async () => {
    await tab.reload();
    await expect(tab.locator(".places")).toContainText(`/archive/recordings/${sessionOf(tab)}.cast.zst`, { timeout: 2000 });
  }).toPass();
});
