// Chance with a seed: whoever knows the seed can have the same choices made again.

export interface Dice {
  /** From 0 to 1, without 1. */
  fraction(): number
  /** A whole number, both ends included. */
  whole(least: number, most: number): number
  happens(probability: number): boolean
  pick<T>(list: readonly T[]): T
  shuffle<T>(list: readonly T[]): T[]
}

/** Mulberry32; a seed is a whole number below 2^32. */
export function createDice(seed: number): Dice {
  let state = seed >>> 0
  const fraction = () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const whole = (least: number, most: number) => least + Math.floor(fraction() * (most - least + 1))
  return {
    fraction,
    whole,
    happens: (probability) => fraction() < probability,
    pick: (list) => list[whole(0, list.length - 1)]!,
    shuffle(list) {
      const shuffled = [...list]
      for (let last = shuffled.length - 1; last > 0; last--) {
        const other = whole(0, last)
        ;[shuffled[last], shuffled[other]] = [shuffled[other]!, shuffled[last]!]
      }
      return shuffled
    },
  }
}

/** Dice of its own for the n-th of many, so that none depends on how fast the others were. */
export const diceFor = (seed: number, n: number) =>
  createDice(Math.imul(seed ^ (n + 1), 0x9e3779b1) ^ n)
