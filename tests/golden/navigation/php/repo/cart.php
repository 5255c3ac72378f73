<?php
namespace Shop;

const LIMIT = 10;

interface Priced { public function price(): int; }
trait Counted { public function count(): int { return 1; } }

final class Cart extends Base implements Priced
{
    use Counted;

    public function __construct(private array $items) {}

    public function price(): int
    {
        return count($this->items);
    }

    public static function makeCart(int ...$items): Cart
    {
        return new Cart($items);
    }
}

function make_cart(int ...$items): Cart
{
    return Cart::makeCart(...$items);
}
