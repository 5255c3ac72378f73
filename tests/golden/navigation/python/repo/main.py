from cart import Cart, make_cart

cart: Cart = make_cart(1, 2)
print(cart.total)  # make_cart in a comment
text = "make_cart in a string"
