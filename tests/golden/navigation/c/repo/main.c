int make_cart_count(void);
struct cart *make_cart(int size);

int main(void)
{
    /* make_cart in a comment */
    return make_cart(2) == 0;
}
