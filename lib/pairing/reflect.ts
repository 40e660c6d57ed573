/**
 * tsyringe, on which @peculiar/x509 is built, does not load without the functions of the package
 * reflect-metadata. It asks them for types of constructor arguments, and there are none: it is told
 * so. To be imported before @peculiar/x509.
 */
const none = (): undefined => undefined;
const reflect = Reflect as typeof Reflect & Record<string, unknown>;
reflect['getMetadata'] ??= none;
reflect['getOwnMetadata'] ??= none;
reflect['defineMetadata'] ??= none;
