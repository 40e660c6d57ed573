/**
 * Goal: the status page shows what is, follows what changes, says when nobody answers, and asks
 * nobody but hastd.
 * Method: two real cores in this process, a headless Chromium. With HAST_SCREENSHOTS=DIRECTORY it
 * leaves pictures there.
 */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { chromium, type Browser, type BrowserContextOptions, type Page } from 'playwright-core';
import t from 'tap';
import { until } from '../daemon/world.ts';
import { RealPair } from './real-pair.ts';

const executablePath = '/usr/bin/chromium';
const pictures = process.env['HAST_SCREENSHOTS'];
const patienceMs = 30_000;

/** What a page did that it should not. */
class Conduct {
  readonly errors: string[] = [];
  readonly foreign: string[] = [];

  constructor(page: Page, url: string) {
    page.on('console', (message) => {
      if (message.type() === 'error') this.errors.push(message.text());
    });
    page.on('pageerror', (error) => this.errors.push(String(error)));
    page.on('request', (request) => {
      const to = request.url();
      if (!to.startsWith(url) && !to.startsWith('data:')) this.foreign.push(to);
    });
  }
}

async function browser(): Promise<Browser> {
  return await chromium.launch({
    executablePath, headless: true,
    args: [
      '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync',
    ],
  });
}

async function shoot(page: Page, name: string, options: BrowserContextOptions = {}): Promise<void> {
  if (pictures === undefined) return;
  if (options.viewport != null) await page.setViewportSize(options.viewport);
  await page.emulateMedia({ colorScheme: options.colorScheme ?? 'light' });
  await page.waitForTimeout(2500);
  await page.screenshot({ path: path.join(pictures, `${name}.png`), fullPage: true });
}

const phone = { width: 390, height: 844 };
const desk = { width: 1100, height: 800 };

/** The element `selector` says `words` before patience ends. */
async function says(page: Page, selector: string, words: string | RegExp): Promise<void> {
  await page.locator(selector).filter({ hasText: words }).first()
    .waitFor({ timeout: patienceMs });
}

async function load(pair: RealPair, rounds: number, stride: number): Promise<void> {
  const { size } = pair.a.runner.resource.volume;
  for (let round = 0; round < rounds; round++) {
    const offset = (round * stride) % (size - 65536);
    await pair.a.write(offset - offset % 4096);
    if (pictures !== undefined) await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

interface Scene {
  pair: RealPair;
  /** The primary's, and the other node's. */
  page: Page;
  other: Page;
}

async function dirty(page: Page): Promise<number> {
  return Number(await page.locator('canvas').getAttribute('data-peer-lacks'));
}

async function goodDays({ pair, page, other }: Scene): Promise<void> {
  await says(page, '.role', 'primary');
  await says(page, '.status', 'complete');
  await says(other, '.role', 'secondary');
  await says(other, '.peer-role', 'primary');
  await load(pair, pictures === undefined ? 50 : 1500, 200 * 1024);
  await page.locator('.stages summary').click();
  await says(page, '.stages tbody', 'peer-disk');
  await shoot(page, 'complete', { colorScheme: 'light' });
  await shoot(page, 'complete-dark', { colorScheme: 'dark' });
  await shoot(page, 'complete-phone', { viewport: phone });
  await page.setViewportSize(desk);
}

async function outage({ pair, page, other }: Scene): Promise<void> {
  pair.cut();
  await load(pair, pictures === undefined ? 40 : 400, 1500 * 1024);
  await says(page, '.status', 'degraded');
  await says(page, '#events', 'connection connected → connecting');
  await says(other, '.status', 'waiting');
  await until('the map shows dirty cells', async () => await dirty(page) > 1024 * 1024);
  await says(page, '.facts', 'writes with one copy');
  await shoot(page, 'degraded', { colorScheme: 'dark' });
  await shoot(page, 'degraded-phone', { viewport: phone, colorScheme: 'dark' });
  await page.setViewportSize(desk);
}

async function resync({ pair, page }: Scene): Promise<void> {
  const { resource } = pair.a.runner;
  resource.operator.pauseResync(true);
  pair.heal();
  await says(page, '.status', 'syncing');
  await says(page, '.progress', 'paused by an operator');
  resource.context.options.resyncRate = pictures === undefined ? 0 : 1024 * 1024;
  resource.optionsChanged(false);
  resource.operator.pauseResync(false);
  await shoot(page, 'syncing', { colorScheme: 'light' });
  resource.context.options.resyncRate = 0;
  resource.optionsChanged(false);
  await says(page, '.status', 'complete');
  await until('nothing is dirty', async () => await dirty(page) === 0);
}

async function splitBrain({ pair, page, other }: Scene): Promise<void> {
  pair.cut();
  await load(pair, 3, 4096);
  await pair.b.promote(true);
  await pair.b.write(0);
  pair.heal();
  await says(page, '.status', 'split-brain');
  await says(page, '.act', 'A person has to act');
  await says(other, '.status', 'split-brain');
  await shoot(page, 'split-brain', { colorScheme: 'light' });
  await shoot(page, 'split-brain-phone', { viewport: phone, colorScheme: 'dark' });
}

t.test('page: a pair in good and bad days', {
  skip: fs.existsSync(executablePath) ? false : `${executablePath} is not installed`,
  timeout: pictures === undefined ? 110_000 : 300_000,
}, async (test) => {
  const pair = await RealPair.start(test);
  const chrome = await browser();
  test.teardown(() => chrome.close());
  const context = await chrome.newContext({ viewport: desk });
  const [page, other] = [await context.newPage(), await context.newPage()];
  const conducts = [new Conduct(page, pair.a.url), new Conduct(other, pair.b.url)];
  await page.goto(pair.a.url);
  await other.goto(pair.b.url);
  const scene = { pair, page, other };
  await goodDays(scene);
  test.equal(await page.title(), 'a - HAST');
  await outage(scene);
  await resync(scene);
  await splitBrain(scene);
  test.match(await page.title(), /^! /);
  test.same(conducts.flatMap(({ errors }) => errors), [], 'no error on the console');

  const port = Number(new URL(page.url()).port);
  pair.a.server.close();
  await says(page, '#lost', 'hastd does not answer');
  await shoot(page, 'lost', { viewport: desk });
  await pair.a.server.listen({ family: 'tcp', host: '127.0.0.1', port });
  await page.locator('#lost').waitFor({ state: 'hidden', timeout: patienceMs });
  test.same(conducts.flatMap(({ foreign }) => foreign), [], 'nobody else was asked');
});

t.test('page: its files are in the package', async (test) => {
  const { files } = JSON.parse(fs.readFileSync('package.json', 'utf8')) as { files: string[] };
  test.ok(files.includes('lib/monitor/page'));
  for (const file of fs.readdirSync('lib/monitor/page')) {
    const text = fs.readFileSync(path.join('lib/monitor/page', file), 'utf8');
    test.notMatch(text, /https?:\/\/(?!www\.w3\.org\/2000\/svg)/, `${file} names no other site`);
    test.notMatch(text, /innerHTML|eval\(|document\.write/, `${file} makes no markup of data`);
  }
});
