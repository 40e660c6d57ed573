/** The core does not put the resource's name into what it says: it stands as NAME in commands. */
export function named(text: string, resource: string): string {
  return text.replaceAll(/\b(hastctl (?:[a-z0-9-]+ )+)NAME\b/g, (_, command: string) =>
    `${command}${resource}`);
}
