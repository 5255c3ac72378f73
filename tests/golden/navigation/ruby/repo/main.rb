require_relative "cart"

cart = Shop::Cart.make_cart(1, 2) # make_cart in a comment
puts cart.total
