source ./cart.sh
# make_cart in a comment
make_cart 1 2 | sort
result=$(make_cart 3)
