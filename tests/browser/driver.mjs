// Drives one Chromium for the tests: a request per line of standard input, an answer per line of standard output.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [packages, executablePath, ...flags] = process.argv.slice(2);
const { chromium } = createRequire(packages)("playwright-core");

const browser = await chromium.launch({
  executablePath,
  headless: true,
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    ...flags,
  ],
});
const pages = new Map();
let opened = 0;

function keep(page) {
  const id = ++opened;
  pages.set(id, page);
  page.on("console", (message) => console.error(`page ${id}: ${message.type()} ${message.text()}`));
  page.on("pageerror", (error) => console.error(`page ${id}: ${error.stack}`));
  return id;
}

const methods = {
  // A page in a context of its own. To Chromium a blank one comes from the internet, and has to be allowed to reach
  // loopback addresses.
  async open({ url, scripts, blank, options }) {
    const context = await browser.newContext({ ignoreHTTPSErrors: true, ...options });
    for (const path of scripts) await context.addInitScript({ path });
    if (blank) {
      await context.grantPermissions(["local-network-access"]);
      await context.route(`${url}**`, (route) => route.fulfill({ contentType: "text/html", body: "<!doctype html>" }));
    }
    const page = await context.newPage();
    const id = keep(page);
    await page.goto(url);
    return id;
  },
  async tab({ page, url }) {
    const other = await pages.get(page).context().newPage();
    await other.goto(url);
    return keep(other);
  },
  async close({ page }) {
    const context = pages.get(page).context();
    for (const [id, other] of pages) if (other.context() === context) pages.delete(id);
    await context.close();
  },
  async reload({ page }) {
    await pages.get(page).reload();
  },
  async evaluate({ page, source, argument }) {
    return await pages.get(page).evaluate((0, eval)(`(${source})`), argument);
  },
  async fill({ page, label, text }) {
    await pages.get(page).getByLabel(label, { exact: true }).fill(text);
  },
  async press({ page, key }) {
    await pages.get(page).keyboard.press(key);
  },
  async click({ page, role, name }) {
    await pages.get(page).getByRole(role, { name, exact: true }).click();
  },
  async text({ page, selector }) {
    return await pages.get(page).locator(selector).innerText();
  },
  async texts({ page, selector }) {
    return await pages.get(page).locator(selector).allInnerTexts();
  },
  async wait({ page, selector, text, timeout }) {
    const locator = pages.get(page).locator(selector).filter({ hasText: text });
    await locator.first().waitFor({ state: "visible", timeout });
  },
  async screenshot({ page, path }) {
    await pages.get(page).screenshot({ path, fullPage: true });
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { id, method, parameters } = JSON.parse(line);
  const answer = (outcome) => process.stdout.write(`${JSON.stringify({ id, ...outcome })}\n`);
  methods[method](parameters).then(
    (result) => answer({ result: result ?? null }),
    (error) => answer({ error: error.message }),
  );
}
await browser.close();
