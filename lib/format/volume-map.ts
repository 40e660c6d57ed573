/** What `hastctl map` shows: the volume cut into equal cells, and what is marked in each. */
export interface VolumeMap {
  mediaSize: number;
  /** A power of two, at least 32 KiB; the last cell may be short. */
  cellBytes: number;
  /** Bytes in each cell whose newest data the peer lacks, or may lack. */
  peerStale: number[];
  /** Bytes in each cell whose newest data only the peer has. */
  localStale: number[];
  /** Bytes in each cell that lie in hot extents: any of them may differ after a crash. */
  hot: number[];
  /** The cell in which a resync copies now; -1 without one. */
  syncingAt: number;
}

/** Cells of one map: more than a terminal shows, and few enough for one reply. */
export const mapCellsMax = 2048;
