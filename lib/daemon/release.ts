/** The release of hast-linux that this process runs: that of the package when it began. */
import * as fs from 'node:fs';

// This file is at dist/lib/daemon in the package.
const { version } = JSON.parse(
  fs.readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'),
) as { version: string };

export const release = version;
