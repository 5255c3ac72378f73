export const LIMIT = 10;

class Base {}

export class Cart extends Base {
  #secret = 1;
  constructor(items) { super(); this.items = items; }
  get total() { return this.items.reduce((a, b) => a + b, 0); }
  async load(path) {
    function inner() { return LIMIT; }
    return inner();
  }
}

export function makeCart(...items) {
  return new Cart(items);
}

export const double = (x) => x * 2;
const tools = { triple: function (x) { return x * 3; } };
module.exports.helper = (a) => a;
