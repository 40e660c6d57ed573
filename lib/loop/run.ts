/** Running one of util-linux's programs, its words as the error. */
import { errorText, HastError } from '../base/errors.ts';
import { lastWords, runTool, type ToolResult } from '../programs/tool.ts';

const boundMs = 15_000;
const next = 'losetup -a and dmesg show more; then the same command again';

/** What the program wrote to stdout, trimmed. Throws HAST_E_DEVICE, which begins with `failure`. */
export async function run(program: string, args: string[], failure: string): Promise<string> {
  let result: ToolResult;
  try {
    result = await runTool(program, args, boundMs);
  } catch (cause) {
    const hint = (cause instanceof HastError ? cause.hint : undefined) ?? next;
    throw new HastError('HAST_E_DEVICE', `${failure}: ${errorText(cause)}`, { cause, hint });
  }
  if (result.code === 0) return result.stdout.trim();
  throw new HastError('HAST_E_DEVICE', `${failure}: ${lastWords(result)}`, { hint: next });
}
