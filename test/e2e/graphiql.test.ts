import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before, suite, test } from 'node:test';
import { type Browser, chromium, type Page } from 'playwright-core';
import { startEdge, type TestEdge } from '../api/http-fixture.ts';

const CHROMIUM = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
/** Where to keep what the page looked like; unset: nowhere. */
const SCREENSHOTS = process.env['VIRTGRAPH_SCREENSHOTS'];

suite('GraphiQL in a browser', { skip: CHROMIUM ? false : 'no chromium is installed' }, () => {
  let edge: TestEdge;
  let browser: Browser;
  before(async () => {
    edge = await startEdge();
    edge.world.set('a', 1);
    browser = await chromium.launch({ executablePath: CHROMIUM!, headless: true, args: FLAGS });
  });
  after(async () => {
    await browser?.close();
    await edge?.server.close();
  });

  /** Opens a page that may speak with our server alone, and notes what it complains of. */
  async function open(path: string): Promise<{ page: Page; elsewhere: string[]; complaints: string[] }> {
    const context = await browser.newContext({ viewport: { width: 1400, height: 900 } });
    const page = await context.newPage();
    const elsewhere: string[] = [];
    const complaints: string[] = [];
    await context.route('**/*', (route) => {
      const url = route.request().url();
      if (url.startsWith(edge.server.url) || url.startsWith('data:') || url.startsWith('blob:'))
        return route.continue();
      elsewhere.push(url);
      return route.abort();
    });
    page.on('pageerror', (error) => complaints.push(error.message));
    page.on('console', (message) => {
      if (message.type() === 'error') complaints.push(message.text());
    });
    await page.goto(`${edge.server.url}${path}`);
    return { page, elsewhere, complaints };
  }

  /** Opens the same page with a query in its editor, and runs it. */
  async function execute(page: Page, query: string): Promise<void> {
    await page.goto(`${edge.server.url}/graphiql?${new URLSearchParams({ query })}`);
    await page.locator('.graphiql-execute-button').click();
  }

  const answerIncludes = (page: Page, part: string): Promise<unknown> =>
    page.waitForFunction(
      (wanted) =>
        document
          .querySelector('.graphiql-response .view-lines')
          ?.textContent?.replaceAll('\u00a0', ' ')
          .includes(wanted),
      part,
    );

  test('signs in by its link, runs a query and follows a subscription, with nothing from elsewhere', async () => {
    const { page, elsewhere, complaints } = await open('/graphiql#token=secret-token');
    await page.locator('.graphiql-execute-button').waitFor();
    assert.equal(page.url(), `${edge.server.url}/graphiql`, 'the token left the address bar');
    await page.getByText('Welcome to Virtgraph').first().waitFor();

    await execute(page, '{ actor boxes { id value label } }');
    await answerIncludes(page, '"actor": "admin"');

    await execute(page, 'subscription { boxChanged { id value } }');
    await answerIncludes(page, '"value": 1');
    edge.world.set('a', 42);
    await answerIncludes(page, '"value": 42');
    if (SCREENSHOTS) await page.screenshot({ path: `${SCREENSHOTS}/graphiql.png` });
    await page.locator('.graphiql-execute-button').click();

    assert.deepEqual(elsewhere, []);
    assert.deepEqual(complaints, []);
    await page.context().close();
  });

  test('shows the schema in its book', async () => {
    const { page } = await open('/graphiql#token=secret-token');
    await page.locator('.graphiql-execute-button').waitFor();
    await page
      .getByRole('button', { name: /documentation/i })
      .first()
      .click();
    await page.getByText('Subscription', { exact: true }).first().waitFor();
    await page.context().close();
  });

  test('asks for a token without one, and again when it is refused', async () => {
    const { page } = await open('/graphiql');
    await page.getByText('Use an access token').click();
    const token = page.getByLabel('Access token');
    await token.fill('unknown');
    await page.getByRole('button', { name: 'Use token' }).click();
    await page.getByRole('alert').getByText('Nobody has this token.').waitFor();
    await token.fill('secret-token');
    await page.getByRole('button', { name: 'Use token' }).click();
    await page.locator('.graphiql-execute-button').waitFor();
    await page.context().close();
  });

  test('signs in by its link in a tab that asks for a token already', async () => {
    const { page } = await open('/graphiql');
    await page.getByLabel('Password').waitFor();
    await page.goto(`${edge.server.url}/graphiql#token=unknown`);
    await page.getByRole('alert').getByText('Nobody has this token.').waitFor();
    await page.goto(`${edge.server.url}/graphiql#token=secret-token`);
    await page.locator('.graphiql-execute-button').waitFor();
    assert.equal(page.url(), `${edge.server.url}/graphiql`, 'the token left the address bar');
    await page.context().close();
  });
});
