export interface Priced { price(): number; }
export type Items = Priced[];
export enum Kind { Small, Large }

export abstract class Base {
  abstract name(): string;
}

export class Cart extends Base implements Priced {
  private handler = (event: string): void => {};
  constructor(private items: Items) { super(); }
  name(): string { return "cart"; }
  price(): number { return this.items.length; }
}

export function makeCart<T extends Priced>(items: T[]): Cart {
  return new Cart(items);
}
export const double = (x: number): number => x * 2;
namespace Shop { export const open = true; }
