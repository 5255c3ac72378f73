#include "cart.h"

int main()
{
    // make_cart in a comment
    return shop::make_cart(2);
}
