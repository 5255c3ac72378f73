package shop;

import shop.Cart;

class Main {
    void run() {
        Cart cart = Cart.makeCart(1, 2); // makeCart in a comment
        cart.price();
    }
}
