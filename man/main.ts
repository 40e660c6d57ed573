/** `npm run man`: writes the manual pages to dist/pages, from where `npm pack` takes them. */
import * as fs from 'node:fs';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { manualPages } from './pages.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const read = (file: string): string => fs.readFileSync(path.join(root, file), 'utf8');
const { version } = JSON.parse(read('package.json')) as { version: string };

const folder = path.join(root, 'dist/pages');
fs.mkdirSync(folder, { recursive: true });
const pages = manualPages({
  commands: read('docs/commands.md'), configuration: read('docs/configuration.md'),
  release: version,
});
for (const { file, roff } of pages) {
  fs.writeFileSync(path.join(folder, file), roff);
  process.stdout.write(`dist/pages/${file}\n`);
}
