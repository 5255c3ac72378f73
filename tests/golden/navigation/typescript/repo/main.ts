import { Cart, makeCart } from "./cart";

const cart: Cart = makeCart([]);
console.log(cart.price()); // makeCart in a comment
