<?php
use function Shop\make_cart;

$cart = make_cart(1, 2); // make_cart in a comment
echo $cart->price();
