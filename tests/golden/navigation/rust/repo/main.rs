use crate::cart::{make_cart, Cart};

fn main() {
    // make_cart in a comment
    let cart: Cart<u32> = make_cart(vec![1, 2]);
    println!("{}", cart.total());
}
