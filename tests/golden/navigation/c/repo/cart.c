#include "cart.h"
#define LIMIT 10
#define TWICE(x) ((x) * 2)

struct cart { int size; };
typedef struct cart cart_t;
enum kind { SMALL, LARGE };
static int shared = 1;

static int add(int a, int b)
{
    return a + b;
}

cart_t *make_cart(int size)
{
    (void)add(size, TWICE(LIMIT));
    return 0;
}
