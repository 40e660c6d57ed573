/**
 * For developers and tests: holds a node to an older protocol than this program speaks, to see how
 * it works with a newer one. docs/wire-protocol.md tells of the two variables.
 */
import { HastError } from '../base/errors.ts';
import {
  Feature, featureNames, ownProtocol, type FeatureName, type Protocol,
} from '../format/protocol.ts';

/** Newest version of the protocol that the node speaks. */
export const protocolMaxVariable = 'HAST_PROTOCOL_MAX';
/** Names of the features that it has, separated by commas; empty for none. */
export const featuresVariable = 'HAST_FEATURES';

/**
 * `ownProtocol`, or less where the environment says so. The parent reads it when it starts and the
 * workers, which inherit the environment, when they do. Throws HAST_E_USAGE where a value means
 * nothing.
 */
export function heldProtocol(environment: NodeJS.ProcessEnv): Protocol {
  const max = environment[protocolMaxVariable];
  const features = environment[featuresVariable];
  if (max === undefined && features === undefined) return ownProtocol;
  return {
    ...ownProtocol,
    ...(max === undefined ? {} : { versionMax: versionFrom(max) }),
    ...(features === undefined ? {} : { features: featuresFrom(features) }),
  };
}

function versionFrom(text: string): number {
  const { versionMin, versionMax } = ownProtocol;
  const version = /^\d{1,5}$/.test(text) ? Number(text) : -1;
  if (version >= versionMin && version <= versionMax) return version;
  throw new HastError('HAST_E_USAGE', `${protocolMaxVariable}: '${text}' is no version of ours`, {
    hint: `this program speaks ${versionMin} to ${versionMax}`,
  });
}

function featuresFrom(text: string): number {
  let bits = 0;
  for (const name of text.split(',').map((one) => one.trim()).filter((one) => one !== '')) {
    if (!isFeature(name)) {
      throw new HastError('HAST_E_USAGE', `${featuresVariable}: there is no feature '${name}'`,
        { hint: `the features are ${featureNames.join(', ')}` });
    }
    bits |= Feature[name];
  }
  return bits;
}

function isFeature(name: string): name is FeatureName {
  return Object.hasOwn(Feature, name);
}
