// The browser of a test. With PAGES=dir the pages come from that folder
// instead of the program: to try a change of them without building it.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { test as base, type BrowserContext } from "@playwright/test";

export async function withPages(context: BrowserContext): Promise<BrowserContext> {
  const folder = process.env["PAGES"];
  if (!folder) return context;
  await context.route(/\/console\/(?!api\/)/, (route) => {
    const name = new URL(route.request().url()).pathname.slice("/console/".length);
    const file = join(folder, name === "" || !existsSync(join(folder, name)) ? "index.html" : name);
    return route.fulfill({ path: file });
  });
  return context;
}

export const test = base.extend({
  context: async ({ context }, use) => use(await withPages(context)),
});
export { expect } from "@playwright/test";
