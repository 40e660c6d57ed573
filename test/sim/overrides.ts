/**
 * Options that a search fixes whatever the seed draws: `app.read=20,linkMs=5-20,faults.latent=4`.
 * Everything else still comes from the seed.
 */
import { faultKinds } from './fault-kinds.ts';
import type { SimOptions } from './options.ts';

type Value = string | number | boolean | [number, number];
type Fields = Record<string, Value>;

function valueOf(text: string): Value {
  if (text === 'true' || text === 'false') return text === 'true';
  const range = /^([\d.]+)-([\d.]+)$/.exec(text);
  if (range !== null) return [Number(range[1]), Number(range[2])];
  return Number.isFinite(Number(text)) ? Number(text) : text;
}

/** Two values of one option look alike: of the same type, a range where it is one. */
function fits(before: unknown, value: Value): boolean {
  return typeof before === typeof value && Array.isArray(before) === Array.isArray(value);
}

/** Changes `options`; throws where `text` names none of them. */
export function override(options: SimOptions, text: string): SimOptions {
  for (const part of text.split(',').filter((one) => one !== '')) {
    const [path = '', raw = ''] = part.split('=');
    const [first = '', second] = path.split('.');
    const fields = (second === undefined ? options : options[first as 'app' | 'faults']) as
      unknown as Fields | undefined;
    const name = second ?? first;
    const value = valueOf(raw);
    const isFault = first === 'faults' && (faultKinds as readonly string[]).includes(name);
    if (fields === undefined || !fits(isFault ? 0 : fields[name], value)) {
      throw new Error(`--set: no such option, or no value of it: ${part}`);
    }
    // One range for both nodes.
    const isPair = Array.isArray(fields[name]) && Array.isArray((fields[name] as unknown[])[0]);
    fields[name] = isPair ? [value, value] as unknown as Value : value;
  }
  return options;
}
