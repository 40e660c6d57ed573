/**
 * What a node speaks: a range of protocol versions and a set of features, and what comes of two of
 * them. Nothing here is global: who holds a node to less passes another `Protocol`.
 *
 * Protocol history
 * - 1: first version.
 */
import { HastError } from '../base/errors.ts';
import { FrameType } from './frame.ts';

/** What may be missing in a node of any version: bits of `features` in a hello. */
export const Feature = {
  /** A primary without a complete copy of its own is served from the peer's. */
  remote: 1,
  /** Answers `number` frames. */
  numbers: 2,
  /** One node asks the other to take over, or to hand over. */
  switchover: 4,
  /** Tells the other node's hastctl check --peer what it is and believes. */
  facts: 8,
} as const;
export type FeatureName = keyof typeof Feature;

export const featureNames = Object.keys(Feature) as FeatureName[];

/** Frames that only come where both nodes have the feature. */
const featureFrames: Readonly<Record<FeatureName, readonly number[]>> = {
  remote: [FrameType.detach, FrameType.detachAck, FrameType.pullDone, FrameType.pullDoneAck],
  numbers: [FrameType.number, FrameType.numberAck],
  switchover: [FrameType.switchover, FrameType.switchoverDone],
  facts: [FrameType.facts, FrameType.factsDone],
};

const featureOf = new Uint8Array(256);
for (const name of featureNames) {
  for (const type of featureFrames[name]) featureOf[type] = Feature[name];
}

export interface Protocol {
  /** Oldest and newest version. */
  readonly versionMin: number;
  readonly versionMax: number;
  /** `Feature` bits; a peer's may hold others, of a later release. */
  readonly features: number;
}

/** What this program speaks. */
export const ownProtocol: Protocol = {
  versionMin: 1, versionMax: 1,
  features: Feature.remote | Feature.numbers | Feature.switchover | Feature.facts,
};

/** What a pair of nodes uses. */
export interface Agreement {
  readonly version: number;
  readonly features: number;
}

/** The newest version that both speak and the features that both have; null without a version. */
export function agreeOn(one: Protocol, other: Protocol): Agreement | null {
  const version = Math.min(one.versionMax, other.versionMax);
  if (version < one.versionMin || version < other.versionMin) return null;
  return { version, features: one.features & other.features };
}

/** Throws HAST_E_PROTOCOL where a frame of this type belongs to a feature that is not agreed on. */
export function checkFrameAgreed(type: number, features: number): void {
  const feature = featureOf[type] ?? 0;
  if ((features & feature) === feature) return;
  throw new HastError('HAST_E_PROTOCOL', `a frame (type ${type}) that was not agreed on`);
}

/** The names of known bits, in the order of the bits. */
export function namesOfFeatures(features: number): FeatureName[] {
  return featureNames.filter((name) => (features & Feature[name]) !== 0);
}
