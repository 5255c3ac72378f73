import { Cart, makeCart } from "./cart.js";

const cart = makeCart(1, 2);
console.log(cart.total, cart instanceof Cart); // makeCart in a comment
