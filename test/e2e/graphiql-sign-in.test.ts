import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { Secret, TOTP } from 'otpauth';
import { pino } from 'pino';
import { type Browser, chromium, type Page } from 'playwright-core';
import { type Control, startControl } from '../../src/control.ts';
import { PasswordHasher } from '../../src/ops/password-hash.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { idOf, insertAccount, insertDomain, insertUser, ROLE } from '../support/tenants.ts';
import { insertVm, insertWorld, type Placed } from '../support/world.ts';

const CHROMIUM = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
const PASSWORD = 'correct horse battery';
/** Where to keep what the page looked like; unset: nowhere. */
const SCREENSHOTS = process.env['VIRTGRAPH_SCREENSHOTS'];
const skip = !CHROMIUM ? 'no chromium is installed' : !process.env['DATABASE_URL'] ? 'needs a database' : false;

suite('Signing in to GraphiQL in a browser', { skip }, () => {
  let database: TestDatabase;
  let folder: string;
  let control: Control;
  let browser: Browser;
  let vm: Placed;
  before(async () => {
    database = await freshDatabase();
    folder = await mkdtemp(join(tmpdir(), 'vg-graphiql-'));
    const sales = await insertDomain(database.db, undefined, { name: 'sales' });
    const account = await insertAccount(database.db, sales, { name: 'acme' });
    const password_hash = await new PasswordHasher().hash(PASSWORD);
    await insertUser(database.db, account, ROLE.user, { name: 'anna', password_hash });
    vm = await insertVm(database.db, await insertWorld(database.db), { account_id: account.id, name: 'annas' });
    const log = pino({ level: 'silent' });
    const where = { databaseUrl: database.url, host: '127.0.0.1', port: 0, adminTokenPath: join(folder, 'token') };
    control = await startControl({ ...where, log });
    browser = await chromium.launch({
      executablePath: CHROMIUM!,
      headless: true,
      args: ['--no-sandbox', '--disable-gpu'],
    });
  });
  after(async () => {
    await browser?.close();
    await control?.close();
    await database?.close();
    if (folder) await rm(folder, { recursive: true });
  });

  async function open(): Promise<Page> {
    const context = await browser.newContext({ viewport: { width: 1400, height: 900 } });
    const page = await context.newPage();
    await page.goto(`${control.http.url}/graphiql`);
    await page.getByLabel('Password').waitFor();
    return page;
  }
  async function fill(page: Page, password: string): Promise<void> {
    await page.getByLabel('Domain').fill('/sales');
    await page.getByLabel('Account').fill('acme');
    await page.getByLabel('User').fill('anna');
    await page.getByLabel('Password').fill(password);
    await page.getByRole('button', { name: 'Sign in' }).click();
  }
  const shot = async (page: Page, name: string): Promise<void> => {
    if (SCREENSHOTS) await page.screenshot({ path: `${SCREENSHOTS}/graphiql-${name}.png` });
  };
  const answerIncludes = (page: Page, part: string): Promise<unknown> =>
    page.waitForFunction(
      (wanted) =>
        document
          .querySelector('.graphiql-response .view-lines')
          ?.textContent?.replaceAll('\u00a0', ' ')
          .includes(wanted),
      part,
    );
  async function run(page: Page, query: string): Promise<void> {
    await page.goto(`${control.http.url}/graphiql?${new URLSearchParams({ query })}`);
    await page.locator('.graphiql-execute-button').click();
  }

  test('says why a wrong password lets nobody in, and a right one opens the page until signing out', async () => {
    const page = await open();
    await shot(page, 'sign-in');
    await fill(page, 'a wrong password');
    await page.getByRole('alert').getByText('Nobody is let in with these').waitFor();
    assert.ok(await page.getByLabel('Code of your authenticator').isHidden());
    await shot(page, 'refused');
    await fill(page, PASSWORD);
    await page.getByText('acme/anna').waitFor();
    await run(page, '{ viewer { name } }');
    await answerIncludes(page, '"name": "acme/anna"');
    // By WebSocket, on the cookie.
    await run(page, `subscription { vmChanged(id: "${idOf('vm', vm)}") { name } }`);
    await answerIncludes(page, '"name": "annas"');
    const { bottom } = await page
      .locator('.graphiql-page > *')
      .first()
      .evaluate((page) => page.getBoundingClientRect());
    assert.equal(bottom, 900, 'the page ends with its window');
    await shot(page, 'signed-in');
    const kept = await page.evaluate(() => [document.cookie, JSON.stringify({ ...sessionStorage, ...localStorage })]);
    for (const text of kept) assert.ok(!text.includes('vgs_') && !text.includes(PASSWORD), text);
    await page.route('**/graphql', (route) => route.abort());
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByRole('alert').getByText('Virtgraph does not answer').waitFor();
    await page.unroute('**/graphql');
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByLabel('Password').waitFor();
    const left = await database.db.selectFrom('session').select('id').where('deleted_at', 'is', null).execute();
    assert.deepEqual(left, []);
    await page.context().close();
  });

  test('asks for the code where there is a second factor, and takes it', async () => {
    const page = await open();
    await fill(page, PASSWORD);
    await page.getByText('acme/anna').waitFor();
    const seed = await page.evaluate(async () => {
      const csrf = /virtgraph-csrf=([^;]+)/.exec(document.cookie)![1]!;
      const ask = async (query: string): Promise<{ data: { beginTotp: { secret: string } } }> => {
        const headers = { 'content-type': 'application/json', 'x-virtgraph-csrf': csrf };
        return (await fetch('/graphql', { method: 'POST', headers, body: JSON.stringify({ query }) })).json();
      };
      return (await ask('mutation { beginTotp(input: {}) { secret } }')).data.beginTotp.secret;
    });
    const totp = new TOTP({ secret: Secret.fromBase32(seed) });
    const confirm = `mutation { confirmTotp(input: { code: "${totp.generate()}" }) { recoveryCodes } }`;
    await run(page, confirm);
    await answerIncludes(page, '"recoveryCodes": [');
    const recovery = await page.evaluate(
      () =>
        /[0-9a-z]{5}-[0-9a-z]{5}-[0-9a-z]{5}/.exec(
          document.querySelector('.graphiql-response .view-lines')!.textContent!,
        )![0],
    );
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByLabel('Password').waitFor();
    await fill(page, PASSWORD);
    const code = page.getByLabel('Code of your authenticator');
    await code.waitFor();
    await shot(page, 'code');
    await code.fill('no code');
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByRole('alert').getByText('This code is wrong').waitFor();
    await code.fill(recovery);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByText('acme/anna').waitFor();
    await page.context().close();
  });
});
